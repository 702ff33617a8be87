// Keys that work anywhere on the page but where text is typed; those of the table are its own.

import { show } from "./dialogs.js";
import { h } from "./dom.js";

const TABLE = [
  ["↑ ↓ or j k", "go through the rows"], ["→ ←", "unfold, fold"], ["Enter", "unfold a service; details of a backend"],
  ["i", "details"], ["d", "drain the backend"], ["e", "enable it"],
];

/** keys: [key, what it does, function]. */
export function startKeys(keys) {
  const every = [...keys, ["?", "this list", () => help(keys)]];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest("input, textarea, select, dialog") || document.querySelector("dialog[open]")) return;
    const found = every.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2]();
  });
}

export function help(keys) {
  const part = (title, pairs) => [h("h3", {}, title), h("dl", { class: "facts keys" }, ...pairs.flatMap(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]))];
  return show("Keys", () => h("div", {}, ...part("Anywhere", [...keys, ["?", "this list"], ["Esc", "close what is open"]]), ...part("In the table", TABLE)));
}
