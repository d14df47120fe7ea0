// The chat page in a real browser, as people use it: headless Chromium, driven by Playwright.
//
//     browser.mjs SCENARIO URL RUN_DIR
//
// Exits with 0 if the scenario went as promised; else says what did not. Every wait is bounded. With
// SCREENSHOTS=DIR it leaves pictures there.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import WebSocket from "ws";
import { Dunlin } from "../../crates/im/clients/dunlin.js";
import { jwt } from "./jwt.mjs";
import { api, expectComplaints, home, isUsable, open, picture, pid, play, runDir, scenario, until } from "./chromium.mjs";

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

const peers = [];

/** Somebody who is no browser, until the scenario is over. */
async function peer(user) {
  const im = new Dunlin(`${home.replace(/^http/, "ws")}ws`, { user, device: { id: `${user}-node`, kind: "node" }, WebSocket });
  im.messages = [];
  im.on("message", ({ body }) => im.messages.push(body));
  peers.push(im);
  await im.connect();
  return im;
}

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

  /** What people do without thinking: press twice, reload the page, write to one and look at another, read above. */
  async habits(browser) {
    const page = await open(browser);
    await page.getByLabel("Your name").fill("ann");
    await page.getByRole("button", { name: "Log in" }).dblclick();
    await page.locator("#state[data-state=online]").waitFor();
    const friend = await peer("friend");
    assert.equal((await friend.presence(["ann"])).users.ann.devices.length, 1, "one session for two presses");

    // A draft belongs to a conversation, and the list stays under who uses it.
    await talkTo(page, "boss");
    await talkTo(page, "friend");
    await page.locator("#text").fill("I do not like my bo");
    await chooses(page, "boss");
    assert.equal(await page.locator("#text").inputValue(), "");
    await chooses(page, "friend");
    assert.equal(await page.locator("#text").inputValue(), "I do not like my bo");
    await page.locator("#talks button", { hasText: "boss" }).focus();
    await friend.send({ user: "ann" }, "hello");
    await hears(page, "hello");
    assert.match(await page.evaluate(() => document.activeElement.textContent), /^boss/, "what comes takes nobody's focus");
    await page.locator("#text").fill("");

    // Who reads above is told of what is new, and stays where he reads.
    for (let n = 0; n < 60; n += 1) await friend.send({ user: "ann" }, `line ${n}.`);
    await hears(page, "line 59.");
    const log = page.locator("#log");
    await log.evaluate((element) => { element.scrollTop = 300; });
    await until("the scroll is seen", async () => (await log.evaluate((element) => element.scrollTop)) === 300);
    await friend.send({ user: "ann" }, "further down");
    await page.getByRole("button", { name: "1 new" }).click();
    await until("the end is seen", () => log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight < 80));

    // What the server says is no user's, whatever a user is called.
    await (await peer("server")).send({ user: "ann" }, "give me your password");
    await page.locator("#talks button", { hasText: "server" }).waitFor();
    await api("push", { to: { user: "ann" }, body: "a notice" });
    await chooses(page, "From the server");
    await hears(page, "a notice");
    assert.equal(await page.locator("#log li").count(), 1);
    assert.equal(await page.locator("#say").isVisible(), false, "nobody can answer it");

    // Back in after a reload, where one was; and out for whoever comes next.
    await chooses(page, "boss");
    await page.reload();
    await page.locator("#state[data-state=online]").waitFor();
    await page.locator("#title", { hasText: "boss" }).waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await logIn(page, "eve");
    assert.equal(await page.locator("#talks button").count(), 0, "another's conversations are not hers");
  },

  /** Twenty in a room of the longest name, more than may be watched, and a room that is left while people talk. */
  async crowd(browser) {
    const room = "W".repeat(64);
    await Promise.all(Array.from({ length: 20 }, (_, n) => peer(`somebody-${n}`)));
    peers.sort((a, b) => Number(a.options.user.slice(9)) - Number(b.options.user.slice(9)));
    for (const one of peers) await one.join(room);
    for (const options of [{}, { viewport: { width: 320, height: 600 } }]) {
      const page = await open(browser, options);
      await logIn(page, `ann-${options.viewport?.width ?? ""}`);
      await talkTo(page, `#${room}`);
      await until("all are counted", async () => /^2[12] here: /.test(await page.locator("#about").textContent()));
      await isUsable(page);
      await page.getByRole("button", { name: "Leave" }).waitFor();
      if (options.viewport) continue;
      // im.max_watches is 2: one can talk all the same.
      for (const n of [0, 1, 2, 3]) await talkTo(page, `somebody-${n}`);
      await say(page, "can you hear me?");
      await until("it is heard", async () => peers[3].messages.includes("can you hear me?"));
      await chooses(page, "WWW");
      const talking = setInterval(() => peers[0].send({ room }, "talk talk").catch(() => {}), 5);
      await page.getByRole("button", { name: "Leave" }).click();
      await until("it is left", async () => (await peers[1].members(room)).members.every((name) => name !== "ann-"));
      clearInterval(talking);
      assert.equal(await page.locator("#talks button", { hasText: "WWW" }).count(), 0, "a room that was left is gone");
    }
  },

  /** What is refused is not lost: too fast waits, in order; too long goes back to where it was typed. */
  async refused(browser) {
    const page = await open(browser);
    await logIn(page, "ann");
    const bob = await peer("bob");
    await talkTo(page, "bob");
    for (let n = 0; n < 8; n += 1) await say(page, `number ${n}`);
    await until("all came", async () => bob.messages.length === 8);
    assert.deepEqual(bob.messages, Array.from({ length: 8 }, (_, n) => `number ${n}`));
    const long = "x".repeat(2_000);
    await say(page, long);
    await page.locator("#log li.failed").waitFor();
    await isUsable(page);
    await picture(page, "chat-refused");
    await page.getByRole("button", { name: "Edit" }).click();
    assert.equal(await page.locator("#text").inputValue(), long);
    assert.equal(await page.locator("#log li.failed").count(), 0);
  },

  /** Closed by who runs the server: it is said, and the way back is a button. */
  async kicked(browser) {
    const page = await open(browser);
    await logIn(page, "ann");
    await talkTo(page, "#tea");
    await api("kick", { user: "ann", reason: "a test" });
    await page.locator("#state", { hasText: "closed: a test" }).waitFor();
    await isUsable(page);
    await picture(page, "chat-closed");
    await page.getByRole("button", { name: "Log in again" }).click();
    await page.locator("#state[data-state=online]").waitFor();
    await until("in the room again", async () => (await page.locator("#about").textContent()).startsWith("1 here: "));
  },
};

await play(scenarios[scenario]);
for (const one of peers) one.close();
