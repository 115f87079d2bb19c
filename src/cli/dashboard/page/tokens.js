// The live tokens, found by user, id or address, and revoked.

import { get } from "./api.js";
import { revokeToken } from "./actions.js";
import { count, el, moment, note, replace, table } from "./dom.js";

const user = (name) => (name ? el("a", { href: `#/user/${encodeURIComponent(name)}` }, name) : "-");

const COLUMNS = [
  { title: "Id", sort: "id", cell: (token) => el("code", {}, token.id) },
  { title: "User", sort: "user", cell: (token) => user(token.user) },
  { title: "Issued", sort: "issued", cell: (token) => moment(token.issued) },
  { title: "Expires", sort: "expires", cell: (token) => moment(token.expires) },
  { title: "Last used", sort: "last_used", cell: (token) => moment(token.last_used) },
  { title: "Requests", sort: "requests", number: true, cell: (token) => count(token.requests) },
  { title: "Source", sort: "source", cell: (token) => token.source },
];

/** A table of tokens, each with a button; `changed` is called when one was revoked. */
export function tokensTable(tokens, changed, order = {}) {
  const revoke = { title: "Action", cell: (token) => el("button", { type: "button", class: "danger", name: `revoke-${token.id}`, "aria-label": `Revoke token ${token.id}`, onclick: async () => (await revokeToken(token)) && changed() }, "Revoke…") };
  return table("Live tokens", [...COLUMNS, revoke], tokens, order);
}

/** The parameter that a text is for. */
function parameter(text) {
  if (/^[0-9a-f]{20}$/i.test(text)) return "id";
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(text) || text.includes(":")) return "source";
  return "user";
}

async function find(text, after) {
  if (text && parameter(text) === "id") {
    try {
      return { tokens: [await get(`tokens/${text}`)], next: null };
    } catch (error) {
      if (error.status === 404) return { tokens: [], next: null };
      throw error;
    }
  }
  return get("tokens", { limit: 200, after, ...(text ? { [parameter(text)]: text } : {}) });
}

export function tokens(root) {
  let shown = [];
  let next = null;
  let order = { sort: "id", ascending: true };
  let latest = 0;
  let timer;
  const search = el("input", { type: "search", name: "search", autocomplete: "off", spellcheck: "false", oninput: () => {
    clearTimeout(timer);
    timer = setTimeout(() => load(), 200);
  } });
  const found = el("p", { role: "status", class: "muted" });
  const list = el("div", {});
  root.append(el("section", {}, el("h2", {}, "Tokens"),
    el("div", { class: "search" }, el("label", {}, "User, token id or address", search), found), list));

  function draw() {
    const { sort, ascending } = order;
    const sorted = shown.toSorted((a, b) => {
      const [x, y] = [a[sort] ?? "", b[sort] ?? ""];
      return (x < y ? -1 : x > y ? 1 : 0) * (ascending ? 1 : -1);
    });
    found.textContent = next ? `The first ${count(shown.length)} are shown and sorted` : `${count(shown.length)} found`;
    const onsort = (key) => {
      order = { sort: key, ascending: key === order.sort ? !order.ascending : true };
      draw();
    };
    replace(list, tokensTable(sorted, () => load(), { ...order, onsort }),
      next ? el("button", { type: "button", onclick: () => load(next) }, "Show more") : "");
  }

  async function load(after) {
    const mine = ++latest;
    try {
      const page = await find(search.value.trim(), after);
      if (mine !== latest) return;
      shown = after ? [...shown, ...page.tokens] : page.tokens;
      next = page.next;
      draw();
    } catch (error) {
      if (mine === latest) found.textContent = error.message;
      else note(error.message);
    }
  }
  load();
  return null;
}
