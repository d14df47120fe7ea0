// A client that we did not write against a running server: npm's ws.
//
//     chat.mjs SCENARIO URL RUN_DIR
//
// Exits with 0 if the scenario went as promised; else says what did not. Every wait is bounded.
// The same scenarios as in chat.py.

import assert from "node:assert/strict";
import { randomBytes, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import WebSocket from "ws";

const DEADLINE_MS = 15_000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** An upgrade that was refused. */
class Refused extends Error {
  constructor(response) {
    super(`HTTP ${response.statusCode}`);
    this.status = response.statusCode;
    this.retryAfter = Number(response.headers["retry-after"]);
  }
}

/** One connection; requests are answered in order, notifications are kept. */
class Client {
  objects = [];
  waiting = [];
  lastId = 0;

  static async open(url, options = {}) {
    const client = new Client();
    client.socket = new WebSocket(url, { handshakeTimeout: DEADLINE_MS, ...options });
    client.socket.on("upgrade", (response) => {
      client.answered = response.headers["sec-websocket-extensions"];
    });
    client.closed = new Promise((resolve) => client.socket.on("close", resolve));
    client.socket.on("message", (data) => {
      client.objects.push(JSON.parse(data.toString()));
      client.waiting.splice(0).forEach((wake) => wake());
    });
    await new Promise((resolve, reject) => {
      client.socket.on("open", resolve);
      client.socket.on("error", reject);
      client.socket.on("unexpected-response", (request, response) => {
        request.destroy();
        reject(new Refused(response));
      });
    });
    client.hello = await client.notification("hello");
    return client;
  }

  /** Takes the first object that fits, waiting for it. */
  async take(fits) {
    const until = Date.now() + DEADLINE_MS;
    for (;;) {
      const place = this.objects.findIndex(fits);
      if (place >= 0) return this.objects.splice(place, 1)[0];
      assert(Date.now() < until, "nothing came in time");
      await Promise.race([new Promise((wake) => this.waiting.push(wake)), sleep(200)]);
    }
  }

  async notification(method) {
    return (await this.take((object) => object.method === method)).params;
  }

  async call(method, params) {
    const id = ++this.lastId;
    this.socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    const answer = await this.take((object) => object.method === undefined);
    assert.equal(answer.id, id);
    assert(answer.result, JSON.stringify(answer));
    return answer.result;
  }

  async login(user) {
    await this.call("login", { user, device: { id: "node" } });
    return this;
  }

  async close() {
    this.socket.close(1000);
    return this.closed;
  }

  /** The close code, and the `bye` before it. */
  async expectClose() {
    const code = await this.closed;
    return [code, await this.notification("bye")];
  }
}

async function workers(runDir, figure) {
  const status = JSON.parse(await readFile(join(runDir, "status.pipe"), "utf8"));
  return status.workers.map((worker) => worker[figure]);
}

const connections = (runDir) => workers(runDir, "connections");

const sum = (numbers) => numbers.reduce((left, right) => left + right, 0);

/** Two connections that two workers serve. */
async function onTwoWorkers(url, runDir) {
  const until = Date.now() + DEADLINE_MS;
  while (Date.now() < until) {
    const pair = [await Client.open(url), await Client.open(url)];
    let counts = [];
    while (sum(counts) !== 2 && Date.now() < until) {
      counts = await connections(runDir);
      await sleep(10);
    }
    if (counts[0] === 1 && counts[1] === 1) return pair;
    await Promise.all(pair.map((client) => client.close()));
    while (sum(await connections(runDir)) > 0 && Date.now() < until) await sleep(10);
  }
  throw new Error("no two connections on two workers");
}

const scenarios = {
  async chat(url, runDir) {
    const [ann, bob] = await onTwoWorkers(url, runDir);
    await ann.login("ann");
    await bob.login("bob");
    for (let n = 0; n < 50; n++) {
      const body = { text: "grüße 🎉", n };
      const sent = await ann.call("send", { to: { user: "bob" }, body });
      assert.equal(sent.sessions, 1);
      const message = await bob.notification("message");
      assert.equal(message.id, sent.id);
      assert.deepEqual(message.body, body);
      assert.deepEqual(message.from, { user: "ann", device: "node" });
      await bob.call("send", { to: { user: "ann" }, body: n });
      assert.equal((await ann.notification("message")).body, n);
    }
    const { users } = await ann.call("presence", { users: ["bob", "zoe"] });
    assert.deepEqual([users.bob.online, users.zoe.online], [true, false]);
    // A message in fragments.
    const text = JSON.stringify({
      id: "f", method: "send", params: { to: { user: "bob" }, body: "x".repeat(20_000) },
    });
    ann.socket.send(text.slice(0, 1), { fin: false });
    ann.socket.send(text.slice(1, 9_000), { fin: false });
    ann.socket.send(text.slice(9_000), { fin: true });
    const answer = await ann.take((object) => object.id === "f");
    assert.equal(answer.result?.sessions, 1);
    assert.equal((await bob.notification("message")).body, "x".repeat(20_000));
    assert.equal(await bob.close(), 1000);
    assert.equal(await ann.close(), 1000);
  },

  async "login-timeout"(url) {
    const client = await Client.open(url);
    const began = Date.now();
    const [code, bye] = await client.expectClose();
    const took = Date.now() - began;
    assert.deepEqual([code, bye.code, bye.reconnect], [4501, 4501, false]);
    const limit = client.hello.login_timeout_ms;
    assert(took >= limit - 100 && took <= limit + 2_000, `${took} ms`);
  },

  async silence(url) {
    const client = await (await Client.open(url)).login("ann");
    const began = Date.now();
    const [code, bye] = await client.expectClose();
    const took = Date.now() - began;
    assert.deepEqual([code, bye.code, bye.reconnect], [4002, 4002, true]);
    const limit = client.hello.heartbeat_ms;
    assert(took >= limit - 100 && took <= limit + 2_000, `${took} ms`);
  },

  async pings(url) {
    const frames = await (await Client.open(url)).login("frames");
    const requests = await (await Client.open(url)).login("requests");
    const until = Date.now() + 3 * frames.hello.heartbeat_ms;
    while (Date.now() < until) {
      frames.socket.ping("life");
      await requests.call("ping", {});
      await sleep(50);
    }
    const { users } = await frames.call("presence", { users: ["frames", "requests"] });
    assert.deepEqual([users.frames.online, users.requests.online], [true, true]);
  },

  async full(url) {
    const clients = [];
    for (const user of ["u0", "u1"]) clients.push(await (await Client.open(url)).login(user));
    for (let n = 0; n < 3; n++) {
      const refused = await Client.open(url).then(() => null, (error) => error);
      assert.equal(refused?.status, 503, String(refused));
      assert(refused.retryAfter > 0);
    }
    await clients.pop().close();
    const until = Date.now() + DEADLINE_MS;
    for (let next = null; next === null; ) {
      next = await Client.open(url).catch((error) => {
        assert.equal(error.status, 503, String(error));
        return null;
      });
      if (next) clients.push(await next.login("next"));
      else await sleep(10);
      assert(Date.now() < until, "the free row was not given again");
    }
    const { users } = await clients[0].call("presence", { users: ["next"] });
    assert.equal(users.next.online, true);
  },
};

/** Compressed both ways, in the window that is asked for. */
scenarios.deflate = async (url, runDir) => {
  const body = Array.from({ length: 1500 }, (_, number) => `${number}: grüße 🎉 `).join("");
  const windows = [undefined, 9, 12, 15];
  for (const [number, bits] of windows.entries()) {
    const perMessageDeflate = { threshold: 0, serverMaxWindowBits: bits };
    const client = await (await Client.open(url, { perMessageDeflate })).login("ann");
    const narrow = bits ? `; server_max_window_bits=${bits}` : "";
    const agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert.equal(client.socket.extensions, "permessage-deflate");
    assert.equal(client.answered, agreed + narrow);
    for (const text of [body, "short", "", randomBytes(3000).toString("hex"), body]) {
      await client.call("send", { to: { user: "ann" }, body: text });
      assert.equal((await client.notification("message")).body, text);
    }
    assert.equal(await client.close(), 1000);
    assert(sum(await workers(runDir, "compressed_in")) >= 6 * (number + 1));
    assert(sum(await workers(runDir, "compressed_out")) >= 3 * (number + 1));
  }
  const plain = await (await Client.open(url, { perMessageDeflate: false })).login("ann");
  assert.equal(plain.answered, undefined);
  await plain.call("send", { to: { user: "ann" }, body });
  assert.equal((await plain.notification("message")).body, body);
};

/** A token by a private key of the tests, made by Node alone. */
async function jwt(alg, claims) {
  const part = (data) => Buffer.from(data).toString("base64url");
  const place = new URL(`../../crates/im/tests/keys/${alg.toLowerCase()}.pem`, import.meta.url);
  const header = { alg, typ: "JWT", kid: alg };
  const message = `${part(JSON.stringify(header))}.${part(JSON.stringify(claims))}`;
  const key = { key: await readFile(place, "utf8"), dsaEncoding: "ieee-p1363" };
  const hash = alg === "EdDSA" ? null : "sha256";
  return `${message}.${part(sign(hash, Buffer.from(message), key))}`;
}

/** In by tokens of each algorithm with a public key, and not by one of them for another. */
scenarios.token = async (url) => {
  const exp = Math.floor(Date.now() / 1000) + 60;
  for (const alg of ["RS256", "ES256", "EdDSA"]) {
    const client = await Client.open(url);
    const token = await jwt(alg, { sub: alg, exp, aud: ["dunlin", "other"], iss: "node" });
    const login = await client.call("login", { token, device: { id: "node" } });
    assert.deepEqual([login.user, login.expires], [alg, exp * 1000]);
    const other = await jwt(alg, { sub: alg, exp: exp + 60, aud: "dunlin", iss: "node" });
    assert.equal((await client.call("refresh", { token: other })).expires, (exp + 60) * 1000);
    const [, claims] = other.split(".");
    const [header, , signature] = token.split(".");
    const params = { token: `${header}.${claims}.${signature}` };
    client.socket.send(JSON.stringify({ id: 9, method: "refresh", params }));
    const { error } = await client.take((object) => object.id === 9);
    assert.deepEqual([error.code, error.data.reason], [-32001, "auth_failed"]);
    assert.equal(await client.close(), 1000);
  }
};

const [scenario, url, runDir] = process.argv.slice(2);
setTimeout(() => {
  console.error(`${scenario} did not end`);
  process.exit(1);
}, 2 * DEADLINE_MS).unref();
await scenarios[scenario](url, runDir);
process.exit(0);
