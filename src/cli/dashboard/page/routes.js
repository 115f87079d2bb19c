// Routes and servers: what each did in the last hour, and which servers get requests.

import { get } from "./api.js";
import { server as change } from "./actions.js";
import { chart } from "./chart.js";
import { bytes, count, el, micros, note, rate, replace, share, table } from "./dom.js";

const value = (part, key) => (point) => (point[part] ? point[part][key] / point.seconds : 0);
const time = (part, key, which) => (point) => point[part]?.[key]?.[which] ?? null;

function chartsOf(kind) {
  const times = (title, part, key) => chart(title, [{ name: "p50", value: time(part, key, "p50") }, { name: "p99", value: time(part, key, "p99") }], micros);
  if (kind === "server") {
    return [chart("Responses", [{ name: "all", value: value("upstream", "responses") }, { name: "failures", value: value("upstream", "failures") }], rate), times("Time until the response began", "upstream", "duration_us")];
  }
  return [
    chart("Requests", [{ name: "all", value: value("requests", "requests") }, { name: "refused", value: value("requests", "refused") }, { name: "5xx", value: value("requests", "failed") }], rate),
    times("Gateway time", "requests", "gateway_us"),
    times("Whole time", "requests", "duration_us"),
    chart("Bytes", [{ name: "in", value: value("requests", "bytes_in") }, { name: "out", value: value("requests", "bytes_out") }], (number) => `${bytes(number)}/s`),
  ];
}

export function routes(root, state) {
  const detail = el("div", { class: "stack" });
  const routeList = el("section", {});
  const serverList = el("section", {});
  root.append(detail, routeList, serverList);

  async function show(kind, name) {
    try {
      const { points, interval_s: interval } = await get("history", { [kind]: name });
      const charts = chartsOf(kind);
      charts.forEach((one) => one.show(points, 3600, interval));
      const heading = el("h2", { tabindex: "-1" }, `${name}, the last hour`);
      detail.replaceChildren(el("section", {}, heading, el("div", { class: "charts" }, ...charts.map((one) => one.element))));
      heading.focus();
    } catch (error) {
      note(error.message);
    }
  }
  const opener = (kind, name) => el("button", { type: "button", name: `${kind} ${name}`, onclick: () => show(kind, name) }, name);

  function update() {
    if (!state.overview) return;
    replace(routeList, el("h2", {}, "Routes"), table("What each route did in the last hour", [
      { title: "Route", cell: (row) => opener("route", row.name) },
      { title: "Requests", number: true, cell: (row) => count(row.requests) },
      { title: "Refused", number: true, cell: (row) => share(row.refused, row.requests) },
      { title: "5xx", number: true, cell: (row) => share(row.failed, row.requests) },
      { title: "Bytes in", number: true, cell: (row) => bytes(row.bytes_in) },
      { title: "Bytes out", number: true, cell: (row) => bytes(row.bytes_out) },
    ], state.routes));
    const sums = new Map(state.servers.map((row) => [row.name, row]));
    const servers = state.overview.upstreams.flatMap((upstream) => upstream.servers.map((server) => ({ upstream: upstream.name, waiting: upstream.waiting, ...server })));
    const full = (row) => `${row.upstream}/${row.name}`;
    const isDrained = (row) => row.state === "drained";
    replace(serverList, el("h2", {}, "Servers"), table("Which servers get requests, and why", [
      { title: "Server", cell: (row) => opener("server", full(row)) },
      { title: "State", cell: (row) => el("span", { class: `state ${row.state}` }, row.state) },
      { title: "Why", wrap: true, cell: (row) => row.reason },
      { title: "Address", wrap: true, cell: (row) => row.url },
      { title: "In flight", number: true, cell: (row) => count(row.in_flight) },
      { title: "Time", number: true, cell: (row) => micros(row.latency_us) },
      { title: "Responses", number: true, cell: (row) => count(sums.get(full(row))?.responses ?? 0) },
      { title: "Failures", number: true, cell: (row) => count(sums.get(full(row))?.failures ?? 0) },
      { title: "Action", cell: (row) => el("button", { type: "button", name: `change ${full(row)}`, "aria-label": `${isDrained(row) ? "Enable" : "Drain"} ${full(row)}`, onclick: () => change(row.upstream, row.name, !isDrained(row)) }, isDrained(row) ? "Enable…" : "Drain…") },
    ], servers));
  }
  update();
  return update;
}
