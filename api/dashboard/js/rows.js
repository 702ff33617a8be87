// Which rows the table of services has: filtered, sorted, unfolded. Pure.

import { summary } from "./words.js";

/** What a service or a backend is counted under in the history of rates. */
export const serviceKey = (name) => `s/${name}`;
export const backendKey = (name, address) => `b/${name}/${address}`;

const OF_SERVICE = {
  name: (s) => s.name,
  state: (s) => ["bad", "warn", "off", "ok"].indexOf(summary(s.backends).tone),
  flows: (s) => s.flows,
  pps: (s, rates) => rates.pps(serviceKey(s.name)) ?? -1,
  bps: (s, rates) => rates.bps(serviceKey(s.name)) ?? -1,
};

/** The columns that can be sorted by, and whether the largest comes first. */
export const SORTS = { name: false, state: false, flows: true, pps: true, bps: true };

/** Rows in order: {id, kind, service, backend, total, open, at, of}; at, of: the place among its siblings.
 *
 * view: {filter, troubled, sort: {by, down} or null, open: Set of names}; labels: by service. A service is shown if it fits
 * the filter itself, or a backend does: then with the backends that do, unfolded.
 */
export function rowsOf(services, view, rates, labels) {
  const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = [];
  for (const service of services) {
    const total = summary(service.backends);
    if (view.troubled && !total.trouble) continue;
    const own = words.length ? textOf(service, total, labels.get(service.name)) : "";
    const fits = words.every((word) => own.includes(word));
    const backends = fits ? service.backends : service.backends.filter((b) => {
      const text = `${own} ${b.address} ${b.effective_state} ${b.admin_state} ${b.health}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (fits || backends.length) shown.push({ service, total, backends, open: !fits || view.open.has(service.name) });
  }
  if (view.sort) {
    const value = OF_SERVICE[view.sort.by], sign = view.sort.down ? -1 : 1;
    const keyed = shown.map((one) => [value(one.service, rates), one]);
    keyed.sort(([a], [b]) => sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b));
    shown.splice(0, shown.length, ...keyed.map(([, one]) => one));
  }
  const rows = [];
  shown.forEach(({ service, total, backends, open }, at) => {
    rows.push({ id: serviceKey(service.name), kind: "service", service, backend: null, total, open, at: at + 1, of: shown.length });
    if (!open) return;
    backends.forEach((backend, place) => rows.push({
      id: backendKey(service.name, backend.address), kind: "backend", service, backend, total, open: null,
      at: place + 1, of: backends.length,
    }));
  });
  return { rows, services: shown.length };
}

function textOf(service, total, labels) {
  const pairs = Object.entries(labels ?? {}).map(([name, value]) => `${name}=${value}`);
  const attack = service.flood_protection?.under_attack ? "under attack" : "";
  return [service.name, service.vip, service.port, service.protocol, service.mode, total.word, attack, ...pairs]
    .join(" ").toLowerCase();
}
