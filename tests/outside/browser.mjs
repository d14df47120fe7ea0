// The chat page in a real browser, as people use it: headless Chromium, driven by Playwright.
//
//     browser.mjs SCENARIO URL RUN_DIR
//
// Exits with 0 if the scenario went as promised; else says what did not. Every wait is bounded. With
// SCREENSHOTS=DIR it leaves pictures there.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { jwt } from "./jwt.mjs";
import { expectComplaints, isUsable, open, picture, pid, play, runDir, scenario, until } from "./chromium.mjs";

async function logIn(page, name) {
  await page.getByLabel("Your name").fill(name);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("#state[data-state=online]").waitFor();
}

async function talkTo(page, peer) {
  await page.locator("#peer").fill(peer);
  await page.keyboard.press("Enter");
  await page.locator("#title", { hasText: peer }).waitFor();
}

async function say(page, text) {
  await page.locator("#text").fill(text);
  await page.keyboard.press("Enter");
}

const hears = (page, text) => page.locator("#log li", { hasText: text }).first().waitFor();
const chooses = (page, name) => page.locator("#talks button", { hasText: name }).click();

const scenarios = {
  /** Two people in two browsers talk, a reload happens in the middle, nothing is lost. */
  async chat(browser) {
    const ann = await open(browser);
    await picture(ann, "chat-login");
    await isUsable(ann);
    await logIn(ann, "ann");
    const bob = await open(browser, { colorScheme: "dark" });
    await isUsable(bob);
    await logIn(bob, "bob");
    await talkTo(ann, "bob");
    await until("Ann sees Bob online", async () => (await ann.locator("#about").textContent()).startsWith("online"));
    await say(ann, "tea?");
    await chooses(bob, "ann");
    await hears(bob, "tea?");
    await ann.locator("#text").pressSequentially("with");
    await bob.locator("#typing", { hasText: "ann is typing" }).waitFor();
    await ann.locator("#text").fill("");
    await say(bob, "with milk");
    await hears(ann, "with milk");
    assert.equal(await ann.locator("#log li.failed").count(), 0);

    // A reload of every process in the middle: said before, during, after, each heard once, in order.
    const server = await pid();
    for (let n = 0; n < 30; n += 1) {
      if (n === 10 || n === 20) process.kill(server, "SIGUSR1");
      await say(n % 2 ? ann : bob, `number ${n}.`);
    }
    for (const page of [ann, bob]) {
      await hears(page, "number 29.");
      await until("everything was heard", async () => (await page.locator("#log li", { hasText: "number" }).count()) >= 30);
      const heard = await page.locator("#log li", { hasText: "number" }).allTextContents();
      const numbers = heard.map((text) => Number(/number (\d+)\./.exec(text)[1]));
      assert.equal(new Set(numbers).size, 30, "each once");
      assert.equal(numbers.length, 30, "none twice");
      for (const parity of [0, 1]) {
        const of = numbers.filter((number) => number % 2 === parity);
        assert.deepEqual(of, [...of].sort((a, b) => a - b), "in order");
      }
      assert.equal(await page.locator("#state").getAttribute("data-state"), "online", "nobody noticed");
    }
    await picture(ann, "chat-light");
    await picture(bob, "chat-dark");
    for (const page of [ann, bob]) await isUsable(page);

    // A room, and a third who sees who is there.
    await talkTo(ann, "#tea");
    await talkTo(bob, "#tea");
    await until("both are seen in the room", async () => /2 here: /.test(await ann.locator("#about").textContent()));
    await say(bob, "hello, room");
    await hears(ann, "hello, room");
    await picture(ann, "chat-room");
    await isUsable(ann);

    // Bob goes: Ann is told, after the debounce.
    await chooses(ann, "bob");
    await bob.getByRole("button", { name: "Log out" }).click();
    await until("Ann sees Bob go", async () => (await ann.locator("#about").textContent()) === "offline");
  },

  /** A small screen, the keyboard alone, and what a screen reader is told. */
  async phone(browser) {
    const page = await open(browser, { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
    await page.keyboard.type("cleo");
    await page.keyboard.press("Enter");
    await page.locator("#state[data-state=online]").waitFor();
    await page.keyboard.type("cleo");
    await page.keyboard.press("Enter");
    await page.locator("#title", { hasText: "cleo" }).waitFor();
    await page.keyboard.type("to myself");
    await page.keyboard.press("Enter");
    await hears(page, "to myself");
    await picture(page, "chat-phone");
    await isUsable(page);
    await page.getByRole("button", { name: "Back to the conversations" }).click();
    await page.locator("#talks button", { hasText: "cleo" }).waitFor();
    await isUsable(page);
    assert.equal(await page.locator("#log").getAttribute("aria-live"), "polite");
  },

  /** The server goes and comes: what was typed meanwhile is sent, once, to who is in the same conversation. */
  async away(browser) {
    const ann = await open(browser);
    await logIn(ann, "ann");
    const bob = await open(browser);
    await logIn(bob, "bob");
    await talkTo(ann, "#tea");
    await talkTo(bob, "#tea");
    await say(ann, "before");
    await hears(bob, "before");
    expectComplaints(/WebSocket connection to .* failed|ERR_CONNECTION_REFUSED/);
    await writeFile(join(runDir, "../online"), "");
    await ann.locator("#state", { hasText: "coming back" }).waitFor();
    await say(ann, "typed while nobody listened");
    await ann.locator("#log li.waiting").waitFor();
    await picture(ann, "chat-away");
    await isUsable(ann);
    await writeFile(join(runDir, "../typed"), "");
    for (const page of [ann, bob]) await page.locator("#state[data-state=online]").waitFor();
    // Both are back in the room at some time: whoever came first did not hear what was sent before.
    await ann.locator("#log li.waiting").waitFor({ state: "detached" });
    assert.equal(await ann.locator("#log li.failed").count(), 0);
    await until("both are seen in the room", async () => /^2 here/.test(await ann.locator("#about").textContent()));
    await say(bob, "after");
    await hears(ann, "after");
    assert.equal(await ann.locator("#log li", { hasText: "typed while" }).count(), 1);
  },

  /** Logging in with a token: a bad one is refused in words, a good one tells the name and the rooms. */
  async token(browser) {
    const page = await open(browser);
    assert.equal(await page.getByLabel("Your name").isVisible(), false, "a token in place of a name");
    await page.getByLabel("Token").fill("none at all");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.locator("#login-error:not(:empty)").waitFor();
    await picture(page, "chat-token");
    await page.getByLabel("Token").fill(await jwt(runDir, { sub: "dora", exp: Math.floor(Date.now() / 1000) + 600, rooms: ["tea", "work"] }));
    await page.getByRole("button", { name: "Log in" }).click();
    await page.locator("#state[data-state=online]").waitFor();
    assert.equal(await page.locator("#me-name").textContent(), "dora");
    await page.locator("#talks button").nth(1).waitFor();
    assert.deepEqual(await page.locator("#talks .name").allTextContents(), ["tea", "work"]);
    // Any other room is refused, and it is said.
    await page.locator("#peer").fill("#other");
    await page.keyboard.press("Enter");
    await page.locator("#start-error:not(:empty)").waitFor();
  },

  /** A name that is none, and HTML in names and messages that stays text. */
  async hostile(browser) {
    const page = await open(browser);
    await logIn(page, "<img src=x onerror=alert(1)>");
    await talkTo(page, "#<b>room</b>");
    await say(page, "<script>alert(1)</script><img src=x onerror=document.title='owned'>");
    await hears(page, "<script>alert(1)</script>");
    assert.equal(await page.locator("#log img, #log script, #log b").count(), 0);
    assert(!(await page.title()).includes("owned"));
  },
};

await play(scenarios[scenario]);
