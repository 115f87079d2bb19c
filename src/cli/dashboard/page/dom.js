// Elements, and how numbers and times are written. Text is always set as text: nothing is parsed as HTML.

/** An element with attributes (`onclick` and the like are listeners) and children; null children are left out. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (number) => (number == null ? "-" : whole.format(number));

export function bytes(number) {
  if (number == null) return "-";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; number >= 1024 && at < units.length - 1; at += 1) number /= 1024;
  return `${short.format(number)} ${units[at]}`;
}

export function micros(number) {
  if (number == null) return "-";
  if (number < 1000) return `${short.format(number)} µs`;
  return number < 1e6 ? `${short.format(number / 1e3)} ms` : `${short.format(number / 1e6)} s`;
}

export const rate = (number) => (number == null ? "-" : `${short.format(number)}/s`);

export const share = (part, all) => (all ? `${short.format((100 * part) / all)} %` : "-");

/** A moment as the operator's clock shows it; the exact one is in its title. */
export function moment(text) {
  if (!text) return el("span", { class: "muted" }, "never");
  const date = new Date(text);
  const options = { dateStyle: "medium", timeStyle: "medium" };
  return el("time", { datetime: text, title: text }, date.toLocaleString("en-GB", options));
}

export const clockTime = (date) => date.toLocaleTimeString("en-GB");

/** How long something lasts, in its two largest units. */
export function lasting(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const found = [];
  for (const [size, unit] of parts) {
    const many = Math.floor(seconds / size);
    seconds -= many * size;
    if (many || (found.length === 0 && unit === "s")) found.push(`${many} ${unit}`);
    if (found.length === 2) break;
  }
  return found.join(" ");
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value != null);
  return el("dl", { class: "facts" }, ...shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/**
 * A table. Each column has a `title` and a `cell` that makes the content of a row; `number`, `wrap` and `sort` (the
 * key that `onsort` is called with) are optional.
 */
export function table(caption, columns, rows, { sort, ascending, onsort } = {}) {
  const head = columns.map((column) => {
    const sorted = column.sort && column.sort === sort;
    const title = column.sort && onsort ? el("button", { type: "button", onclick: () => onsort(column.sort) }, column.title) : column.title;
    const order = sorted ? (ascending ? "ascending" : "descending") : null;
    return el("th", { scope: "col", class: column.number && "number", "aria-sort": order }, title);
  });
  const body = rows.map((row) =>
    el("tr", {}, ...columns.map((column) => {
      const kind = [column.number && "number", column.wrap && "wrap"].filter(Boolean).join(" ");
      return el("td", { class: kind || null, "data-label": column.title }, column.cell(row));
    })),
  );
  const empty = rows.length === 0 && el("p", { class: "muted" }, "There are none.");
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "cards" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)),
    empty || null);
}

/** Puts children in the place of others that differ, without losing the focus where an element of the same name has it. */
export function replace(parent, ...children) {
  const next = parent.cloneNode(false);
  next.append(...children);
  if (next.isEqualNode(parent)) return;
  const held = parent.contains(document.activeElement) ? document.activeElement : null;
  const name = held?.getAttribute("name") ?? held?.textContent;
  const tag = held?.tagName;
  parent.replaceChildren(...next.childNodes);
  if (!held || parent.contains(held)) return;
  const again = [...parent.querySelectorAll(tag)].find((it) => (it.getAttribute("name") ?? it.textContent) === name);
  again?.focus();
}

/** Says something in passing, to screen readers too. */
export function note(text) {
  const place = document.getElementById("note");
  place.textContent = text;
  clearTimeout(note.timer);
  note.timer = setTimeout(() => (place.textContent = ""), 8000);
}
