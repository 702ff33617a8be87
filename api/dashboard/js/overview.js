// The bar's badges, the totals under it, and how full the tables are.

import { byId, h, say, set } from "./dom.js";
import { curve } from "./curve.js";
import { count, percent, rate, span, whole } from "./format.js";
import { summary } from "./words.js";

const made = new Map();

function once(key, make) {
  if (!made.has(key)) made.set(key, make());
  return made.get(key);
}

/** Interface and XDP mode, revision, readiness, age of the daemon. */
export function badges(status) {
  const wanted = [
    [status.ready ? "● ready" : "✕ not ready", status.ready ? "ok" : "bad", status.reasons.join("; ")],
    ...status.interfaces.map((i) => [
      `${i.name} · ${i.attached ? `${i.xdp_mode} XDP` : "not attached"}`,
      !i.attached ? "bad" : i.xdp_mode === "native" ? "ok" : "warn",
      `${i.mac ?? "no MAC"}, MTU ${i.mtu ?? "?"}, program ${i.program_id ?? "none"}`,
    ]),
    [`revision ${status.revision}`, "plain", "of the configuration in force"],
    [`up ${span(Date.now() / 1000 - status.started_at)}`, "plain", "the daemon; the data plane outlives it"],
  ];
  const host = byId("badges");
  while (host.children.length > wanted.length) host.lastChild.remove();
  wanted.forEach(([text, tone, title], at) => {
    const badge = host.children[at] ?? host.appendChild(h("span", { class: "badge" }));
    say(badge, text);
    set(badge, "data-tone", tone);
    set(badge, "title", title);
  });
  say(byId("about"), `Sluice ${status.version}`);
}

const TILES = ["Forwarded", "Dropped", "Passed on", "Flows", "Flow table hits", "Backends"];

/** sums: {forwarded, dropped, passed}: keys of the history. */
export function totals(status, stats, rates, sums, hitRate) {
  const flows = status.tables.find((t) => t.name === "flows");
  let active = 0, backends = 0, trouble = 0;
  for (const service of status.services) {
    const total = summary(service.backends);
    backends += service.backends.length;
    active += service.backends.filter((b) => b.effective_state === "active").length;
    trouble += total.trouble ? 1 : 0;
  }
  const rows = [
    [rate(rates.pps(sums.forwarded)), "packets/s", `${rate(rates.bps(sums.forwarded))} bits/s`, sums.forwarded],
    [rate(rates.pps(sums.dropped)), "packets/s", `${rate(rates.bps(sums.dropped))} bits/s`, sums.dropped],
    [rate(rates.pps(sums.passed)), "packets/s", "to the kernel, unchanged", sums.passed],
    [count(flows?.entries ?? 0), "remembered", `room for ${count(flows?.capacity ?? 0)}`, null],
    [percent(hitRate), "of lookups", `${count(stats.flow_table.evictions)} evictions in all`, null],
    [`${active}/${backends}`, "active", trouble ? `▲ ${trouble} ${trouble === 1 ? "service" : "services"} in trouble` : "no service in trouble", null],
  ];
  rows.forEach(([figure, unit, more, key], at) => {
    const tile = once(`tile-${at}`, () => {
      const parts = { figure: h("span", { class: "figure" }), unit: h("span", { class: "unit" }), more: h("span", { class: "more" }), line: curve(140, 26) };
      byId("totals").append(h("div", { class: "tile" }, h("h2", {}, TILES[at]), h("p", {}, parts.figure, " ", parts.unit), h("p", {}, parts.more), key && parts.line.root));
      return parts;
    });
    say(tile.figure, figure);
    say(tile.unit, unit);
    say(tile.more, more);
    set(tile.more, "data-tone", at === 5 && trouble ? "warn" : null);
    if (key) tile.line.draw(rates.curve(key));
  });
}

/** Each table as a bar with its figures; from 80 % on it says so, from 95 % loudly. */
export function fill(tables) {
  tables.forEach((table) => {
    const row = once(`fill-${table.name}`, () => {
      const bar = h("span", { class: "bar-full" }), figures = h("span", { class: "fill-figures" }), share = h("span", { class: "fill-share" });
      const meter = h("span", { class: "meter", role: "meter", "aria-label": table.name, "aria-valuemin": 0, "aria-valuemax": 1 }, bar);
      const root = h("div", { class: "fill-row" }, h("span", { class: "fill-name" }, table.name.replaceAll("_", " ")), meter, figures, share);
      byId("fill").append(root);
      return { bar, figures, share, meter, root };
    });
    const part = table.capacity ? table.entries / table.capacity : 0;
    row.bar.style.width = `${Math.min(100, table.entries ? Math.max(0.5, part * 100) : 0)}%`;
    set(row.root, "data-tone", part >= 0.95 ? "bad" : part >= 0.8 ? "warn" : "ok");
    set(row.meter, "aria-valuenow", part.toFixed(4));
    set(row.meter, "aria-valuetext", `${whole(table.entries)} of ${whole(table.capacity)}`);
    say(row.figures, `${count(table.entries)} of ${count(table.capacity)}`);
    say(row.share, `${part >= 0.95 ? "✕ " : part >= 0.8 ? "▲ " : ""}${percent(part)}`);
  });
}
