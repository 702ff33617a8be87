// Drop reasons over time: a line a reason, each with a colour and a dash of its own, and the same as a table of figures.

import uPlot from "../vendor/uplot.js";
import { byId, h, say, svg } from "./dom.js";
import { count, rate, whole } from "./format.js";
import { colour, onTheme } from "./theme.js";

const MOST = 6;
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 4], [12, 4]];
const HEIGHT = 190;
const WINDOW_S = 120;

export class Drops {
  #plot = null;
  #names = [];
  #sentences = new Map();

  /** columns: a history.Columns of drop verdicts. */
  constructor(columns, rates) {
    this.columns = columns;
    this.rates = rates;
    this.chart = h("div", { class: "chart", role: "img", "aria-label": "Drops a second over time; the table has the same in figures" });
    this.body = h("tbody");
    this.table = h("table", { class: "plain drop-table" },
      h("thead", {}, h("tr", {}, ...["Reason", "Packets/s", "In all"].map((title, at) => h("th", { scope: "col", class: at ? "num" : null }, title)))), this.body);
    this.empty = h("p", { class: "empty" }, "Nothing has been dropped.");
    byId("drops").append(this.chart, this.table, this.empty);
    new ResizeObserver(() => this.#plot?.setSize({ width: this.chart.clientWidth, height: HEIGHT })).observe(this.chart);
    onTheme(() => this.#build());
  }

  set verdicts(list) {
    this.#sentences = new Map(list.map((verdict) => [verdict.name, verdict.sentence]));
  }

  /** tallies: packets and bytes by verdict, of those that drop. */
  show(tallies) {
    const seen = tallies.filter(([, tally]) => tally.packets > 0).sort((a, b) => (this.rates.pps(`v/${b[0]}`) ?? 0) - (this.rates.pps(`v/${a[0]}`) ?? 0) || b[1].packets - a[1].packets);
    // Who has a line keeps it, and its colour, while something came of it in the time shown.
    const foremost = this.columns.foremost();
    const kept = this.#names.filter((name) => foremost.includes(name));
    const names = [...kept, ...foremost.filter((name) => !kept.includes(name))].slice(0, MOST);
    if (names.join() !== this.#names.join() || !this.#plot) {
      this.#names = names;
      this.#build();
    }
    this.#plot.setData(this.#data());
    this.empty.hidden = seen.length > 0;
    this.table.hidden = seen.length === 0;
    this.#rows(seen);
  }

  #data() {
    return [this.columns.times, ...(this.#names.length ? this.#names.map((name) => this.columns.column(name)) : [this.columns.times.map(() => 0)])];
  }

  #build() {
    const width = this.chart.clientWidth;
    if (!width) return;
    const text = colour("muted"), line = colour("line"), font = "11px system-ui, sans-serif";
    const axis = { stroke: text, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const series = this.#names.map((name, at) => ({ label: name, stroke: colour(`series-${at + 1}`), width: 1.75, dash: DASHES[at], points: { show: false } }));
    this.#plot?.destroy();
    this.#plot = new uPlot({
      width, height: HEIGHT, legend: { show: false }, cursor: { show: false }, padding: [10, 8, 0, 0],
      // At first mostly empty: it fills from the right.
      scales: { x: { range: (_, first, last) => [Math.min(first, last - WINDOW_S), last] }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [
        { ...axis, size: 30, grid: { show: false }, values: (_, times) => times.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB")), space: 80 },
        { ...axis, size: 48, values: (_, values) => values.map((v) => count(v)) },
      ],
      series: [{}, ...(series.length ? series : [{ stroke: "transparent" }])],
    }, this.#data(), this.chart);
  }

  #rows(seen) {
    while (this.body.children.length > seen.length) this.body.lastChild.remove();
    seen.forEach(([name, tally], at) => {
      const row = this.body.children[at] ?? this.body.appendChild(h("tr", {}, h("td", {}, h("span", { class: "swatch" }), h("span")), h("td", { class: "num" }), h("td", { class: "num" })));
      const [swatch, label] = row.cells[0].children, place = this.#names.indexOf(name);
      if (swatch.dataset.place !== String(place)) {
        swatch.dataset.place = place;
        swatch.replaceChildren(...(place < 0 ? [] : [svg("svg", { width: 22, height: 8, "aria-hidden": true },
          svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, class: `series-${place + 1}`, "stroke-width": 2, "stroke-dasharray": DASHES[place].join(" ") || null }))]));
      }
      say(label, name);
      row.title = this.#sentences.get(name) ?? "";
      say(row.cells[1], rate(this.rates.pps(`v/${name}`)));
      say(row.cells[2], whole(tally.packets));
    });
  }
}
