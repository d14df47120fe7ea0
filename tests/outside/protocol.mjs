// The rows of protocol.json, played by npm's ws.
//
//     protocol.mjs SERVER URL RUN_DIR
//
// Plays all rows for this server. Exits with 0 if everything came as promised; else names the row.
// The same as protocol.py.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import WebSocket from "ws";
import { jwt } from "./jwt.mjs";

const DEADLINE_MS = 15_000;
const [SERVER, URL_OF, RUN_DIR] = process.argv.slice(2);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What a row stands for. */
async function expand(value) {
  if (Array.isArray(value)) return Promise.all(value.map(expand));
  if (value === null || typeof value !== "object") return value;
  if (value.$repeat) return value.$repeat[0].repeat(value.$repeat[1]);
  if (value.$list) return Array(value.$list[1]).fill(await expand(value.$list[0]));
  if (value.$jwt) {
    const { exp_in: expIn, ...claims } = value.$jwt;
    if (expIn !== undefined) claims.exp = Math.floor(Date.now() / 1000) + expIn;
    return jwt(RUN_DIR, claims);
  }
  const members = Object.entries(value).map(async ([name, member]) => [name, await expand(member)]);
  return Object.fromEntries(await Promise.all(members));
}

const KINDS = {
  $string: (value) => typeof value === "string",
  $number: Number.isInteger,
  $bool: (value) => typeof value === "boolean",
  $list: Array.isArray,
};

function fits(value, pattern) {
  if (Array.isArray(pattern)) {
    return Array.isArray(value) && value.length === pattern.length && pattern.every((item, at) => fits(value[at], item));
  }
  if (pattern !== null && typeof pattern === "object") {
    const there = value !== null && typeof value === "object";
    return there && Object.entries(pattern).every(([name, member]) => name in value && fits(value[name], member));
  }
  return KINDS[pattern]?.(value) ?? value === pattern;
}

const shown = (value) => JSON.stringify(value).slice(0, 500);

class Client {
  said = [];
  lastId = 0;

  static async open() {
    const client = new Client();
    client.socket = new WebSocket(URL_OF, { handshakeTimeout: DEADLINE_MS });
    client.socket.on("message", (data) => client.said.push(JSON.parse(data.toString())));
    client.socket.on("close", (code, reason) => (client.end = { code, reason: reason.toString() }));
    client.socket.on("error", () => {});
    assert(fits(await client.hear("hello"), { session: "$string", reconnect: { base_ms: "$number" } }));
    return client;
  }

  async take(what, fitting) {
    const until = Date.now() + DEADLINE_MS;
    for (;;) {
      const place = this.said.findIndex(fitting);
      if (place >= 0) return this.said.splice(place, 1)[0];
      assert(Date.now() < until && !(this.end && what !== "bye"), `no ${what}, but ${shown(this.said)} ${shown(this.end ?? "")}`);
      await sleep(1);
    }
  }

  async hear(method) {
    return (await this.take(method, (said) => said.method === method)).params;
  }

  answer() {
    return this.take("answer", (said) => said.method === undefined);
  }

  async ask(method, { params }) {
    const id = ++this.lastId;
    this.socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params: await expand(params) }));
    const answer = await this.answer();
    assert.equal(answer.id, id);
    assert.equal(answer.jsonrpc, "2.0");
    return answer;
  }

  async call(method, row) {
    const answer = await this.ask(method, row);
    assert(answer.result && fits(answer.result, await expand(row.result ?? {})), shown(answer));
  }

  async fail(method, row) {
    refused(await this.ask(method, row), row.error);
  }

  login(user, device) {
    return this.call("login", { params: { user, device: { id: device } } });
  }

  async closed(code, reason) {
    const until = Date.now() + DEADLINE_MS;
    while (!this.end) {
      assert(Date.now() < until, "it is not closed");
      await sleep(1);
    }
    assert.equal(this.end.code, code);
    if (reason !== null) assert.equal(this.end.reason, reason);
    const bye = await this.hear("bye");
    assert.deepEqual([bye.code, bye.reconnect], [code, returns(code)]);
  }

  async leave() {
    this.socket.close(1000);
    const until = Date.now() + DEADLINE_MS;
    while (!this.end) {
      assert(Date.now() < until, "it does not end");
      await sleep(1);
    }
    assert.equal(this.end.code, 1000);
  }
}

const returns = (code) => [1001, 1012, 1013].includes(code) || (code >= 4000 && code < 4500);

function refused(answer, [code, reason]) {
  assert.deepEqual([answer.error?.code, answer.error?.data?.reason], [code, reason], shown(answer));
}

async function ready(block) {
  const client = await Client.open();
  if (block.state === "in" && SERVER === "token") {
    const token = { $jwt: { sub: "ann", exp_in: 60 } };
    await client.call("login", { params: { token, device: { id: "p1" } } });
  } else if (block.state === "in") {
    await client.login("ann", "p1");
  }
  return client;
}

async function named(row, deed) {
  try {
    await deed();
  } catch (error) {
    console.error(`row: ${shown(row)}`);
    throw error;
  }
}

async function playMethod(block) {
  let client = await ready(block);
  for (const row of block.bad ?? []) {
    // Tokens that are refused are counted: such a row has a connection of its own, which takes the place of
    // the other session of this device.
    if (row.alone || client.end) client = await ready(block);
    await named(row, () => client.fail(block.method, row));
  }
  for (const row of block.good ?? []) {
    if (client.end || (block.state === "out" && block.method === "login")) client = await ready(block);
    await named(row, () => client.call(block.method, row));
  }
  await client.leave();
}

async function playTexts(rows) {
  const client = await Client.open();
  for (const row of rows) {
    client.socket.send(row.text);
    const answer = await client.answer();
    assert.equal(answer.id, row.id, shown(row));
    refused(answer, row.error);
  }
  await client.leave();
}

const steps = {
  open: async (clients, name) => (clients[name] = await Client.open()),
  login: (clients, name, user, device) => clients[name].login(user, device),
  call: (clients, name, method, params, result) => clients[name].call(method, { params, result }),
  fail: (clients, name, method, params, error) => clients[name].fail(method, { params, error }),
  async hear(clients, name, method, pattern) {
    const heard = await clients[name].hear(method);
    assert(fits(heard, await expand(pattern)), shown(heard));
  },
  text: async (clients, name, text) => clients[name].socket.send(await expand(text)),
  binary: (clients, name) => clients[name].socket.send(Buffer.from([0])),
  // Past the library, which would not send this.
  bytes: (clients, name, hex) => clients[name].socket._socket.write(Buffer.from(hex, "hex")),
  close: (clients, name, code, reason) => clients[name].closed(code, reason),
  leave: (clients, name) => clients[name].leave(),
  async api(_, path, body, pattern) {
    const key = (await readFile(join(RUN_DIR, "api.key"), "utf8")).trim();
    const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
    const url = `http://${new URL(URL_OF).host}/api/${path}`;
    const answer = await (await fetch(url, { method: "POST", headers, body: JSON.stringify(body) })).json();
    assert(fits(answer, pattern), shown(answer));
  },
  async signal(_, name) {
    process.kill(Number(await readFile(join(RUN_DIR, "dunlin.pid"), "utf8")), `SIG${name}`);
  },
};

async function playScene(scene) {
  const clients = {};
  for (const [verb, ...rest] of scene.steps) {
    await named([verb, ...rest], async () => steps[verb](clients, ...rest));
  }
}

setTimeout(() => {
  console.error("it did not end");
  process.exit(1);
}, 60_000).unref();
const table = JSON.parse(await readFile(new URL("protocol.json", import.meta.url), "utf8"));
let played = 0;
for (const block of table.methods.filter((block) => block.server === SERVER)) {
  await named(block.method, () => playMethod(block));
  played += 1;
}
if (SERVER === "open") await playTexts(table.texts);
const scenes = table.scenes.filter((scene) => scene.server === SERVER);
scenes.sort((left, right) => Number(left.last ?? false) - Number(right.last ?? false));
for (const scene of scenes) {
  await named(scene.name, () => playScene(scene));
  played += 1;
}
assert(played > 0, `no rows for the server ${SERVER}`);
process.exit(0);
