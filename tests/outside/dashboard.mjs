// The dashboard in a real browser, as who runs a server uses it: headless Chromium, driven by Playwright.
//
//     dashboard.mjs SCENARIO URL RUN_DIR
//
// See chromium.mjs. The scenario `pictures` is played by no test: it makes those of docs/pictures, against a
// server with two or more workers and some load.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { api, apiKey, expectComplaints, isUsable, open, picture, pid, play, runDir, scenario, until } from "./chromium.mjs";

const status = async () => (await api("status")).json();
const text = (page, selector) => page.locator(selector).first().textContent();
const events = (page) => page.locator("#events li").allTextContents();

async function come(browser, options = {}) {
  const page = await open(browser, options, "dashboard");
  await page.getByLabel("Key of the HTTP API").fill(await apiKey());
  await page.keyboard.press("Enter");
  await page.locator("#link[data-link=live]").waitFor();
  return page;
}

/** What the table of workers says of each, by the heads of its columns. */
async function table(page) {
  const heads = await page.locator("#workers th").allTextContents();
  const rows = await page.locator("#workers tbody tr").all();
  return Promise.all(rows.map(async (row) => Object.fromEntries((await row.locator("td").allTextContents()).map((cell, at) => [heads[at], cell]))));
}

const scenarios = {
  /** The key is asked for, a wrong one is refused in words, figures are those of the status, what happens is marked. */
  async live(browser) {
    const page = await open(browser, {}, "dashboard");
    assert.equal(await page.locator("#board").isVisible(), false, "nothing is shown without the key");
    await picture(page, "dashboard-key");
    await isUsable(page);
    expectComplaints(/status of 401/);
    for (const wrong of ["not-the-key", "schlüssel"]) {
      await page.getByLabel("Key of the HTTP API").fill(wrong);
      await page.getByRole("button", { name: "Open" }).click();
      await page.locator("#door-error:not(:empty)").waitFor();
      assert.equal(await page.locator("#board").isVisible(), false);
    }
    expectComplaints(null);
    await page.getByLabel("Key of the HTTP API").fill(await apiKey());
    await page.keyboard.press("Enter");
    await page.locator("#link[data-link=live]").waitFor();

    // Five are logged in and silent.
    assert.equal(await text(page, "#now-logged-in"), "5");
    const now = await status();
    assert.equal(now.sessions.logged_in, 5);
    const shown = await table(page);
    assert.deepEqual(shown.map((row) => [row.Slot, row.State, row.Pid, row.Life, row.Deaths]), now.workers.map((worker) => [String(worker.slot), worker.state, String(worker.pid), "1", "0"]));
    const sessions = now.workers.reduce((all, worker) => all + worker.sessions, 0);
    assert.equal(sessions, 5);
    assert((await text(page, "#now-connections")) >= sessions);
    assert.equal(await page.locator("#charts figure").count(), 7);
    await until("lines are drawn", async () => (await page.locator("#chart-messages path.trace").first().getAttribute("d")).includes("L"));

    // What somebody marks, to copy it, stays marked while figures change.
    const marked = await page.evaluate(() => { getSelection().selectAllChildren(document.querySelector("#workers tbody td:nth-child(3)")); return String(getSelection()); });
    assert.equal(marked, String(now.workers[0].pid));
    const seen = await text(page, "#facts");
    await until("it has looked again", async () => (await text(page, "#facts")) !== seen);
    assert.equal(await page.evaluate(() => String(getSelection())), marked);

    // A reload, and a death: each in the list, and in every chart.
    process.kill(await pid(), "SIGUSR1");
    await until("the reload is told", async () => (await events(page)).some((event) => /Reload applied in .*, 5 connections handed on/.test(event)));
    assert.equal(await page.locator("line.mark.reload").count(), 7);
    await until("each worker's second life", async () => (await table(page)).every((row) => row.Life === "2"));
    process.kill((await status()).workers[1].pid, "SIGKILL");
    await until("the death is told", async () => (await events(page)).some((event) => /Worker 1 died: killed by SIGKILL/.test(event)));
    assert.equal(await page.locator("line.mark.death").count(), 7);
    await isUsable(page);
    await until("the worker's third life", async () => (await table(page))[1].Life === "3");
    assert.equal((await table(page))[1].Deaths, "1");
    assert.equal((await events(page)).length, 2, "and nothing else");
    assert.equal(await text(page, "#now-logged-in"), "5", "nobody was lost");

    // The key is in this tab and nowhere else, until it is forgotten.
    const places = () => page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]);
    assert.deepEqual(await places(), [1, 0, ""]);
    await page.reload();
    await page.locator("#link[data-link=live]").waitFor();
    await page.getByRole("button", { name: "Forget the key" }).click();
    await page.getByLabel("Key of the HTTP API").waitFor();
    assert.deepEqual(await places(), [0, 0, ""]);
    assert.equal(await page.locator("#board").isVisible(), false);
  },

  /** The server goes and comes: it is said, what was shown stays, and it goes on by itself. */
  async away(browser) {
    const page = await come(browser);
    expectComplaints(/ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|status of 503/);
    await writeFile(join(runDir, "../shown"), "");
    await page.locator("#link[data-link=away]").waitFor();
    assert.deepEqual([await text(page, "#state"), await page.title()], ["away", "away · dunlin dashboard"]);
    assert.match(await text(page, "#link"), /^The server (does not answer|answers 503): trying again$/);
    assert.equal(await page.locator("#board").isVisible(), true, "what was last is still there");
    await writeFile(join(runDir, "../told"), "");
    await page.locator("#link[data-link=live]").waitFor();
    await until("it is told", async () => (await events(page)).some((event) => /The server was started anew/.test(event)));
    assert((await text(page, "#facts")).includes(`pid ${await pid()}`));
  },

  /** A small screen, and the keyboard alone. */
  async phone(browser) {
    const page = await come(browser, { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true, colorScheme: "dark" });
    await until("some moments", async () => (await page.locator("#chart-messages path.trace").first().getAttribute("d")).includes("L"));
    await isUsable(page);
    const chart = page.locator("#chart-connections");
    await chart.focus();
    await page.keyboard.press("ArrowLeft");
    assert.equal(await page.locator("#tip").isVisible(), true);
    assert.match(await chart.locator("[aria-live]").textContent(), /^\d\d:\d\d:\d\d: worker 0 \d+, worker 1 \d+$/);
    assert.equal(await page.locator("line.cursor").count(), 7, "one moment in all charts");
    await page.keyboard.press("Escape");
    assert.equal(await page.locator("#tip").isVisible(), false);
    assert.match(await chart.locator("svg").getAttribute("aria-label"), /^Connections, open, stacked: worker 0 \d+, worker 1 \d+\./);
    await page.getByLabel("Shown").selectOption("900000");
    await page.getByLabel("Shown").selectOption("60000");
  },

  async pictures(browser) {
    const looks = { light: { colorScheme: "light" }, dark: { colorScheme: "dark" }, phone: { viewport: { width: 390, height: 1_450 }, hasTouch: true, isMobile: true } };
    const pages = {};
    for (const [name, options] of Object.entries(looks)) {
      pages[name] = await come(browser, { viewport: { width: 1_280, height: 1_130 }, ...options });
      await pages[name].getByLabel("Shown").selectOption("60000");
    }
    const passes = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
    await passes(28);
    process.kill(await pid(), "SIGUSR1");
    await passes(16);
    process.kill((await status()).workers[1].pid, "SIGKILL");
    await passes(14);
    for (const [name, page] of Object.entries(pages)) await picture(page, `dashboard-${name}`);
  },
};

await play(scenarios[scenario]);
