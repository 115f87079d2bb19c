// Line charts of points in time, read with the pointer, with a finger or with the arrow keys.

import { clockTime, el } from "./dom.js";

const WIDTH = 1000;
const HEIGHT = 100;

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/**
 * A chart. Each of `series` has a `name` and a `value` that makes a number, or null, of a point; `format` writes a
 * number. `show` is called with the points, the longest time shown and the length of a point, in seconds.
 */
export function chart(title, series, format) {
  const paths = series.map((_, at) => svg("path", { class: `series s${at}` }));
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const grid = svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 });
  const top = el("span", { class: "top" });
  const when = el("span", {});
  const values = series.map(() => el("b", {}, "-"));
  const legend = series.map((one, at) => el("li", {}, el("i", { class: `s${at}` }), `${one.name} `, values[at]));
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, grid, ...paths, cursor);
  const plot = el("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}, time`, "aria-valuemin": "0" }, top, drawing);
  let points = [];
  let x = () => 0;
  let chosen = null;

  function choose(at) {
    chosen = at;
    const point = points[at ?? points.length - 1];
    cursor.setAttribute("visibility", at == null ? "hidden" : "visible");
    if (at != null) {
      cursor.setAttribute("x1", x(point));
      cursor.setAttribute("x2", x(point));
    }
    when.textContent = point ? clockTime(new Date(point.at)) : "no data yet";
    const texts = series.map((one) => (point ? format(one.value(point)) : "-"));
    texts.forEach((text, at) => (values[at].textContent = text));
    plot.setAttribute("aria-valuemax", Math.max(points.length - 1, 0));
    plot.setAttribute("aria-valuenow", at ?? Math.max(points.length - 1, 0));
    const spoken = series.map((one, at) => `${one.name} ${texts[at]}`).join(", ");
    plot.setAttribute("aria-valuetext", `${when.textContent}: ${spoken}`);
  }

  function nearest(event) {
    const box = plot.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * WIDTH;
    let best = null;
    points.forEach((point, at) => {
      if (best == null || Math.abs(x(point) - wanted) < Math.abs(x(points[best]) - wanted)) best = at;
    });
    return best;
  }

  plot.addEventListener("pointermove", (event) => choose(nearest(event)));
  plot.addEventListener("pointerleave", () => choose(null));
  plot.addEventListener("blur", () => choose(null));
  plot.addEventListener("keydown", (event) => {
    const last = points.length - 1;
    const from = chosen ?? last;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    if (to == null || last < 0) return;
    event.preventDefault();
    choose(Math.min(Math.max(to, 0), last));
  });

  return {
    element: el("figure", {}, el("figcaption", {}, el("h3", {}, title), when), plot, el("ul", { class: "legend" }, ...legend)),
    show(all, span, interval) {
      points = all;
      const seconds = points.map((point) => Date.parse(point.at) / 1000);
      const end = seconds.at(-1) ?? 0;
      // While there is little to show, it is shown large.
      const width = Math.min(Math.max(end - (seconds[0] ?? end), span / 12), span);
      x = (point) => WIDTH * (1 - (end - Date.parse(point.at) / 1000) / width);
      const numbers = points.flatMap((point) => series.map((one) => one.value(point) ?? 0));
      const most = Math.max(...numbers, 0);
      top.textContent = most > 0 ? format(most) : "";
      series.forEach((one, at) => {
        let path = "";
        let before = null;
        for (const point of points) {
          const value = one.value(point);
          const time = Date.parse(point.at) / 1000;
          // Where nothing is known there is no line.
          const joined = before != null && time - before <= 2 * interval;
          if (value != null) path += `${joined ? "L" : "M"}${x(point).toFixed(1)} ${(HEIGHT - (most ? (value / most) * (HEIGHT - 4) : 0)).toFixed(1)}`;
          if (value != null && !joined) path += "h1";
          before = value == null ? null : time;
        }
        paths[at].setAttribute("d", path || "M0 0");
      });
      choose(chosen != null && chosen < points.length ? chosen : null);
    },
  };
}
