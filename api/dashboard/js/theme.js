// Light, dark, or as the system has it.

import { byId, memory, say, set } from "./dom.js";

const ORDER = ["system", "light", "dark"];
const SIGNS = { system: "◐", light: "☀", dark: "☾" };
const changed = new EventTarget();

/** Call back when colours have changed, for what is drawn by hand. */
export const onTheme = (listener) => changed.addEventListener("change", listener);

export function startTheme() {
  apply(ORDER.includes(memory.get("theme")) ? memory.get("theme") : "system");
  byId("theme").addEventListener("click", turn);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => changed.dispatchEvent(new Event("change")));
}

export function turn() {
  const next = ORDER[(ORDER.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % ORDER.length];
  memory.put("theme", next);
  apply(next);
}

function apply(theme) {
  set(document.documentElement, "data-theme", theme === "system" ? null : theme);
  const button = byId("theme");
  say(button, SIGNS[theme]);
  set(button, "aria-label", `Colours: ${theme === "system" ? "as the system" : theme}`);
  set(button, "title", `Colours: ${theme === "system" ? "as the system" : theme} (t)`);
  changed.dispatchEvent(new Event("change"));
}

/** A colour of the style sheet, as it is now. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
