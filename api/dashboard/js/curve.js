// A small curve of the last rates. What it says stands as a number beside it, so it is hidden from screen readers.

import { set, svg } from "./dom.js";

const WIDTH = 90, HEIGHT = 18;

export function curve(width = WIDTH, height = HEIGHT) {
  const area = svg("path", { class: "curve-area" }), line = svg("path", { class: "curve-line" });
  const root = svg("svg", {
    class: "curve", viewBox: `0 0 ${width} ${height}`, width, height, preserveAspectRatio: "none", "aria-hidden": true, focusable: "false",
  }, area, line);
  return {
    root,
    draw(values) {
      const most = values.reduce((a, b) => (b > a ? b : a), 0);
      const step = width / Math.max(1, values.length - 1);
      let path = "", start = null, last = null, areas = "";
      values.forEach((value, at) => {
        if (Number.isNaN(value)) return;
        const x = (at * step).toFixed(1), y = (height - 1.5 - (most ? (value / most) * (height - 3) : 0)).toFixed(1);
        path += `${start === null ? "M" : "L"}${x} ${y}`;
        start ??= x;
        last = x;
      });
      if (start !== null) areas = `${path}L${last} ${height}L${start} ${height}Z`;
      set(line, "d", path || "M0 0");
      set(area, "d", areas || "M0 0");
    },
  };
}
