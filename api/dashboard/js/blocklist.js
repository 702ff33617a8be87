// The blocklist: what is on it about an address, and the way off it.

import { get } from "./api.js";
import { address, byId, h, say } from "./dom.js";
import { count, moment, span, whole } from "./format.js";

const PAGE = 50;

export class Blocklist {
  #asked = 0;
  #next = null;

  /** unblock(entry, owner), block(text), may(). */
  constructor({ unblock, block, may }) {
    this.unblock = unblock;
    this.may = may;
    this.input = h("input", { type: "search", class: "mono", name: "prefix", autocomplete: "off", spellcheck: "false", placeholder: "Address or prefix, such as 192.0.2.7", "aria-label": "Search the blocklist" });
    this.said = h("p", { class: "empty", role: "status" });
    this.body = h("tbody");
    this.table = h("table", { class: "plain entries" },
      h("thead", {}, h("tr", {}, ...["Prefix", "Owner and reason", "Ends", "Hits", ""].map((title, at) =>
        h("th", { scope: "col", class: at === 3 ? "num" : null }, title || h("span", { class: "unseen" }, "Actions"))))), this.body);
    this.more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.#load(this.#next) }, "More");
    byId("blocklist").append(
      h("form", { class: "line", role: "search", onsubmit: (event) => { event.preventDefault(); this.search(); } }, this.input, h("button", { type: "submit" }, "Search")),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Blocklist entries" }, this.table, this.said, this.more));
    this.input.addEventListener("search", () => this.input.value || this.search()); // it was cleared
    byId("block").addEventListener("click", () => block(this.input.value.trim()));
  }

  /** Look again for what is in the field; without anything, the first page. */
  search() { return this.#load(null); }

  async #load(after) {
    const turn = (this.#asked += 1), text = this.input.value.trim();
    try {
      const page = await get("/blocklist", { query: { overlaps: text, limit: PAGE, after } });
      if (turn !== this.#asked) return;
      if (!text) say(byId("blocklist-count"), whole(page.total));
      if (!after) this.body.replaceChildren();
      this.body.append(...page.items.map((entry) => this.#row(entry)));
      this.#next = page.next;
      this.more.hidden = page.next === null;
      this.table.hidden = this.body.children.length === 0;
      say(this.said, page.total ? "" : text ? `Nothing on the blocklist holds ${text}, or lies in it.` : "The blocklist is empty.");
    } catch (problem) {
      if (turn !== this.#asked) return;
      this.table.hidden = true;
      this.more.hidden = true;
      say(this.said, problem.message);
    }
  }

  #row(entry) {
    const left = entry.expires_at === null ? "never" : `in ${span(moment(entry.expires_at) - Date.now() / 1000)}`;
    const owners = entry.owners ?? [entry.owner], owner = owners[0];
    const mine = this.may() && !owner.startsWith("feed:") && !owner.startsWith("rule:");
    return h("tr", {},
      h("td", { class: "mono address" }, ...address(entry.prefix), entry.action === "count" ? h("span", { class: "tag" }, "count only") : null),
      h("td", {}, h("span", { class: "muted" }, owners.join(", ")), entry.reason ? ` ${entry.reason}` : null),
      h("td", { class: "keep" }, left),
      h("td", { class: "num", title: whole(entry.hits.packets) + (entry.hits.shared ? " of the whole feed" : "") }, count(entry.hits.packets)),
      h("td", { class: "num" }, mine && h("button", { type: "button", class: "quiet act", "aria-label": `Unblock ${entry.prefix}`, onclick: () => this.unblock(entry, owner) }, "Unblock")));
  }
}
