// The latest requests that were refused, by user, route, reason or the id that a client was told.

import { get } from "./api.js";
import { count, el, moment, note, replace, table } from "./dom.js";

const user = (name) => (name ? el("a", { href: `#/user/${encodeURIComponent(name)}` }, name) : el("span", { class: "muted" }, "nobody"));

const COLUMNS = [
  { title: "Time", cell: (row) => moment(row.at) },
  { title: "User", cell: (row) => user(row.user) },
  { title: "Reason", cell: (row) => row.reason },
  { title: "Status", number: true, cell: (row) => (row.enforced ? (row.status ?? "-") : `${row.status ?? "-"}, reported only`) },
  { title: "Request", cell: (row) => `${row.method} ${row.route ?? "(no route)"}` },
  { title: "Source", cell: (row) => row.source },
  { title: "Request id", cell: (row) => el("code", {}, row.id) },
];

export const refusalsTable = (rows) => table("The latest first", COLUMNS, rows);

export function refusals(root) {
  let timer;
  let latest = 0;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(load, 200);
  };
  const field = (name) => el("input", { type: "search", name, autocomplete: "off", spellcheck: "false", oninput: later });
  const [byUser, byRoute, byId] = ["user", "route", "id"].map(field);
  const reason = el("select", { name: "reason", onchange: () => load() }, el("option", { value: "" }, "any"));
  const list = el("div", {});
  root.append(el("section", {}, el("h2", {}, "Refusals"),
    el("div", { class: "search" }, el("label", {}, "Reason", reason), el("label", {}, "User", byUser), el("label", {}, "Route", byRoute), el("label", {}, "Request id", byId),
      el("button", { type: "button", onclick: () => load() }, "Read again")),
    list));

  async function load() {
    const mine = ++latest;
    try {
      const answer = await get("refusals", { user: byUser.value.trim(), route: byRoute.value.trim(), id: byId.value.trim(), reason: reason.value, limit: 200 });
      if (mine !== latest) return;
      const chosen = reason.value;
      const options = Object.entries(answer.reasons).map(([name, many]) => el("option", { value: name, selected: name === chosen }, `${name} (${count(many)})`));
      reason.replaceChildren(el("option", { value: "" }, "any"), ...options);
      replace(list, refusalsTable(answer.refusals));
    } catch (error) {
      note(error.message);
    }
  }
  load();
  return null;
}
