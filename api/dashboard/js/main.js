// Puts the page together: what is seen goes from the poll to each view, and what is asked for goes back as a request.

import { block, change, unblock } from "./actions.js";
import { get } from "./api.js";
import { conditions, freshness, pendingChange } from "./banners.js";
import { Blocklist } from "./blocklist.js";
import { details } from "./details.js";
import { byId, say } from "./dom.js";
import { Drops } from "./drops.js";
import { EventLog } from "./events.js";
import { Explain } from "./explain.js";
import { Columns, Rates } from "./history.js";
import { help, startKeys } from "./keys.js";
import { badges, fill, totals } from "./overview.js";
import { Poll } from "./poll.js";
import { backendKey, rowsOf, serviceKey, SORTS } from "./rows.js";
import { askToken, may, onSession, startSession } from "./session.js";
import { Table } from "./table.js";
import { Talkers } from "./talkers.js";
import { startTheme, turn } from "./theme.js";

const CHART_KEPT = 900;
const FORWARDED = "sum/forwarded", DROPPED = "sum/dropped", PASSED = "sum/passed";

const rates = new Rates(), dropRates = new Columns(CHART_KEPT);
const view = { filter: "", troubled: false, sort: null, open: new Set() };
const poll = new Poll(), looking = new Set();
let latest = null, labels = new Map(), labelled = null, actions = new Map(), lookups = null, unfolded = false;

startTheme();
const operates = () => may("operator");
const table = new Table(byId("services"), { rates, toggle, sort, act, may: operates });
const drops = new Drops(dropRates, rates);
const explain = new Explain();
const askBlock = (prefix) => block(prefix, changed);
const blocklist = new Blocklist({ block: askBlock, unblock: (entry, owner) => unblock(entry, owner, changed), may: operates });
new Talkers({ block: askBlock, may: operates });
const log = new EventLog((event) => { if (event.kind.startsWith("config.")) changed(); });

function changed() {
  poll.now();
  blocklist.search();
}

// ---- what is seen ---------------------------------------------------------------------------------------------------

function counters({ status, stats }) {
  const seen = new Map(), sums = { [FORWARDED]: [0, 0], [DROPPED]: [0, 0], [PASSED]: [0, 0] };
  for (const service of status.services) {
    seen.set(serviceKey(service.name), [service.packets, service.bytes]);
    for (const one of service.backends) seen.set(backendKey(service.name, one.address), [one.packets, one.bytes]);
  }
  for (const [name, { packets, bytes }] of Object.entries(stats.verdicts)) {
    seen.set(`v/${name}`, [packets, bytes]);
    const action = actions.get(name) ?? name.split("_")[0].toLowerCase();
    const sum = sums[action === "drop" ? DROPPED : action === "pass" ? PASSED : FORWARDED];
    sum[0] += packets;
    sum[1] += bytes;
  }
  for (const [key, sum] of Object.entries(sums)) seen.set(key, sum);
  return seen;
}

/** Of the lookups since the last sample, how many found their flow; null if there were none. */
function hitRate({ hits, misses, untracked }) {
  const now = [hits, hits + misses + untracked], before = lookups ?? now;
  lookups = now;
  const all = now[1] - before[1];
  return all > 0 ? Math.min(1, Math.max(0, (now[0] - before[0]) / all)) : null;
}

function sample({ detail }) {
  const { status, stats, seconds } = detail;
  rates.add(seconds, counters(detail));
  latest = status;
  const dropped = Object.entries(stats.verdicts).filter(([name]) => name.startsWith("DROP_"));
  if (rates.length > 1) dropRates.add(Date.now() / 1000, dropped.map(([name]) => [name, rates.pps(`v/${name}`)]));
  badges(status);
  conditions(status);
  pendingChange(status, poll);
  freshness(poll);
  totals(status, stats, rates, { forwarded: FORWARDED, dropped: DROPPED, passed: PASSED }, hitRate(stats.flow_table));
  fill(status.tables);
  drops.show(dropped);
  rows();
  if (rates.length === 1) performance.mark("rows"); // how long the first ones took, for whoever measures
  if (status.revision !== labelled) readLabels(status.revision);
  for (const look of looking) look();
}

async function readVerdicts() {
  try {
    const { items } = await get("/verdicts");
    actions = new Map(items.map((verdict) => [verdict.name, verdict.action]));
    drops.verdicts = items;
  } catch { /* names tell as much, and the sentences are missing */ }
}

async function readLabels(revision) {
  labelled = revision;
  try {
    const { items } = await get("/services", { query: { limit: 10000 } });
    labels = new Map(items.map((service) => [service.name, service.labels]));
  } catch {
    labelled = null; // asked for again at the next sample
  }
}

function rows() {
  if (!latest) return;
  const found = rowsOf(latest.services, view, rates, labels), all = latest.services.length;
  say(byId("services-count"), found.services === all ? String(all) : `${found.services} of ${all}`);
  table.show(found.rows, view.sort, all ? "No service fits the filter." : "There is no service yet: “sluice service add” makes one.");
}

// ---- what is asked for ----------------------------------------------------------------------------------------------

function toggle(name) {
  if (!view.open.delete(name)) view.open.add(name);
  table.choose(serviceKey(name));
  rows();
}

function sort(by) {
  const first = SORTS[by], present = view.sort;
  // First the natural order, then the other, then as they were added.
  view.sort = present?.by !== by ? { by, down: first } : present.down === first ? { by, down: !first } : null;
  rows();
}

function find(name, address) {
  const service = latest.services.find((one) => one.name === name) ?? null;
  const backend = service?.backends.find((one) => one.address === address) ?? null;
  return service && (backend || address === null) ? { service, backend } : null;
}

function act(what, service, backend) {
  table.choose(backend ? backendKey(service.name, backend.address) : serviceKey(service.name));
  if (what === "details") {
    details(() => find(service.name, backend?.address ?? null), {
      rates, labels, act, may: operates, explain: (one) => explain.about(one),
      onSample: (look) => { looking.add(look); return () => looking.delete(look); },
    });
  } else if (operates()) change(what, service, backend, () => poll.now());
}

byId("filter").addEventListener("input", (event) => { view.filter = event.target.value; rows(); });
byId("troubled").addEventListener("change", (event) => { view.troubled = event.target.checked; rows(); });
byId("fold").addEventListener("click", () => {
  unfolded = !unfolded;
  view.open = new Set(unfolded ? latest?.services.map((service) => service.name) : []);
  say(byId("fold"), unfolded ? "Collapse all" : "Expand all");
  rows();
});
const KEYS = [
  ["/", "filter the services", () => byId("filter").focus()],
  ["s", "go to the table", () => table.focus(table.active?.id)],
  ["b", "block", () => operates() && askBlock("")],
  ["x", "explain a packet", () => explain.focus()],
  ["t", "colours", turn],
];
startKeys(KEYS);
byId("help").addEventListener("click", () => help(KEYS));
byId("filter").addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); table.focus(table.active?.id); } });

// ---- and it begins --------------------------------------------------------------------------------------------------

async function begin() {
  poll.addEventListener("sample", sample);
  poll.addEventListener("failure", () => {
    freshness(poll);
    if (poll.problem.status === 401) askToken(poll.problem).then(() => poll.now());
  });
  poll.addEventListener("tick", () => { freshness(poll); pendingChange(latest, poll); });
  onSession(() => { rows(); blocklist.search(); readVerdicts(); poll.now(); });
  poll.start();
  await startSession();
  log.start();
}

begin();
