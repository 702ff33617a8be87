// Who sends the most. Looking costs the packet path a little, so it is done only while it is asked for, and in sight.

import { get } from "./api.js";
import { address, byId, h, say, set } from "./dom.js";
import { percent, rate } from "./format.js";

const SECONDS = 2;
const WAYS = ["source", "prefix", "service", "verdict"];
/** The first look waits for the compiler. */
const PATIENCE_MS = 30000;

export class Talkers {
  #by = "source";
  #looking = null;

  /** block(prefix), may(). */
  constructor({ block, may }) {
    this.block = block;
    this.may = may;
    this.way = h("select", { "aria-label": "Put together by", onchange: () => { this.#by = this.way.value; this.#again(); } },
      ...WAYS.map((way) => h("option", { value: way }, `by ${way}`)));
    this.button = h("button", { type: "button", onclick: () => (this.#looking ? this.stop() : this.start()) }, "Look");
    this.said = h("p", { class: "empty", role: "status" }, "Looking samples packets as they pass; it goes on until it is stopped, or the page is hidden.");
    this.body = h("tbody");
    this.head = h("th", { scope: "col" }, "source");
    this.table = h("table", { class: "plain", hidden: true },
      h("thead", {}, h("tr", {}, this.head, h("th", { scope: "col", class: "num" }, "Packets/s"), h("th", { scope: "col", class: "num" }, "Share"), h("th", { scope: "col" }, "Verdicts"), h("th", {}, h("span", { class: "unseen" }, "Actions")))), this.body);
    byId("talkers-controls").append(this.way, this.button);
    byId("talkers").append(this.table, this.said);
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
  }

  #again() { if (this.#looking) { this.stop(); this.start(); } }

  stop() {
    this.#looking?.abort();
    this.#looking = null;
    say(this.button, "Look");
    set(this.button, "aria-pressed", "false");
  }

  async start() {
    const looking = (this.#looking = new AbortController());
    say(this.button, "Stop");
    set(this.button, "aria-pressed", "true");
    if (this.table.hidden) say(this.said, "Looking…");
    try {
      while (!looking.signal.aborted) {
        const found = await get("/top", { query: { by: this.#by, seconds: SECONDS, limit: 10 }, timeout: PATIENCE_MS, signal: looking.signal });
        this.#show(found);
      }
    } catch (problem) {
      if (looking.signal.aborted) return;
      say(this.said, problem.message);
      this.stop();
    }
  }

  #show(found) {
    say(this.head, found.by);
    this.table.hidden = found.items.length === 0;
    say(this.said, `${rate(found.packets_per_second)} packets/s in all; ${found.sampled} of ${found.packets} looked at in ${found.seconds.toFixed(1)} s.`);
    this.body.replaceChildren(...found.items.map((item) => {
      const verdicts = Object.entries(item.verdicts).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([name]) => name);
      const isAddress = (found.by === "source" || found.by === "prefix") && item.key !== "-";
      const bar = h("span", { class: "bar-full" });
      bar.style.width = `${Math.min(100, item.share * 100)}%`;
      return h("tr", {},
        h("td", { class: "mono address" }, ...address(item.key)),
        h("td", { class: "num" }, rate(item.packets_per_second)),
        h("td", { class: "num" }, h("span", { class: "meter small", "aria-hidden": true }, bar), ` ${percent(item.share)} ± ${percent(item.uncertainty)}`),
        h("td", { class: "muted wrap" }, verdicts.join(", ")),
        h("td", { class: "num" }, isAddress && this.may() ? h("button", { type: "button", class: "quiet act", "aria-label": `Block ${item.key}`, onclick: () => this.block(item.key) }, "Block") : null));
    }));
  }
}
