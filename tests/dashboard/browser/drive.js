// Drives the dashboard as a person would. Usage: node drive.js LINK. What has to happen to the gateway meanwhile is
// asked for on standard output, a JSON text a line, and answered on standard input.

const assert = require("node:assert/strict");
const { createInterface } = require("node:readline");
const puppeteer = require("puppeteer-core");
const axe = require("axe-core");

const [link] = process.argv.slice(2);
const origin = new URL(link).origin;
const DEADLINE = 30000;
const screenshots = process.env.SYNCGATE_SCREENSHOTS;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has something happen outside of the page; returns what came of it. */
async function outside(what) {
  console.log(JSON.stringify(what));
  const { value } = await answers.next();
  return JSON.parse(value);
}

async function main() {
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // A container has no user namespaces for its sandbox, and a small /dev/shm.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-prefers-reduced-motion"],
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(DEADLINE);
    await drive(page);
  } finally {
    await browser.close();
  }
}

async function drive(page) {
  const faults = [];
  const foreign = [];
  let over = false;
  page.on("console", (message) => over || !["error", "warn"].includes(message.type()) || faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(error.stack));
  page.on("request", (request) => new URL(request.url()).origin === origin || foreign.push(request.url()));

  const text = (selector) => page.$eval(selector, (it) => it.textContent);
  const until = (selector, wanted) =>
    page.waitForFunction((selector, wanted) => [...document.querySelectorAll(selector)].some((it) => it.textContent.includes(wanted)), {}, selector, wanted);
  const gone = (selector, wanted) =>
    page.waitForFunction((selector, wanted) => ![...document.querySelectorAll(selector)].some((it) => it.textContent.includes(wanted)), {}, selector, wanted);
  const go = async (name, heading) => {
    await page.evaluate((name) => (location.hash = `#/${name}`), name);
    await until("main h2", heading);
  };
  const button = async (label) => {
    const found = await page.waitForSelector(`::-p-aria([name="${label}"][role="button"])`);
    await found.click();
  };
  const picture = (name) => screenshots && page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true });

  console.error("the link opens the page, once");
  await page.setViewport({ width: 1280, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  await page.goto(link);
  assert.equal(new URL(page.url()).search, "");
  assert.equal(await page.evaluate(() => document.cookie), "", "scripts do not get the cookie");
  await until("#live", "Live");
  await until("main h2", "Nothing needs attention");

  console.error("it lives: what happens is shown without being asked for");
  await outside({ requests: 5 });
  await page.waitForFunction(() => document.querySelector("figcaption span").textContent !== "no data yet");
  await until("figure:first-of-type .legend b", "/s");
  await outside({ requests: 7 });
  await page.waitForFunction(() => document.querySelector(".plot").getAttribute("aria-valuemax") === "1");

  console.error("values under the pointer, and by keyboard");
  const plot = await page.$(".plot");
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + 1, box.y + 20);
  await page.waitForSelector('.cursor[visibility="visible"]');
  assert.equal(await plot.evaluate((it) => it.getAttribute("aria-valuenow")), "0");
  await page.mouse.move(0, 0);
  await plot.focus();
  await page.keyboard.press("ArrowLeft");
  assert.equal(await plot.evaluate((it) => it.getAttribute("aria-valuenow")), "0");
  assert.match(await plot.evaluate((it) => it.getAttribute("aria-valuetext")), /all .*\/s, refused/);
  await picture("overview");

  console.error("users, by keyboard alone");
  await page.evaluate(() => document.activeElement.blur());
  const reach = async (wanted) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press("Tab");
      const reached = await page.evaluate(() => document.activeElement.textContent || document.activeElement.name);
      if (reached === wanted) return;
    }
    assert.fail(`${wanted} cannot be reached with Tab`);
  };
  await reach("Users");
  await page.keyboard.press("Enter");
  await until("main h2", "Users");
  await until("tbody td", "till-01");
  await reach("search");
  await page.keyboard.type("sHoP");
  await until("main p[role=status]", "1 of 1");
  await gone("tbody td", "till-01");
  for (let presses = 0; presses < 4; presses += 1) await page.keyboard.press("Backspace");
  await until("tbody td", "till-01");
  await reach("Requests");
  await page.keyboard.press("Enter");
  await page.waitForSelector('th[aria-sort="descending"] ::-p-text(Requests)');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Requests", "the focus stays");
  assert.match(await text("tbody tr"), /till-01/);
  await picture("users");
  await reach("till-01");
  await page.keyboard.press("Enter");
  await until("main h2", "Rights");

  console.error("a token is revoked, after a question, and its next request refused");
  assert.equal((await outside({ send: true })).status, 200);
  await page.waitForSelector("button[name^=revoke-]");
  await page.focus("button[name^=revoke-]");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog:not([open])");
  assert.equal((await outside({ send: true })).status, 200, "a no changes nothing");
  await page.focus("button[name^=revoke-]");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await picture("dialog");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await until("#note", "1 token was revoked.");
  await page.waitForFunction(() => !document.querySelector("button[name^=revoke-]"));
  assert.equal((await outside({ send: true })).status, 401);
  await picture("user");

  console.error("tokens are searched by address and sorted");
  await outside({ login: true });
  await go("tokens", "Tokens");
  await until("tbody td", "127.0.0.1");
  await page.type("input[name=search]", "192.0.2.1");
  await until("main p[role=status]", "0 found");
  await page.$eval("input[name=search]", (it) => (it.value = ""));
  await page.type("input[name=search]", "127.0.0.1");
  await until("tbody td", "till-01");
  await button("User");
  await page.waitForSelector('th[aria-sort="ascending"] ::-p-text(User)');
  await picture("tokens");

  console.error("the request id that a client was told leads to the reason");
  const { id } = await outside({ refused: true });
  await go("refusals", "Refusals");
  await page.type("input[name=id]", id);
  await page.waitForFunction((id) => document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody").textContent.includes(id), {}, id);
  await until("tbody td", "token_missing");
  await picture("refusals");

  console.error("a server is drained and enabled");
  await go("routes", "Servers");
  const drain = await page.waitForSelector("button[name^='change ']");
  await drain.click();
  await page.waitForSelector("dialog[open]");
  await page.click("#dialog-yes");
  await until(".state", "drained");
  assert.equal((await outside({ send: true })).status, 503);
  await (await page.$("button[name^='change ']")).click();
  await page.waitForSelector("dialog[open]");
  await page.click("#dialog-yes");
  await gone(".state", "drained");
  assert.equal((await outside({ send: true })).status, 200);
  await (await page.waitForSelector("button[name^='route ']")).click();
  await until("main h2", "the last hour");
  await picture("routes");

  console.error("a reload with a bad file shows the line and the caret");
  await outside({ configuration: "bad" });
  await button("Reload…");
  await until("dialog pre.report", "^");
  assert.match(await text("dialog pre.report"), /config\.toml:\d+/);
  await picture("reload");
  await page.click("#dialog-yes");
  await until("dialog h2", "what was in force stays");
  await page.click("#dialog-no");
  await go("overview", "What needs attention");
  await until(".attention pre", "^");
  await outside({ configuration: "good" });
  await button("Reload…");
  await page.waitForSelector("dialog[open]");
  await page.click("#dialog-yes");
  await until("dialog h2", "Reloaded");
  await page.click("#dialog-no");
  await until("main h2", "Nothing needs attention");

  console.error("every view: nothing to find for the checker, in both themes and at the width of a phone");
  const views = [["overview", "At present"], ["users", "Users"], ["user/till-01", "Recent refusals"], ["tokens", "Tokens"], ["refusals", "Refusals"], ["routes", "Servers"]];
  for (const [width, theme] of [[1280, "light"], [1280, "dark"], [360, "light"]]) {
    await page.setViewport({ width, height: 800 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
    await page.waitForSelector(`html[data-theme="${theme}"]`);
    for (const [name, heading] of views) {
      await go(name, heading);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${name} is ${wide} wide on a screen of ${width}`);
      const found = await check(page);
      assert.deepEqual(found, [], `${name}, ${theme}, ${width}`);
      await picture(`${name.split("/")[0]}-${theme}-${width}`);
    }
  }

  console.error("a session that ends says so");
  assert.deepEqual(faults, []);
  over = true;
  await button("End session…");
  await page.waitForSelector("dialog[open]");
  await page.click("#dialog-yes");
  await until("#live", "The session is over");
  assert.deepEqual(foreign, [], "requests to another origin");
}

/** What an accessibility checker finds, but for what it calls minor or moderate. */
async function check(page) {
  const there = await page.evaluate(() => typeof window.axe === "object");
  if (!there) await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  const grave = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  return grave.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`)}`);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error.stack ?? error);
    process.exit(1);
  },
);
