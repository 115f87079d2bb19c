// What changes something: each asks first, says what came of it, and then lets the view read again.

import { act } from "./api.js";
import { el, note } from "./dom.js";

const dialog = () => document.getElementById("dialog");

/** Asks; resolves to whether the answer is yes. */
export function ask(title, content, yes) {
  const box = dialog();
  document.getElementById("dialog-title").textContent = title;
  document.getElementById("dialog-text").replaceChildren(...[content].flat());
  const button = document.getElementById("dialog-yes");
  button.hidden = yes == null;
  button.textContent = yes ?? "";
  document.getElementById("dialog-no").textContent = yes == null ? "Close" : "Cancel";
  box.returnValue = "no";
  box.showModal();
  document.getElementById("dialog-no").focus();
  return new Promise((resolve) => box.addEventListener("close", () => resolve(box.returnValue === "yes"), { once: true }));
}

async function attempt(work, said) {
  try {
    const answer = await work();
    note(said(answer));
    return true;
  } catch (error) {
    await ask("That did not work", el("pre", {}, error.message), null);
    return false;
  }
}

const text = (sentence) => el("p", {}, sentence);
const many = (number) => (number === 1 ? "1 token was revoked." : `${number} tokens were revoked.`);

export async function revokeToken(token) {
  const whose = token.user ?? "a user without an account here";
  const why = `The token ${token.id} of ${whose} and those it was renewed from and to are refused from the next request on.`;
  if (!(await ask("Revoke this token?", text(why), "Revoke"))) return false;
  return attempt(() => act("DELETE", `tokens/${encodeURIComponent(token.id)}`), (answer) => many(answer.revoked));
}

export async function revokeUser(user) {
  const why = `All tokens of ${user} are refused from the next request on. Whoever has the password can log in again.`;
  if (!(await ask(`Revoke all tokens of ${user}?`, text(why), "Revoke all"))) return false;
  return attempt(() => act("POST", "tokens/revoke", { user }), (answer) => many(answer.revoked));
}

export async function enforce(user) {
  const why = `Requests that the rights of ${user} do not allow are refused, as soon as the gateway has read the account file again.`;
  if (!(await ask(`Enforce the rights of ${user}?`, text(why), "Enforce"))) return false;
  return attempt(
    () => act("POST", "users/enforce", { user }),
    (answer) => (answer.changed ? "The account file was changed." : "They are enforced already."),
  );
}

export async function server(upstream, name, drain) {
  const title = drain ? `Drain ${upstream}/${name}?` : `Enable ${upstream}/${name}?`;
  const why = drain ? "It gets no new requests, until it is enabled or the gateway is restarted." : "It gets requests again.";
  if (!(await ask(title, text(why), drain ? "Drain" : "Enable"))) return false;
  return attempt(() => act("POST", drain ? "upstreams/drain" : "upstreams/enable", { upstream, server: name }), () =>
    drain ? `${name} is drained.` : `${name} is enabled.`,
  );
}

function outcome(answer) {
  const parts = [];
  if (answer.changes.length) parts.push(text("Settings that differ:"), el("pre", {}, answer.changes.join("\n")));
  if (answer.warnings) parts.push(text("Probably not as intended:"), el("pre", {}, answer.warnings));
  if (answer.reloaded.length) parts.push(el("ul", {}, ...answer.reloaded.map((what) => el("li", {}, what))));
  for (const refused of answer.refused) parts.push(text(refused.what), el("pre", { class: "report" }, refused.reason));
  return parts;
}

/** Shows what a reload would do, then does it, then shows what it did. */
export async function reload() {
  let preview;
  try {
    preview = await act("POST", "reload", { dry_run: true });
  } catch (error) {
    return ask("That did not work", el("pre", {}, error.message), null);
  }
  const found = outcome(preview);
  const known = found.length ? found : [text("No setting differs from the one in force. Accounts, certificates and secrets are read again too.")];
  if (!(await ask("Reload the configuration and its files?", known, "Reload"))) return false;
  try {
    const answer = await act("POST", "reload", { dry_run: false });
    const done = outcome(answer);
    const title = answer.refused.length ? "Not everything could be used; what was in force stays" : "Reloaded";
    await ask(title, done.length ? done : [text("Nothing has changed.")], null);
  } catch (error) {
    await ask("That did not work", el("pre", {}, error.message), null);
  }
  return true;
}

export async function end() {
  if (!(await ask("End this session?", text("The page stops, and the command that serves it ends."), "End"))) return;
  await attempt(() => act("POST", "end"), () => "The session is over.");
}
