// Which view is shown, and what is known of the gateway meanwhile.

import { live } from "./api.js";
import { end, reload } from "./actions.js";
import { overview } from "./overview.js";
import { refusals } from "./refusals.js";
import { routes } from "./routes.js";
import { tokens } from "./tokens.js";
import { user, users } from "./users.js";

const VIEWS = { overview, users, user, tokens, routes, refusals };
const TITLES = { overview: "Overview", users: "Users", user: "User", tokens: "Tokens", routes: "Routes and upstreams", refusals: "Refusals" };
const HOUR = 360;

const state = { overview: null, points: [], routes: [], servers: [] };
const main = document.getElementById("main");
let update = null;
let shown = null;

function show() {
  const hash = location.hash;
  // The link that skips to the content is no view.
  if (hash === "#main" && shown) return main.focus();
  const [, name = "overview", argument = ""] = hash.split("/");
  const view = Object.hasOwn(VIEWS, name) ? name : "overview";
  main.replaceChildren();
  update = VIEWS[view](main, state, decodeURIComponent(argument));
  document.title = `${TITLES[view]} - syncgate`;
  for (const link of document.querySelectorAll("nav a")) {
    const is = link.hash === `#/${view === "user" ? "users" : view}`;
    if (is) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown) main.focus({ preventScroll: true });
  shown = view;
}

function say(text, kind) {
  const place = document.getElementById("live");
  // Screen readers are told of a change only.
  if (place.dataset.kind !== kind) place.textContent = text;
  place.dataset.kind = kind;
  place.className = `live ${kind}`;
}

function receive({ overview, history }) {
  const known = state.points.at(-1)?.at ?? "";
  state.overview = overview;
  state.points = [...state.points, ...history.points.filter((point) => point.at > known)].slice(-HOUR);
  state.routes = history.routes;
  state.servers = history.servers;
  say("Live", "on");
  update?.();
}

function theme() {
  const button = document.getElementById("theme");
  const set = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", dark);
  };
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  set(preferred.matches);
  preferred.addEventListener("change", (event) => set(event.matches));
  button.addEventListener("click", () => set(document.documentElement.dataset.theme !== "dark"));
}

theme();
document.getElementById("reload").addEventListener("click", reload);
document.getElementById("end").addEventListener("click", end);
addEventListener("hashchange", show);
show();
live(receive, (text) => say(text, "off"));
