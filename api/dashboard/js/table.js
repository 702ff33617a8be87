// The table of services and backends. Only the rows in sight are in the document, so four thousand cost as much as forty.

import { h, say, set } from "./dom.js";
import { cellsOf } from "./cells.js";
import { SORTS } from "./rows.js";

const COLUMNS = [
  ["name", "Service"], ["address", "Address"], ["state", "State"], ["health", "Health"], ["weight", "Weight"],
  ["flows", "Flows"], ["pps", "Packets/s"], ["bps", "Bits/s"], ["trend", "2 min"], ["acts", ""],
];
const BEYOND = 6;

export class Table {
  #rows = [];
  #made = new Map();
  #active = null;
  #context;
  #frame = 0;

  /** context: {rates, toggle(name), sort(by), act(what, service, backend), may()}. */
  constructor(host, context) {
    this.#context = context;
    this.host = host;
    this.top = spacer();
    this.bottom = spacer();
    this.heads = new Map(COLUMNS.map(([key, title]) => [key, this.#head(key, title)]));
    this.body = h("tbody", {}, this.top, this.bottom);
    this.empty = h("p", { class: "empty", hidden: true });
    this.table = h("table", { class: "services", role: "treegrid", "aria-labelledby": "services-title", "aria-colcount": COLUMNS.length },
      h("thead", {}, h("tr", { "aria-rowindex": 1 }, ...this.heads.values())), this.body);
    host.append(this.table, this.empty);
    host.addEventListener("scroll", () => this.#later(), { passive: true });
    host.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#later()).observe(host);
  }

  #head(key, title) {
    const cell = h("th", { scope: "col", class: `c-${key}` });
    if (key in SORTS) cell.append(h("button", { type: "button", onclick: () => this.#context.sort(key) }, title));
    else cell.append(title || h("span", { class: "unseen" }, "Actions"));
    return cell;
  }

  /** Show these rows; `nothing` is said if there are none. */
  show(rows, sort, nothing) {
    this.#rows = rows;
    for (const [key, cell] of this.heads) {
      set(cell, "aria-sort", sort?.by === key ? (sort.down ? "descending" : "ascending") : null);
    }
    set(this.table, "aria-rowcount", rows.length + 1);
    this.empty.hidden = rows.length > 0;
    say(this.empty, nothing);
    if (!rows.some((row) => row.id === this.#active)) this.#active = rows[0]?.id ?? null;
    this.#draw();
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => { this.#frame = 0; this.#draw(); });
  }

  get #height() { return parseFloat(getComputedStyle(this.host).getPropertyValue("--row")) || 28; }

  #draw() {
    const height = this.#height, rows = this.#rows;
    const first = Math.max(0, Math.min(rows.length, Math.floor(this.host.scrollTop / height) - BEYOND));
    const last = Math.min(rows.length, first + Math.ceil(this.host.clientHeight / height || 30) + 2 * BEYOND);
    // Through the style object, not the attribute: the page's policy forbids styles in markup.
    this.top.style.height = `${first * height}px`;
    this.bottom.style.height = `${(rows.length - last) * height}px`;
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const kept = new Map();
    let after = this.top.nextSibling;
    for (let at = first; at < last; at += 1) {
      const row = rows[at];
      const made = this.#made.get(row.id) ?? cellsOf(row, this.#context);
      made.update(row, this.#context);
      set(made.row, "aria-rowindex", at + 2);
      set(made.row, "tabindex", row.id === this.#active ? 0 : -1);
      for (const button of made.buttons) set(button, "tabindex", row.id === this.#active ? null : -1);
      if (made.row === after) after = after.nextSibling;
      else this.body.insertBefore(made.row, after);
      made.row.dataset.id = row.id;
      kept.set(row.id, made);
    }
    while (after !== this.bottom) { const gone = after; after = after.nextSibling; gone.remove(); }
    this.#made = kept;
    if (focused && document.activeElement !== focused) {
      // It was moved, or is out of sight: the keys go on from here.
      (this.body.contains(focused) ? focused : this.host).focus({ preventScroll: true });
    }
  }

  /** Put the focus on a row, in sight. */
  focus(id) {
    const at = this.#rows.findIndex((row) => row.id === id);
    if (at < 0) return;
    this.#active = id;
    const height = this.#height, head = this.table.tHead.offsetHeight;
    const top = at * height, room = this.host.clientHeight - head;
    if (top < this.host.scrollTop) this.host.scrollTop = top;
    else if (top + height > this.host.scrollTop + room) this.host.scrollTop = top + height - room;
    this.#draw();
    this.#made.get(id)?.row.focus({ preventScroll: true });
  }

  /** The row that the keys mean. */
  get active() { return this.#rows.find((row) => row.id === this.#active) ?? null; }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.#rows.findIndex((row) => row.id === this.#active), row = this.#rows[at];
    if (!row) return;
    const page = Math.max(1, Math.floor(this.host.clientHeight / this.#height) - 2);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -at, End: this.#rows.length };
    const isButton = event.target.closest("button") !== null;
    if (event.key in steps) {
      this.focus(this.#rows[Math.min(this.#rows.length - 1, Math.max(0, at + steps[event.key]))].id);
    } else if (event.key === "ArrowRight" && row.open === false) this.#context.toggle(row.service.name);
    else if (event.key === "ArrowLeft" && row.open) this.#context.toggle(row.service.name);
    else if (event.key === "ArrowLeft" && row.kind === "backend") this.focus(`s/${row.service.name}`);
    else if ((event.key === "Enter" || event.key === " ") && !isButton) {
      if (row.kind === "service") this.#context.toggle(row.service.name);
      else this.#context.act("details", row.service, row.backend);
    } else if (event.key === "i") this.#context.act("details", row.service, row.backend);
    else if (event.key === "d" && row.backend) this.#context.act("drain", row.service, row.backend);
    else if (event.key === "e" && row.backend) this.#context.act("enable", row.service, row.backend);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** A row was clicked: the keys go on from there. */
  choose(id) {
    this.#active = id;
    this.#draw();
  }
}

function spacer() {
  return h("tr", { class: "spacer", "aria-hidden": true }, h("td"));
}
