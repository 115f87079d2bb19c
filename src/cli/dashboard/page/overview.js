// How the gateway is, what needs attention, and the last hour or day in charts.

import { chart } from "./chart.js";
import { get } from "./api.js";
import { bytes, count, el, facts, lasting, micros, moment, note, rate, replace } from "./dom.js";

const per = (key) => (point) => point.requests[key] / point.seconds;
const quantile = (part, key, which) => (point) => point[part][key]?.[which] ?? null;

const CHARTS = [
  ["Requests", [{ name: "all", value: per("requests") }, { name: "refused", value: per("refused") }, { name: "5xx", value: per("failed") }], rate],
  ["Gateway time", [{ name: "p50", value: quantile("requests", "gateway_us", "p50") }, { name: "p99", value: quantile("requests", "gateway_us", "p99") }], micros],
  ["Upstream time", [{ name: "p50", value: quantile("upstream", "duration_us", "p50") }, { name: "p99", value: quantile("upstream", "duration_us", "p99") }], micros],
  ["Bytes", [{ name: "in", value: per("bytes_in") }, { name: "out", value: per("bytes_out") }], (number) => `${bytes(number)}/s`],
  ["Connections and tokens", [{ name: "connections", value: (point) => point.connections }, { name: "tokens", value: (point) => point.tokens }], count],
  ["Logins", [{ name: "all", value: (point) => point.logins / point.seconds }, { name: "failed", value: (point) => point.failed_logins / point.seconds }], rate],
];

/** The reasons that most of the refusals have, for as many lines as can be told apart. */
function reasonsOf(points) {
  const sums = new Map();
  for (const point of points) for (const [reason, many] of Object.entries(point.refusals)) sums.set(reason, (sums.get(reason) ?? 0) + many);
  return [...sums].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([reason]) => reason).sort();
}

function attention(overview) {
  const wrong = overview.checks.filter((check) => check.state !== "ok");
  const worst = wrong.some((check) => check.state === "failed") ? "failed" : wrong.length ? "warning" : "";
  const items = wrong.map((check) =>
    el("li", {},
      el("span", { class: `state ${check.state}` }, `${check.state === "failed" ? "Failed" : "Warning"}: ${check.name}`),
      ...check.reasons.map((reason) => el("pre", {}, reason)),
      check.remedy ? el("p", { class: "muted" }, `What to do: ${check.remedy}.`) : null));
  return el("section", { class: `attention ${worst}`, "aria-label": "What needs attention" },
    el("h2", {}, wrong.length ? "What needs attention" : "Nothing needs attention"),
    wrong.length ? el("ul", {}, ...items) : el("p", { class: "muted" }, "Store, certificates, upstreams and files are well."));
}

function summary({ overview, points }) {
  const last = points.at(-1);
  const ends = overview.certificates.map((it) => it.ends).filter(Boolean).sort()[0];
  const available = overview.upstreams.map((it) => `${it.servers.filter((server) => ["up", "recovering"].includes(server.state)).length} of ${it.servers.length} (${it.name})`);
  const age = overview.started ? (Date.parse(overview.now) - Date.parse(overview.started)) / 1000 : null;
  const { store, reload, audit } = overview;
  return facts([
    ["Requests", last ? rate(last.requests.requests / last.seconds) : "-"],
    ["Connections", count(overview.connections)],
    ["Tokens", count(store.tokens)],
    ["Users", count(overview.accounts)],
    ["Servers up", available.join(", ")],
    ["Token store", store.server ? `${store.kind}, ${store.server.state}` : store.kind],
    ["Certificate ends", moment(ends)],
    ["Last reload", reload ? el("span", {}, reload.refused.length ? "partly refused, " : "", moment(reload.at)) : "none"],
    ["Audit trail", audit.path == null ? "off" : audit.failing ? "cannot be written" : el("span", { title: audit.head ?? "" }, audit.head ? `line ${audit.head.split(":")[0]}` : "no line yet")],
    ["Running for", age == null ? "-" : lasting(age)],
    ["Version", overview.version],
  ]);
}

export function overview(root, state) {
  const top = el("div", {});
  const numbers = el("section", { "aria-label": "At present" });
  const charts = CHARTS.map(([title, series, format]) => chart(title, series, format));
  let refusals = null;
  let reasons = [];
  const grid = el("div", { class: "charts" }, ...charts.map((one) => one.element));
  let span = "hour";
  let day = null;
  const choice = el("select", { name: "span", onchange: (event) => choose(event.target.value) },
    el("option", { value: "hour" }, "the last hour, by 10 seconds"), el("option", { value: "day" }, "the last day, by 5 minutes"));
  root.append(top, numbers, el("section", { "aria-label": "Charts" }, el("div", { class: "search" }, el("label", {}, "Charts of", choice)), grid));

  async function choose(value) {
    span = value;
    try {
      day = value === "day" ? (await get("history", { span: "day" })).points : null;
    } catch (error) {
      note(error.message);
    }
    draw();
  }

  function draw() {
    const points = day ?? state.points;
    const [length, interval] = span === "day" ? [86400, 300] : [3600, 10];
    for (const one of charts) one.show(points, length, interval);
    const now = reasonsOf(points);
    if (refusals == null || now.join() !== reasons.join()) {
      reasons = now;
      const series = reasons.map((reason) => ({ name: reason, value: (point) => (point.refusals[reason] ?? 0) / point.seconds }));
      const made = chart("Refusals by reason", series, rate);
      if (refusals) refusals.element.replaceWith(made.element);
      else grid.children[0].after(made.element);
      refusals = made;
    }
    refusals.show(points, length, interval);
  }

  function update() {
    if (!state.overview) return;
    replace(top, attention(state.overview));
    replace(numbers, el("h2", {}, "At present"), summary(state));
    draw();
  }
  update();
  return update;
}
