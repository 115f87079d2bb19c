// What the page asks of the command that serves it. Paths are relative: the page's directory is its secret.

let action = null;

/** An answer that is not what was asked for; its message is for people. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", redirect: "error", ...options });
  } catch {
    throw new Refused(0, "The dashboard has ended. Run syncgate dashboard again.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.messages ?? `The answer is ${response.status}.`);
  return answer;
}

/** Reads something of the gateway; parameters without a value are left out. */
export function get(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(given).toString();
  return ask(`api/${path}${query ? `?${query}` : ""}`);
}

/** Changes something; carries the token that only this page has. */
export async function act(method, path, body) {
  action ??= (await ask("session")).action;
  const headers = { "X-Syncgate-Action": action };
  if (body) headers["Content-Type"] = "application/json";
  return ask(`api/${path}`, { method, headers, body: body && JSON.stringify(body) });
}

/** Calls `onState` with what is new, and `onLost` with a sentence while nothing is; only while the page is seen. */
export function live(onState, onLost) {
  let events = null;
  const close = () => {
    events?.close();
    events = null;
  };
  const open = () => {
    if (events) return;
    events = new EventSource("events");
    events.addEventListener("state", (event) => onState(JSON.parse(event.data)));
    events.addEventListener("lost", () => onLost("The gateway does not answer"));
    events.addEventListener("error", () => onLost("The session is over: run syncgate dashboard again"));
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}
