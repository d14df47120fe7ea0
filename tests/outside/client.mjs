// Our own client, crates/im/clients/dunlin.js, against a running server.
//
//     client.mjs SCENARIO URL RUN_DIR
//
// Exits with 0 if the scenario went as promised; else says what did not. Every wait is bounded.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import WebSocket from "ws";
import { CallError, Dunlin, NoAnswer, returnsAfter } from "../../crates/im/clients/dunlin.js";

const DEADLINE_MS = 20_000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until it is so. */
async function until(what, so) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await so())) {
    assert(Date.now() < end, `waited in vain for: ${what}`);
    await sleep(10);
  }
}

/** A client that notes what it hears. */
function client(url, user, options = {}) {
  const im = new Dunlin(url, { user, device: { id: `${user}-node`, kind: "node" }, WebSocket, ...options });
  im.states = [];
  im.messages = [];
  im.on("state", (state) => im.states.push(state));
  im.on("message", (message) => im.messages.push(message));
  return im;
}

async function pair(url) {
  const [ann, bob] = [client(url, "ann"), client(url, "bob")];
  await Promise.all([ann.connect(), bob.connect()]);
  return [ann, bob];
}

async function status(runDir) {
  return JSON.parse(await readFile(join(runDir, "status.pipe"), "utf8"));
}

const master = async (runDir) => Number(await readFile(join(runDir, "dunlin.pid"), "utf8"));

/** Ann sends numbers to Bob until she is told to stop, and has all answers. */
async function stream(ann, running) {
  const answers = [];
  for (let number = 0; running(number); number++) {
    answers.push(ann.send({ user: "bob" }, { number }));
    await sleep(2);
  }
  return Promise.all(answers);
}

/** Each message that was taken by a session has come once, in order. */
function arrivedOnce(bob, answers) {
  const got = bob.messages.map(({ body }) => body.number);
  assert.equal(new Set(got).size, got.length, `twice: ${got.filter((n, at) => got.indexOf(n) !== at)}`);
  const ids = new Map(bob.messages.map(({ id, body }) => [body.number, id]));
  for (const [number, { id }] of answers.entries()) {
    if (ids.has(number)) assert.equal(ids.get(number), id);
  }
  return got;
}

const scenarios = {
  async calls(url) {
    const [ann, bob] = await pair(url);
    const heard = [];
    bob.on("signal", (signal) => heard.push(signal));
    const sent = await ann.send({ user: "bob" }, { text: "grüße 🎉" });
    assert.equal(sent.sessions, 1);
    await ann.signal({ user: "bob" }, "typing");
    await until("message and signal", () => bob.messages.length === 1 && heard.length === 1);
    assert.deepEqual(bob.messages[0].body, { text: "grüße 🎉" });
    assert.equal(bob.messages[0].id, sent.id);
    assert.deepEqual(heard[0].from, { user: "ann", device: "ann-node" });
    const { users } = await ann.presence(["bob", "zoe"]);
    assert.deepEqual([users.bob.online, users.zoe.online], [true, false]);
    assert.equal((await ann.sessions()).sessions[0].device, "ann-node");
    const wrong = await ann.send({ user: 7 }, 1).catch((error) => error);
    assert(wrong instanceof CallError && wrong.code === -32602 && wrong.reason === "invalid_params", wrong);
    const long = await ann.send({ user: "bob" }, "x".repeat(2_000_000)).catch((error) => error);
    assert(long instanceof RangeError, long);
    assert.equal((await ann.call("ping")).time > 0, true);
    // Another device of the same user, which is closed by the first one, and does not come back.
    const tablet = client(url, "ann", { device: { id: "tablet" } });
    await tablet.connect();
    assert.equal((await ann.kick("tablet")).kicked, 1);
    await until("the tablet is closed", () => tablet.state === "closed");
    assert.equal(tablet.error.code, 4510);
    ann.close();
    assert.equal(ann.state, "closed");
    const late = await ann.send({ user: "bob" }, 1).catch((error) => error);
    assert(late instanceof NoAnswer, late);
    const again = await ann.connect();
    assert.equal(again.user, "ann");
    bob.close();
  },

  async reload(url, runDir) {
    const [ann, bob] = await pair(url);
    const reloads = (await status(runDir)).reloads.done;
    process.kill(await master(runDir), "SIGUSR1");
    let done = false;
    until("a reload", async () => (await status(runDir)).reloads.done > reloads).finally(() => (done = true));
    const answers = await stream(ann, (number) => !done || number < 100);
    await until("all messages", () => bob.messages.length >= answers.length);
    assert.deepEqual(arrivedOnce(bob, answers), answers.map((_, number) => number));
    assert.deepEqual([ann.states, bob.states], [["connecting", "online"], ["connecting", "online"]]);
  },

  async kill(url, runDir) {
    const [ann, bob] = await pair(url);
    const returns = () => [ann, bob].map((im) => im.states.filter((state) => state === "waiting").length);
    let [killed, done] = [0, false];
    const killing = (async () => {
      while (killed < 12) {
        const { workers } = await status(runDir);
        const victim = workers[killed % workers.length];
        if (victim.state === "running") {
          process.kill(victim.pid, "SIGKILL");
          killed += 1;
        }
        await sleep(60);
      }
    })().finally(() => (done = true));
    const answers = await stream(ann, () => !done);
    await killing;
    await until("both are back", () => ann.state === "online" && bob.state === "online");
    const last = await ann.send({ user: "bob" }, { number: answers.length });
    assert.equal(last.sessions, 1);
    await until("the last message", () => bob.messages.at(-1)?.id === last.id);
    const got = arrivedOnce(bob, answers);
    assert.equal(new Set(answers.map(({ id }) => id)).size, answers.length, "each has an id of its own");
    if (returns()[1] === 0) {
      // Bob was there all the time: nothing that was taken for him is missing.
      const taken = answers.flatMap(({ sessions }, number) => (sessions > 0 ? [number] : []));
      assert.deepEqual(taken.filter((number) => !got.includes(number)), []);
    }
  },

  /** Who runs this stops the server when the file `online` is there, and starts it again. */
  async restart(url, runDir) {
    const [ann, bob] = await pair(url);
    await ann.send({ user: "bob" }, { number: 0 });
    await writeFile(join(runDir, "..", "online"), "");
    await until("the stop", () => ann.state !== "online" && bob.state !== "online");
    const offline = [1, 2, 3].map((number) => ann.send({ user: "bob" }, { number }));
    const early = await ann.call("ping").catch((error) => error);
    assert(early instanceof NoAnswer, early);
    await until("attempts", () => [ann, bob].every((im) => im.states.filter((s) => s === "waiting").length >= 3));
    await writeFile(join(runDir, "..", "tried"), "");
    const answers = await Promise.all(offline);
    assert.equal(answers.length, 3);
    await until("Bob is back", () => bob.state === "online");
    await ann.send({ user: "bob" }, { number: 4 });
    await until("the last message", () => bob.messages.at(-1)?.body.number === 4);
    arrivedOnce(bob, [{ id: bob.messages[0].id }]);
    const worst = Math.max(...[ann, bob].map((im) => im.states.filter((s) => s === "connecting").length));
    assert(worst <= 12, `${worst} attempts`);
    assert(await status(runDir));
  },

  async token(url, runDir) {
    const { jwt } = await import("./jwt.mjs");
    let asked = 0;
    const token = async () => {
      asked += 1;
      return jwt(runDir, { sub: "ann", exp: Math.floor(Date.now() / 1000) + 3 });
    };
    const ann = client(url, undefined, { token });
    const login = await ann.connect();
    assert.equal(login.user, "ann");
    // Longer than any one of its tokens.
    await sleep(5_000);
    assert.equal((await ann.call("ping")).time > login.expires, true);
    assert(asked >= 3, `${asked} tokens`);
    assert.deepEqual(ann.states, ["connecting", "online"]);
    ann.close();
    const eve = client(url, undefined, { token: "nonsense" });
    const refused = await eve.connect().catch((error) => error);
    assert(refused instanceof CallError && refused.code === -32001, refused);
    assert.equal(eve.state, "closed");
  },

  /** A server that takes connections and says nothing any more; one that is not there; a policy. */
  async silence(url) {
    const ann = client(url, "ann", { connectTimeoutMs: 500 });
    await ann.connect();
    ann.close();
    const dead = createServer((socket) => socket.on("error", () => {}));
    await new Promise((listening) => dead.listen(0, "127.0.0.1", listening));
    const lonely = client(`ws://127.0.0.1:${dead.address().port}/ws`, "ann", { connectTimeoutMs: 200 });
    lonely.connect().catch(() => {});
    await until("it gives up and tries again", () => lonely.states.filter((s) => s === "waiting").length >= 2);
    lonely.close();
    dead.close();
    const full = client(url, "ann", { queueMax: 2 });
    const waiting = [1, 2, 3].map((n) => full.send({ user: "ann" }, n, { timeoutMs: 300 }).catch((error) => error));
    const [first, , third] = await Promise.all(waiting);
    assert(first instanceof NoAnswer && /in time/.test(first.message), first);
    assert(third instanceof NoAnswer && /wait already/.test(third.message), third);
    for (const [code, back] of [[1000, false], [1001, true], [1008, false], [1009, false], [1012, true],
      [1013, true], [4002, true], [4499, true], [4500, false], [4510, false]]) {
      assert.equal(returnsAfter(code), back, `${code}`);
    }
  },
};

/** Frozen: the kernel answers, the server does not. */
scenarios.frozen = async (url, runDir) => {
  const ann = client(url, "ann");
  await ann.connect();
  const pids = (await status(runDir)).workers.map((worker) => worker.pid);
  pids.forEach((pid) => process.kill(pid, "SIGSTOP"));
  await until("it notices", () => ann.states.includes("waiting"));
  pids.forEach((pid) => process.kill(pid, "SIGCONT"));
  await until("it is back", () => ann.state === "online");
  ann.close();
};

const [scenario, url, runDir] = process.argv.slice(2);
setTimeout(() => {
  console.error(`${scenario} did not end`);
  process.exit(1);
}, 3 * DEADLINE_MS).unref();
await scenarios[scenario](url, runDir);
process.exit(0);
