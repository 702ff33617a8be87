// Dialogs: what asks before it does something. The browser's own <dialog> keeps the focus within and gives it back.

import { h, say } from "./dom.js";

let numbers = 0;

/** A dialog of that title; `content` is given a function that closes it. Resolves when it is closed. */
export function show(title, content, { wide = false } = {}) {
  return new Promise((resolve) => {
    const id = `dialog-${(numbers += 1)}`;
    const close = () => dialog.close();
    const dialog = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : null },
      h("div", { class: "dialog-head" },
        h("h2", { id }, title),
        h("button", { type: "button", class: "quiet icon", "aria-label": "Close", onclick: close }, "✕")),
      content(close));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) close(); });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[autofocus]")?.focus();
  });
}

/** Ask, then do: `work` is called with the form's values. What it throws is shown, and the dialog stays.
 *
 * fields: elements to fill in. again(problem): the label under which the same may be forced after that problem, or null;
 * work is then called with forced = true.
 */
export function ask({ title, text, fields = [], action, danger = false, work, again = () => null }) {
  return show(title, (close) => {
    const refusal = h("p", { class: "refusal", role: "alert", hidden: true });
    const go = h("button", { type: "submit", class: danger ? "danger" : "primary", autofocus: fields.length ? null : true }, action);
    const force = h("button", { type: "button", class: "danger", hidden: true });
    async function run(forced) {
      go.disabled = force.disabled = true;
      refusal.hidden = true;
      try {
        await work(Object.fromEntries(new FormData(form)), forced);
        close();
      } catch (problem) {
        say(refusal, problem.message);
        refusal.hidden = false;
        const label = again(problem);
        force.hidden = label === null;
        if (label !== null) say(force, label);
      } finally {
        go.disabled = force.disabled = false;
      }
    }
    force.addEventListener("click", () => run(true));
    const form = h("form", {
      method: "dialog", novalidate: true,
      onsubmit: (event) => { event.preventDefault(); run(false); },
    },
      ...[text].flat().map((line) => h("p", {}, line)),
      ...fields, refusal,
      h("div", { class: "dialog-foot" },
        h("button", { type: "button", class: "quiet", onclick: close }, "Cancel"), force, go));
    return form;
  });
}

/** A labelled control of a form. */
export function field(label, control, hint = null) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint && h("small", {}, hint));
}

let notices = null;

/** Say in passing what was done; a screen reader hears it too. */
export function notice(text) {
  notices ??= document.body.appendChild(h("div", { class: "notices", role: "status", "aria-live": "polite" }));
  const line = h("p", {}, text);
  notices.append(line);
  setTimeout(() => line.remove(), 6000);
}
