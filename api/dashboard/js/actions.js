// What changes something: each asks first, says what it will come to, and shows the daemon's own words if it refuses.

import { call, segment } from "./api.js";
import { ask, field, notice } from "./dialogs.js";
import { h } from "./dom.js";
import { count } from "./format.js";

const path = (service, backend) => `/services/${segment(service.name)}/backends/${segment(backend.address)}`;

function others(service, backend) {
  return service.backends.filter((b) => b.address !== backend.address && b.effective_state === "active").length;
}

const flows = (backend) => `${count(backend.flows)} ${backend.flows === 1 ? "flow" : "flows"}`;

const WORDS = {
  drain: {
    title: (s, b) => `Drain ${b.address} of ${s.name}?`,
    text: (s, b) => [`Its ${flows(b)} may end in peace; new ones go to the other active backends (${others(s, b)}).`],
    action: "Drain", done: "is draining",
  },
  disable: {
    title: (s, b) => `Disable ${b.address} of ${s.name}?`,
    text: (s, b) => [`It gets no packet from now on: its ${flows(b)} move to other backends, which do not know them. Draining lets them end first.`],
    action: "Disable", done: "is disabled", danger: true,
  },
  enable: {
    title: (s, b) => `Enable ${b.address} of ${s.name}?`,
    text: (s, b) => [`It takes new flows again, by its weight of ${b.weight}.`],
    action: "Enable", done: "is enabled",
  },
};

/** Drain, disable or enable a backend. */
export function change(what, service, backend, after) {
  const words = WORDS[what], text = words.text(service, backend);
  const last = what !== "enable" && others(service, backend) === 0;
  if (last) text.push("No other backend of this service is active: nobody takes its new flows then.");
  return ask({
    title: words.title(service, backend), text, action: words.action, danger: words.danger || last,
    async work() {
      await call("POST", `${path(service, backend)}/${what}`, { timeout: 20000 });
      notice(`${backend.address} of ${service.name} ${words.done}`);
      after();
    },
  });
}

const TTLS = [["", "until it is unblocked"], ["600", "10 minutes"], ["3600", "1 hour"], ["86400", "1 day"], ["604800", "7 days"]];

/** Put a prefix on the blocklist. A refusal to cut off what is in use can be overruled. */
export function block(prefix, after) {
  return ask({
    title: "Block",
    text: "What comes from there is dropped before anything else looks at it, unless the allowlist has it.",
    fields: [
      field("Address or prefix", h("input", { name: "prefix", value: prefix, required: true, autocomplete: "off", spellcheck: "false", autofocus: !prefix, class: "mono" })),
      field("Reason", h("input", { name: "reason", maxlength: 200, autocomplete: "off", autofocus: Boolean(prefix) })),
      field("For", h("select", { name: "ttl" }, ...TTLS.map(([value, label]) => h("option", { value }, label)))),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "trial" }), " Count only, drop nothing"),
    ],
    action: "Block", danger: true,
    again: (problem) => (problem.status === 409 ? "Block all the same" : null),
    async work(form, forced) {
      const entry = { prefix: form.prefix.trim(), reason: form.reason.trim(), action: form.trial ? "count" : "drop" };
      if (form.ttl) entry.ttl_seconds = Number(form.ttl);
      const made = await call("POST", "/blocklist", { body: entry, query: { force: forced ? "true" : null }, timeout: 20000 });
      notice(`${made.prefix} is ${form.trial ? "counted" : "blocked"}`);
      after();
    },
  });
}

/** Take an owner's entry off the blocklist. */
export function unblock(entry, owner, after) {
  return ask({
    title: `Unblock ${entry.prefix}?`,
    text: [
      `Packets from there are let in again${entry.reason ? ` (blocked for: ${entry.reason})` : ""}.`,
      ...(owner === "operator" ? [] : [`The entry is ${owner}'s, who may put it back.`]),
    ],
    action: "Unblock",
    async work() {
      await call("DELETE", `/blocklist/${segment(entry.prefix)}`, { query: { owner }, timeout: 20000 });
      notice(`${entry.prefix} is no longer blocked`);
      after();
    },
  });
}
