// What the scripts of pages have in common: a headless Chromium, pages that must not complain, bounded waits.
//
//     SCRIPT.mjs SCENARIO URL RUN_DIR
//
// Exits with 0 if the scenario went as promised; else says what did not. With SCREENSHOTS=DIR it leaves
// pictures there.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import axe from "axe-core";
import { chromium } from "playwright-core";

export const DEADLINE_MS = 20_000;
const [name, wsUrl, directory] = process.argv.slice(2);
export const scenario = name;
export const runDir = directory;
export const home = wsUrl.replace(/^ws/, "http").replace(/\/ws$/, "/");

/** What pages said to the console or could not load: nothing. */
const complaints = [];
let mayComplain = null;
const complain = (text) => { if (!mayComplain?.test(text)) complaints.push(text); };

/** What a browser may say from here on, as while a server is away. */
export const expectComplaints = (pattern) => { mayComplain = pattern; };

export async function open(browser, options = {}, path = "") {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  page.on("console", (line) => { if (line.type() === "error" || line.type() === "warning") complain(line.text()); });
  page.on("pageerror", (error) => complain(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith(home.slice(0, -1)) && !request.url().startsWith("data:")) complain(`asked for ${request.url()}`); });
  await page.goto(home + path);
  return page;
}

export async function picture(page, name, options = {}) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), ...options });
}

/** Of a server whose key is in a file of the owner's, that; else the one it has made. */
export const apiKey = async () => (await readFile(join(runDir, "../api.key"), "utf8").catch(() => readFile(join(runDir, "api.key"), "utf8"))).trim();

/** A call of the HTTP API; with a body it is a POST. */
export async function api(path, body) {
  const headers = { Authorization: `Bearer ${await apiKey()}`, ...(body && { "Content-Type": "application/json" }) };
  return fetch(`${home}api/${path}`, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
}

export const pid = async () => Number(await readFile(join(runDir, "dunlin.pid"), "utf8"));

/** Waits until a look at the page says yes. */
export async function until(what, look) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await look())) {
    assert(Date.now() < end, `not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** What axe knows of the rules for people who do not see, or not well: each is kept, colours and all. */
const RULES = { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], resultTypes: ["violations"] };

async function isAccessible(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate((rules) => window.axe.run(document, rules), RULES);
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map((node) => `  ${node.html}\n  ${node.failureSummary}`).join("\n")}`);
  assert.equal(told.join("\n"), "", "no rule is broken");
}

/** Every control has a name, nothing is wider than the screen, and no rule for who needs a screen reader is broken. */
export async function isUsable(page) {
  await isAccessible(page);
  for (const control of await page.locator("button:visible, input:visible, textarea:visible, select:visible").all()) {
    const name = await control.evaluate((element) => element.getAttribute("aria-label") || [...(element.labels ?? [])].map((label) => label.textContent).join(" ") || element.textContent.trim());
    assert(name, `a control without a name: ${await control.evaluate((element) => element.outerHTML)}`);
  }
  const width = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert(width[0] <= width[1], `nothing is wider than the screen: ${width}`);
}

/** Plays a scenario in a browser of its own. */
export async function play(scene) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    await scene(browser);
    assert.deepEqual(complaints, [], "the console of the browser is silent");
  } finally {
    await browser.close();
  }
}
