// All users with what they did, and one of them with tokens, rights and refusals.

import { get } from "./api.js";
import { enforce, revokeUser } from "./actions.js";
import { bytes, count, el, facts, moment, note, replace, share, table } from "./dom.js";
import { refusalsTable } from "./refusals.js";
import { tokensTable } from "./tokens.js";

export const userLink = (name) => (name ? el("a", { href: `#/user/${encodeURIComponent(name)}` }, name) : el("span", { class: "muted" }, "nobody"));

const COLUMNS = [
  { title: "User", sort: "name", cell: (user) => userLink(user.name) },
  { title: "State", cell: (user) => (user.disabled ? "disabled" : user.mode === "report" ? "reported only" : "enabled") },
  { title: "Last request", sort: "last", cell: (user) => moment(user.last) },
  { title: "Requests", sort: "requests", number: true, cell: (user) => count(user.requests) },
  { title: "Errors", sort: "errors", number: true, cell: (user) => share(user.errors, user.requests) },
  { title: "Bytes", sort: "bytes", number: true, cell: (user) => bytes(user.bytes_in + user.bytes_out) },
  { title: "Tokens", sort: "tokens", number: true, cell: (user) => count(user.tokens) },
  { title: "Would be refused", sort: "reported", number: true, cell: (user) => count(user.reported) },
  { title: "Failed logins", sort: "failed_logins", number: true, cell: (user) => count(user.failed_logins) },
];

export function users(root) {
  let sort = "last";
  let limit = 100;
  let latest = 0;
  let timer;
  const search = el("input", { type: "search", name: "search", autocomplete: "off", spellcheck: "false", oninput: () => {
    clearTimeout(timer);
    timer = setTimeout(load, 150);
  } });
  const found = el("p", { role: "status", class: "muted" });
  const list = el("div", {});
  root.append(el("section", {}, el("h2", {}, "Users"),
    el("div", { class: "search" }, el("label", {}, "User or role", search), found), list));

  async function load() {
    const mine = ++latest;
    let answer;
    try {
      answer = await get("users", { search: search.value, sort, limit });
    } catch (error) {
      return note(error.message);
    }
    // An answer that was overtaken by a later one is dropped.
    if (mine !== latest) return;
    found.textContent = `${count(answer.users.length)} of ${count(answer.total)} shown`;
    const more = answer.total > answer.users.length && limit < 1000;
    replace(list,
      table("Users since the gateway started", COLUMNS, answer.users, { sort, ascending: sort === "name", onsort: (key) => { sort = key; load(); } }),
      more ? el("button", { type: "button", onclick: () => { limit = 1000; load(); } }, "Show more") : "");
  }
  load();
  return null;
}

export function user(root, _state, name) {
  const place = el("div", { class: "stack" });
  root.append(place);

  async function load() {
    let found, tokens, refused;
    try {
      [found, tokens, refused] = await Promise.all([get("user", { name }), get("tokens", { user: name, limit: 200 }), get("refusals", { user: name, limit: 50 })]);
    } catch (error) {
      return place.replaceChildren(el("section", {}, el("h2", {}, name), el("p", {}, error.status === 404 ? "There is no such user." : error.message)));
    }
    const { user, rights, limits } = found;
    const then = (done) => done && load();
    replace(place, el("section", {},
      el("h2", {}, user.name),
      facts([
        ["State", user.disabled ? "disabled" : "enabled"],
        ["Rights are", user.mode === "report" ? "reported only" : "enforced"],
        ["Roles", user.roles.join(", ") || "none"],
        ["Limits", limits || "none"],
        ["Last request", moment(user.last)],
        ["Requests", count(user.requests)],
        ["Errors", `${count(user.errors)} (${share(user.errors, user.requests)})`],
        ["Bytes in, out", `${bytes(user.bytes_in)}, ${bytes(user.bytes_out)}`],
        ["Would be refused", count(user.reported)],
        ["Failed logins", count(user.failed_logins)],
      ]),
      el("div", { class: "tools" },
        el("button", { type: "button", class: "danger", onclick: async () => then(await revokeUser(user.name)) }, "Revoke all tokens…"),
        user.mode === "report" ? el("button", { type: "button", onclick: async () => then(await enforce(user.name)) }, "Enforce the rights…") : null)),
      el("section", {}, el("h2", {}, "Tokens"), tokensTable(tokens.tokens, load)),
      el("section", {}, el("h2", {}, "Rights"), table("What each method of each route is answered", [
        { title: "Route", cell: (row) => row.route },
        { title: "Method", cell: (row) => row.method },
        { title: "Decision", wrap: true, cell: (row) => (!row.allowed ? el("span", { class: "failed" }, "denied") : row.forms ? `only the forms ${row.forms.join(", ")}` : "allowed") },
      ], rights.flatMap((route) => route.methods.map((method) => ({ route: route.route, ...method }))))),
      el("section", {}, el("h2", {}, "Recent refusals"), refusalsTable(refused.refusals)));
  }
  load();
  return null;
}
