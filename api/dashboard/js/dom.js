// Elements are built here, and only here. What the operator or a packet said goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** h("td", {class: "num", "aria-label": "…", onclick: f}, "text", child): an element; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An address or prefix, which is broken behind a colon if it has to be, and nowhere else. */
export function address(text) {
  return text.split(/(?<=:)/).flatMap((part, at) => (at ? [h("wbr"), part] : [part]));
}

/** An element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else set(element, name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set an attribute: true is an empty one (of aria: "true"); false, null and undefined take it away. Untouched if it is so already. */
export function set(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else {
    const text = value === true && !name.startsWith("aria-") ? "" : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** Set the text, untouched if it is so already: a screen reader and a selection are not disturbed. */
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export const byId = (id) => document.getElementById(id);

/** What is kept between visits; a browser that forbids it forgets. */
export const memory = {
  get(key) {
    try { return localStorage.getItem(`sluice.${key}`); } catch { return null; }
  },
  put(key, value) {
    try { localStorage.setItem(`sluice.${key}`, value); } catch { /* forgotten, then */ }
  },
};
