// One row of the table, made once and told what has changed.

import { h, say, set } from "./dom.js";
import { curve } from "./curve.js";
import { count, endpoint, percent, rate, span, whole } from "./format.js";
import { backendKey, serviceKey } from "./rows.js";
import { health, state } from "./words.js";

/** What can be done with a backend in each state: [what, label]. */
export function actsOn(backend) {
  return backend.admin_state === "enabled"
    ? [["drain", "Drain"], ["disable", "Disable"]]
    : backend.admin_state === "draining" ? [["enable", "Enable"], ["disable", "Disable"]] : [["enable", "Enable"]];
}

/** {row, buttons, update(row, context)}. */
export function cellsOf({ kind, service, backend }, context) {
  return kind === "service" ? serviceCells(service, context) : backendCells(service, backend, context);
}

function sign() {
  const mark = h("span", { class: "sign", "aria-hidden": true }), word = h("span", { class: "word" });
  const root = h("span", { class: "state" }, mark, word);
  return {
    root,
    show(shown) {
      say(mark, shown.sign);
      say(word, shown.word);
      set(root, "data-tone", shown.tone);
    },
  };
}

function common(context, onclick) {
  const cells = {};
  for (const name of ["name", "address", "state", "health", "weight", "flows", "pps", "bps", "trend", "acts"]) {
    cells[name] = h("td", { class: `c-${name}`, role: "gridcell" });
  }
  const line = curve();
  cells.trend.append(line.root);
  const row = h("tr", {
    role: "row",
    onclick: (event) => {
      if (event.target.closest("button") || String(getSelection()).length) return;
      onclick();
    },
  }, ...Object.values(cells));
  return { cells, row, line };
}

function rates(cells, line, key, flows, context) {
  say(cells.flows, count(flows));
  set(cells.flows, "title", whole(flows));
  say(cells.pps, rate(context.rates.pps(key)));
  say(cells.bps, rate(context.rates.bps(key)));
  line.draw(context.rates.curve(key));
}

function more(label, onclick) {
  return h("button", { type: "button", class: "quiet icon more", "aria-label": label, title: "Details (i)", onclick }, "⋯");
}

function serviceCells(first, context) {
  let now = first;
  const name = now.name;
  const { cells, row, line } = common(context, () => context.toggle(name));
  const twist = h("span", { class: "twist", "aria-hidden": true });
  const sub = h("span", { class: "sub" }), mode = h("span", { class: "tag" }), where = h("span", { class: "mono" });
  const state_ = sign(), attack = h("span", { class: "tag bad" }, "under attack");
  const details = more(`Details of ${name}`, () => context.act("details", now, null));
  row.classList.add("service");
  set(row, "aria-level", 1);
  cells.name.append(twist, h("span", { class: "names" }, h("span", { class: "label" }, name), sub));
  cells.address.append(where, " ", mode);
  cells.state.append(state_.root);
  cells.acts.append(details);
  return {
    row, buttons: [details],
    update({ service, total, open, at, of }) {
      now = service;
      set(row, "aria-expanded", String(open));
      set(row, "aria-posinset", at);
      set(row, "aria-setsize", of);
      const text = `${service.protocol} ${endpoint(service.vip, service.port)}`;
      say(twist, open ? "▾" : "▸");
      say(sub, text);
      say(where, text);
      say(mode, service.mode);
      state_.show(total);
      const attacked = Boolean(service.flood_protection?.under_attack);
      if (attacked !== attack.isConnected) cells.health.replaceChildren(...(attacked ? [attack] : []));
      say(cells.weight, service.backends.reduce((sum, one) => sum + one.weight, 0));
      rates(cells, line, serviceKey(name), service.flows, context);
    },
  };
}

function backendCells(service, first, context) {
  let now = first, owner = service, offered = "";
  const act = (what) => context.act(what, owner, now);
  const { cells, row, line } = common(context, () => act("details"));
  const state_ = sign(), well = sign(), since = h("span", { class: "muted" });
  const details = more(`Details of ${first.address} of ${service.name}`, () => act("details"));
  const buttons = [details];
  row.classList.add("backend");
  set(row, "aria-level", 2);
  const sub = h("span", { class: "sub" });
  cells.name.append(h("span", { class: "names" }, h("span", { class: "label mono" }, first.address), sub));
  cells.state.append(state_.root);
  cells.health.append(well.root, " ", since);
  return {
    row, buttons,
    update({ service: parent, backend, at, of }) {
      now = backend;
      owner = parent;
      set(row, "aria-posinset", at);
      set(row, "aria-setsize", of);
      const hop = backend.next_hop_mac ? `${backend.next_hop_mac} ${backend.interface ?? ""}` : "no next hop";
      say(cells.address, hop.trim());
      state_.show(state(backend.effective_state));
      const seen = health(backend);
      well.show(state(seen.word));
      const long = seen.since === null ? "" : span(Date.now() / 1000 - seen.since);
      say(since, [long, seen.held && "held in", seen.error].filter(Boolean).join(" · "));
      set(cells.health, "title", seen.error);
      say(sub, `weight ${backend.weight}${seen.word === "unchecked" ? "" : ` · ${seen.word}`}`);
      say(cells.weight, backend.weight);
      set(cells.weight, "title", `${percent(backend.ring_share)} of new flows`);
      rates(cells, line, backendKey(parent.name, backend.address), backend.flows, context);
      const offers = context.may() ? actsOn(backend) : [];
      const key = offers.map(([what]) => what).join();
      if (key !== offered || !details.isConnected) {
        offered = key;
        buttons.splice(0, buttons.length, ...offers.map(([what, label]) => h("button", {
          type: "button", class: "quiet act", "aria-label": `${label} ${backend.address} of ${parent.name}`, onclick: () => act(what),
        }, label)), details);
        cells.acts.replaceChildren(...buttons);
      }
    },
  };
}
