// All that is known of one service or backend, kept up while it is looked at, with what can be done about it.

import { actsOn } from "./cells.js";
import { show } from "./dialogs.js";
import { h, say } from "./dom.js";
import { clock, endpoint, percent, rate, span, whole } from "./format.js";
import { backendKey, serviceKey } from "./rows.js";
import { health, state, summary } from "./words.js";

const signed = (shown) => `${shown.sign} ${shown.word}`;

function backendFacts(service, backend, rates) {
  const key = backendKey(service.name, backend.address), seen = health(backend);
  return [
    ["Service", service.name],
    ["State", signed(state(backend.effective_state))],
    ["Asked for", backend.admin_state],
    ["Health", signed(state(seen.word))],
    ["Since", seen.since === null ? null : `${clock(seen.since)}, ${span(Date.now() / 1000 - seen.since)} ago`],
    ["Last error", seen.error],
    ["Kept in", seen.held && "by the mass failure guard: too many backends fail at once"],
    ["Weight", `${backend.weight}, ${percent(backend.ring_share)} of new flows`],
    ["Flows", whole(backend.flows)],
    ["Now", `${rate(rates.pps(key))} packets/s, ${rate(rates.bps(key))} bits/s`],
    ["In all", `${whole(backend.packets)} packets, ${whole(backend.bytes)} bytes`],
    ["Next hop", backend.next_hop_mac ? `${backend.next_hop_mac} by ${backend.interface}` : "not resolved: is it up, is there a route?"],
    ["QUIC id", backend.quic_id],
  ];
}

function serviceFacts(service, rates, labels) {
  const key = serviceKey(service.name), flood = service.flood_protection;
  const pairs = Object.entries(labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return [
    ["Takes", `${service.protocol} ${endpoint(service.vip, service.port)}`],
    ["Mode", service.mode],
    ["Backends", signed(summary(service.backends))],
    ["Labels", pairs.join(", ")],
    ["Flows", whole(service.flows)],
    ["Now", `${rate(rates.pps(key))} packets/s, ${rate(rates.bps(key))} bits/s`],
    ["In all", `${whole(service.packets)} packets, ${whole(service.bytes)} bytes`],
    ["Flood protection", flood && (flood.under_attack ? `under attack since ${clock(flood.attack_began_at)}` : "at peace")],
    ["New flows, last second", flood && whole(flood.new_flows_last_second)],
  ];
}

/** Open the details; find() gives {service, backend} as they are now, or null when they are gone. */
export async function details(find, { rates, labels, act, explain, may, onSample }) {
  const { service, backend } = find();
  const list = h("dl", { class: "facts" }), acts = h("div", { class: "dialog-foot" });
  let stop = () => {};
  await show(backend ? backend.address : service.name, (close) => {
    let offered = null;
    function refresh() {
      const now = find();
      if (!now) { close(); return; }
      const facts = backend ? backendFacts(now.service, now.backend, rates) : serviceFacts(now.service, rates, labels.get(service.name));
      const said = facts.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
      if (said.length * 2 !== list.children.length) list.replaceChildren(...said.flatMap(([name]) => [h("dt", {}, name), h("dd")]));
      said.forEach(([name, value], at) => {
        say(list.children[2 * at], name);
        say(list.children[2 * at + 1], value);
      });
      const offers = backend && may() ? actsOn(now.backend) : [];
      if (offers.join() === offered) return;
      offered = offers.join();
      acts.replaceChildren(
        h("button", { type: "button", class: "quiet", onclick: () => { close(); explain(now.service); } }, "Explain a packet to it"),
        ...offers.map(([what, label]) => h("button", {
          type: "button", class: what === "disable" ? "danger" : "primary",
          onclick: () => { close(); act(what, now.service, now.backend); },
        }, label)));
    }
    refresh();
    stop = onSample(refresh);
    return h("div", {}, list, acts);
  });
  stop();
}
