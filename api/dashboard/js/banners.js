// What must not be overlooked: data that are old, a data plane that is not ready, an attack, a change to be confirmed.

import { call } from "./api.js";
import { byId, h, say, set } from "./dom.js";
import { notice } from "./dialogs.js";
import { span } from "./format.js";
import { may } from "./session.js";

const lines = new Map();

/** Show a banner under a key, change it, or (text null) take it away. action: [label, function]. */
export function banner(key, tone, text, action = null) {
  let line = lines.get(key);
  if (text === null) {
    line?.root.remove();
    lines.delete(key);
    return;
  }
  if (!line) {
    const words = h("span", { class: "banner-text" });
    const button = action && h("button", { type: "button", class: "banner-act", onclick: () => action[1]() }, action[0]);
    line = { root: h("p", { class: `banner ${tone}`, "data-key": key }, h("span", { "aria-hidden": true }, tone === "bad" ? "✕ " : "▲ "), words, button), words };
    lines.set(key, line);
    byId("banners").append(line.root);
  }
  say(line.words, text);
}

/** How fresh the data are: the word in the bar each second, and the banner when they are not. */
export function freshness(poll) {
  const age = poll.age, stale = poll.isStale;
  document.body.classList.toggle("stale", stale);
  const known = age === null ? "no data yet" : !poll.isLate ? "live" : `${span(age)} old`;
  const word = byId("freshness");
  say(word, known);
  set(word, "data-tone", stale ? "bad" : "ok");
  const why = poll.problem ? `: ${poll.problem.message}` : "";
  banner("stale", "bad", !stale ? null
    : age === null ? `There are no data${why}.` : `Data are old: last seen ${span(age)} ago${why}.`);
}

/** What the status itself says. */
export function conditions(status) {
  banner("ready", "bad", status.ready ? null : `Not ready: ${status.reasons.join("; ") || "no reason is given"}`);
  const attacked = status.services.filter((s) => s.flood_protection?.under_attack).map((s) => s.name);
  banner("attack", "warn", attacked.length ? `Under attack: ${attacked.slice(0, 5).join(", ")}${attacked.length > 5 ? ` and ${attacked.length - 5} more` : ""}` : null);
  const generic = status.interfaces.filter((i) => i.attached && i.xdp_mode === "generic").map((i) => i.name);
  banner("generic", "warn", generic.length ? `${generic.join(", ")} runs in generic XDP mode, which is slow: see whether its driver can do native mode.` : null);
}

/** The change that waits to be confirmed, if any: shown each second, with what is left of its time. */
export function pendingChange(status, poll) {
  const pending = status?.pending;
  if (!pending) { banner("confirm", "warn", null); return; }
  const left = pending.seconds_left - (poll.age ?? 0);
  banner("confirm", "warn", `Revision ${pending.revision} waits to be confirmed: it is rolled back in ${span(left)}.`, may("admin") ? ["Keep it", async () => {
    try {
      await call("POST", "/config/confirm", { query: { revision: pending.revision }, timeout: 20000 });
      notice(`revision ${pending.revision} is kept`);
    } catch (problem) {
      notice(problem.message);
    }
    poll.now();
  }] : null);
}
