// The event log: what happened lately, and what happens, the newest first.

import { get } from "./api.js";
import { byId, h, say } from "./dom.js";
import { clock } from "./format.js";
import { Stream } from "./stream.js";

const KEPT = 200;
const LEVELS = ["info", "warning", "error"];
const SIGNS = { info: "·", warning: "▲", error: "✕" };

export class EventLog {
  #level = 0;
  #first = true;

  /** onEvent(event): called with what comes while the page looks on. */
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.list = h("ol");
    this.state = h("span", { class: "hint" }, "");
    this.select = h("select", { "aria-label": "Show events", onchange: () => { this.#level = Number(this.select.value); this.#filter(); } },
      ...["all", "warnings and errors", "errors"].map((label, at) => h("option", { value: at }, label)));
    byId("events-controls").append(this.state, this.select);
    this.empty = h("p", { class: "empty" }, "Nothing has happened yet.");
    byId("events").append(h("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Events, the newest first", tabindex: 0 }, this.list, this.empty));
    this.stream = new Stream({
      onEvent: (event) => { this.#add(event); this.onEvent(event); },
      onLost: (number) => this.#line({ time: Date.now() / 1000, level: "warning", kind: "lost", text: number === null ? "the daemon was started again" : `${number} events were missed` }),
      onState: (connected) => say(this.state, connected ? "" : "not connected"),
    });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stream.stop() : this.start()));
  }

  /** The last of what is kept, then what comes. */
  async start() {
    if (this.#first) {
      try {
        const page = await get("/events", { query: { limit: 10000, since: "1h" } });
        for (const event of page.items.slice(-KEPT)) this.#add(event);
        this.stream.last = page.last;
        this.#first = false;
      } catch (problem) {
        say(this.state, problem.message);
        if (!document.hidden) setTimeout(() => this.start(), 5000);
        return;
      }
    }
    if (!document.hidden) this.stream.start();
  }

  #add(event) { this.#line(event); }

  #line(event) {
    this.empty.hidden = true;
    const line = h("li", { "data-level": event.level, hidden: LEVELS.indexOf(event.level) < this.#level },
      h("time", { title: String(event.time) }, clock(event.time)),
      h("span", { class: "kind" }, h("span", { "aria-hidden": true }, `${SIGNS[event.level]} `), event.kind),
      h("span", { class: "text" }, event.level === "info" ? null : h("span", { class: "unseen" }, `${event.level}: `), event.text));
    this.list.prepend(line);
    while (this.list.children.length > KEPT) this.list.lastChild.remove();
  }

  #filter() {
    for (const line of this.list.children) line.hidden = LEVELS.indexOf(line.dataset.level) < this.#level;
  }
}
