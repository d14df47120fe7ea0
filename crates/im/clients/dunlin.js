// A client of dunlin's IM protocol: one file without dependencies, for browsers and Node (20 and later).
// Written from docs/protocol.md alone.
//
//     import { Dunlin } from "./dunlin.js";
//     const im = new Dunlin("wss://chat.example/ws", { token: () => fetchToken(), device: { id: deviceId } });
//     im.on("message", ({ from, body }) => show(from, body));
//     await im.connect();
//     await im.send({ user: "bob" }, { text: "tea?" });
//
// What it promises: 1. It comes back by itself where the server's policy says so, logs in again, joins its
// rooms again and watches again. 2. A `send` is answered once: what is unanswered when a connection ends is
// repeated under its key, and a message that comes twice is told once. 3. News of presence that is older
// than what is known is not told. 4. Nothing waits without a bound: at most `queueMax` sends, each for at
// most `sendTimeoutMs`.

/**
 * @typedef {{user: string} | {room: string}} Target
 * @typedef {{id: string, model?: string, kind?: string}} Device
 * @typedef {{id: string, time: number, sessions: number}} SendResult
 * @typedef {"idle" | "connecting" | "online" | "waiting" | "closed"} State
 *
 * @typedef {object} Options
 * @property {string} [user] Who to be, where the server is in the open mode.
 * @property {string | (() => string | Promise<string>)} [token] The token, or where to get one. A function
 *   is asked before each login, and again before the token ends.
 * @property {Device} device Its id is to be used again when coming back, and by nobody else.
 * @property {typeof WebSocket} [WebSocket] Where there is no global one: that of npm's `ws`.
 * @property {number} [callTimeoutMs] How long a call may take: 10 s.
 * @property {number} [sendTimeoutMs] How long a `send` may take, reconnections included: 60 s, at most 4 min.
 * @property {number} [connectTimeoutMs] From the connect to the end of the login: 15 s.
 * @property {number} [queueMax] Sends that wait for their answer: 1000.
 */

/** The server refused a call. */
export class CallError extends Error {
  /** @param {{code: number, message: string, data?: {reason?: string, retry_after_ms?: number}}} error */
  constructor(error) {
    super(error.message);
    this.name = "CallError";
    this.code = error.code;
    /** A word that never changes. */
    this.reason = error.data?.reason;
    /** When trying again may help; `undefined` where it is not told. */
    this.retryAfterMs = error.data?.retry_after_ms;
  }
}

/** A call was not answered: it may have been done or not. */
export class NoAnswer extends Error {
  /** @param {string} why */
  constructor(why) {
    super(why);
    this.name = "NoAnswer";
  }
}

/** Close codes after which a client comes back; besides, 4000 to 4499. */
const RETURN_AFTER = new Set([1001, 1005, 1006, 1012, 1013]);
const TOKEN_OVER = 4502;
/** Until a `hello` has told the server's own. */
const DEFAULT_POLICY = { base_ms: 500, max_ms: 30_000, jitter: 0.5 };
/** The server knows keys for 5 minutes: a retry has to be there well before. */
const SEND_TIMEOUT_MAX_MS = 240_000;
/** Message ids that are remembered to tell each message once. */
const SEEN_MAX = 2_000;
const AUTH_FAILED = -32001;

/** Whether a client that was closed with this code connects again by itself. */
export const returnsAfter = (code) => RETURN_AFTER.has(code) || (code >= 4000 && code < 4500);

export class Dunlin {
  /**
   * @param {string} url Such as `ws://127.0.0.1:9502/ws`.
   * @param {Options} options
   */
  constructor(url, options) {
    if (!options?.device?.id) throw new TypeError("options.device.id is missing");
    if (options.user === undefined && options.token === undefined) {
      throw new TypeError("options.user or options.token is missing");
    }
    this.url = url;
    this.options = {
      WebSocket: globalThis.WebSocket,
      callTimeoutMs: 10_000,
      sendTimeoutMs: 60_000,
      connectTimeoutMs: 15_000,
      queueMax: 1_000,
      ...options,
    };
    if (!this.options.WebSocket) throw new TypeError("options.WebSocket is missing: there is no global one");
    /** @type {State} */
    this.state = "idle";
    /** The result of the last `login`. */
    this.account = null;
    /** The `hello` of the last connection. */
    this.hello = null;
    this._listeners = new Map();
    this._socket = null;
    /** Requests of this connection by id. */
    this._asked = new Map();
    this._lastId = 0;
    /** Sends without an answer by key, in their order. */
    this._sends = new Map();
    this._keyBase = randomText();
    this._lastKey = 0;
    this._rooms = new Set();
    this._watched = new Set();
    this._versions = new Map();
    this._seen = new Set();
    this._failures = 0;
    this._bye = null;
    this._timers = { connect: undefined, heartbeat: undefined, refresh: undefined, retry: undefined };
    this._arrival = null;
    this._heardAt = 0;
  }

  /**
   * Hears of `state` (State), `message`, `signal`, `presence`, `joined`, `left`, `room` and `bye` (the params of the
   * notification), `lost` ({room | users, error}: not joined or watched again), and `notification`
   * ({method, params}: one of a later version).
   * @param {string} event
   * @param {(detail: any) => void} listener
   * @returns {() => void} Ends it.
   */
  on(event, listener) {
    const all = this._listeners.get(event) ?? new Set();
    this._listeners.set(event, all.add(listener));
    return () => all.delete(listener);
  }

  /**
   * Connects and logs in. Resolves with the result of `login`, however many attempts it takes; rejects where
   * the server does not want this client (its token, its user).
   */
  connect() {
    if (this.state === "closed" || this.state === "idle") {
      this._arrival = deferred();
      this._arrival.promise.catch(() => {}); // Whoever awaits it hears of it.
      this._failures = 0;
      this._open();
    }
    return this._arrival.promise;
  }

  /** Ends the connection for good; what is unanswered is rejected. */
  close() {
    this._end(new NoAnswer("the client was closed"));
  }

  /**
   * Tries now instead of after the wait, as when the network is there again.
   */
  wake() {
    if (this.state !== "waiting") return;
    clearTimeout(this._timers.retry);
    this._open();
  }

  /**
   * A request by its name. Rejects with a `CallError`, or with `NoAnswer` if the connection ends or nothing
   * comes in time; it is not repeated then.
   * @param {string} method
   * @param {object} [params]
   * @param {{timeoutMs?: number}} [options]
   * @returns {Promise<any>}
   */
  call(method, params = {}, { timeoutMs = this.options.callTimeoutMs } = {}) {
    if (this.state !== "online") return Promise.reject(new NoAnswer(`not online: ${this.state}`));
    return this._request(method, params, timeoutMs);
  }

  /**
   * A message; also one that waits for the connection to come back. `key` names it for repetitions.
   * @param {Target} to
   * @param {any} body
   * @param {{key?: string, timeoutMs?: number}} [options]
   * @returns {Promise<SendResult>}
   */
  send(to, body, { key, timeoutMs = this.options.sendTimeoutMs } = {}) {
    if (this.state === "closed") return Promise.reject(new NoAnswer("the client is closed"));
    if (this._sends.size >= this.options.queueMax) {
      return Promise.reject(new NoAnswer(`${this.options.queueMax} messages wait already`));
    }
    const name = key ?? `${this._keyBase}-${++this._lastKey}`;
    if (this._sends.has(name)) return this._sends.get(name).promise;
    const waiting = { ...deferred(), params: { to, body, key: name }, timer: undefined };
    const late = () => this._settleSend(name, "reject", new NoAnswer("no answer in time"));
    waiting.timer = setTimeout(late, Math.min(timeoutMs, SEND_TIMEOUT_MAX_MS));
    this._sends.set(name, waiting);
    if (this.state === "online") this._trySend(name);
    return waiting.promise;
  }

  /** Something that is stale in a moment, such as typing. @param {Target} to @param {any} body */
  signal(to, body) {
    return this.call("signal", { to, body });
  }

  /** Joins a room, now and after each return. @param {string} room */
  async join(room) {
    const there = this._rooms.has(room);
    this._rooms.add(room);
    try {
      return await this.call("join", { room });
    } catch (error) {
      if (!there) this._rooms.delete(room);
      throw error;
    }
  }

  /** @param {string} room */
  leave(room) {
    this._rooms.delete(room);
    return this.call("leave", { room });
  }

  /** @param {string} room @param {{limit?: number, cursor?: string}} [page] */
  members(room, page = {}) {
    return this.call("members", { room, ...page });
  }

  /** @param {string[]} users */
  async presence(users) {
    const result = await this.call("presence", { users });
    this._learn(result.users);
    return result;
  }

  /** Watches users, now and after each return. @param {string[]} users */
  async watch(users) {
    const added = users.filter((user) => !this._watched.has(user));
    // Before the call: news may stand right behind its result.
    for (const user of added) this._watched.add(user);
    try {
      const result = await this.call("watch", { users });
      this._learn(result.users);
      return result;
    } catch (error) {
      for (const user of added) this._watched.delete(user);
      throw error;
    }
  }

  /** @param {string[]} users */
  unwatch(users) {
    for (const user of users) this._watched.delete(user);
    return this.call("unwatch", { users });
  }

  /** One's own sessions. */
  sessions() {
    return this.call("sessions");
  }

  /** Closes one's sessions on another device. @param {string} device */
  kick(device) {
    return this.call("kick", { device });
  }

  // One connection.

  _open() {
    this._setState("connecting");
    this._bye = null;
    let socket;
    try {
      socket = new this.options.WebSocket(this.url);
    } catch (error) {
      return this._end(error instanceof Error ? error : new Error(String(error)));
    }
    this._socket = socket;
    // What an abandoned socket still says concerns nobody.
    const ours = (act) => (event) => {
      if (this._socket === socket) act(event);
    };
    socket.onmessage = ours(({ data }) => this._hear(data));
    socket.onclose = ours(({ code, reason }) => this._closed(code, reason));
    socket.onerror = () => {}; // `close` follows.
    this._timers.connect = setTimeout(() => this._abandon(), this.options.connectTimeoutMs);
  }

  _hear(data) {
    this._heardAt = Date.now();
    let said;
    try {
      said = JSON.parse(data);
    } catch {
      return; // The server sends JSON texts only: this is none of ours.
    }
    if (said.method !== undefined) return this._told(said.method, said.params ?? {});
    const asked = this._asked.get(said.id);
    if (!asked) return;
    this._asked.delete(said.id);
    clearTimeout(asked.timer);
    if (said.error) asked.reject(new CallError(said.error));
    else asked.resolve(said.result);
  }

  _told(method, params) {
    switch (method) {
      case "hello":
        this.hello = params;
        this._arrive().catch((error) => this._refused(error));
        return;
      case "bye":
        this._bye = params;
        break;
      case "message":
        if (!this._isNew(params.id)) return;
        break;
      case "presence":
        if (!this._isNewer(params.user, params.version)) return;
        break;
      case "signal":
      case "joined":
      case "left":
      case "room":
        break;
      default:
        return this._emit("notification", { method, params });
    }
    this._emit(method, params);
  }

  /** Everything between the `hello` and being online again. */
  async _arrive() {
    const { token, user, device, callTimeoutMs } = this.options;
    const socket = this._socket;
    const who = token === undefined ? { user } : { token: await this._token() };
    if (this._socket !== socket) return;
    const account = await this._request("login", { ...who, device }, callTimeoutMs);
    clearTimeout(this._timers.connect);
    this.account = account;
    this._failures = 0;
    this._keepAlive(account.heartbeat_ms);
    this._refreshBefore(account.expires, account.time);
    // Requests are done in the order they were sent, so the rooms are joined before a message goes there.
    const again = [...this._rooms].map((room) => this._again("join", { room }, () => this._rooms.delete(room)));
    if (this._watched.size > 0) {
      const users = [...this._watched];
      const lost = () => users.forEach((name) => this._watched.delete(name));
      again.push(this._again("watch", { users }, lost));
    }
    this._setState("online");
    for (const key of [...this._sends.keys()]) this._trySend(key);
    this._arrival.resolve(account);
    await Promise.all(again);
  }

  async _again(method, params, lost) {
    try {
      const result = await this._request(method, params, this.options.callTimeoutMs);
      for (const [user, state] of Object.entries(result.users ?? {})) {
        if (this._isNewer(user, state.version)) this._emit("presence", { user, ...state });
      }
    } catch (error) {
      if (!(error instanceof CallError)) return; // The connection ended: it is tried on the next.
      lost();
      this._emit("lost", { ...params, error });
    }
  }

  /** A login was refused, or not answered. */
  _refused(error) {
    if (this.state === "closed" || this.state === "waiting") return;
    if (!(error instanceof CallError)) return this._abandon();
    const another = typeof this.options.token === "function" && error.code === AUTH_FAILED;
    // A token from a function may have ended on its way here; what is refused twice stays refused.
    if (another && this._failures === 0) return this._abandon();
    if (error.retryAfterMs !== undefined) return this._abandon(error.retryAfterMs);
    this._end(error);
  }

  async _token() {
    const { token } = this.options;
    return typeof token === "function" ? token() : token;
  }

  _request(method, params, timeoutMs) {
    const id = ++this._lastId;
    const asked = deferred();
    const text = JSON.stringify({ jsonrpc: "2.0", id, method, params });
    const most = this.hello?.max_message ?? Infinity;
    if (text.length * 3 > most && new TextEncoder().encode(text).length > most) {
      // The server would close the connection.
      return Promise.reject(new RangeError(`the request is longer than ${most} bytes`));
    }
    asked.timer = setTimeout(() => {
      this._asked.delete(id);
      asked.reject(new NoAnswer(`no answer to ${method} in ${timeoutMs} ms`));
    }, timeoutMs);
    this._asked.set(id, asked);
    this._socket.send(text);
    return asked.promise;
  }

  async _trySend(key) {
    const waiting = this._sends.get(key);
    if (!waiting) return;
    try {
      const result = await this._request("send", waiting.params, SEND_TIMEOUT_MAX_MS);
      this._settleSend(key, "resolve", result);
    } catch (error) {
      if (error instanceof NoAnswer) return; // It goes out again on the next connection.
      if (error instanceof CallError && error.reason === "key_under_way") {
        return void setTimeout(() => this.state === "online" && this._trySend(key), error.retryAfterMs ?? 100);
      }
      this._settleSend(key, "reject", error);
    }
  }

  _settleSend(key, how, value) {
    const waiting = this._sends.get(key);
    if (!waiting) return;
    this._sends.delete(key);
    clearTimeout(waiting.timer);
    waiting[how](value);
  }

  /** Says something in time, and notices a server that says nothing. */
  _keepAlive(heartbeatMs) {
    const everyMs = Math.min(Math.max(heartbeatMs / 3, 100), 20_000);
    clearInterval(this._timers.heartbeat);
    this._timers.heartbeat = setInterval(() => {
      const asked = Date.now();
      this._request("ping", {}, everyMs).catch(() => {
        // Late, but something came: a long message may be on its way before the answer.
        if (this._heardAt < asked) this._abandon();
      });
    }, everyMs);
  }

  /** Brings a new token before the old one ends, by the server's clock. */
  _refreshBefore(expires, time) {
    clearTimeout(this._timers.refresh);
    if (expires === undefined || typeof this.options.token !== "function") return;
    const socket = this._socket;
    const refresh = async () => {
      try {
        const token = await this._token();
        if (this._socket !== socket || this.state !== "online") return;
        const result = await this._request("refresh", { token }, this.options.callTimeoutMs);
        const { time: now } = await this._request("ping", {}, this.options.callTimeoutMs);
        this._refreshBefore(result.expires, now);
      } catch {
        // The session lasts until its token ends; then it is closed with 4502, and a login gets a new one.
      }
    };
    this._timers.refresh = setTimeout(refresh, Math.min(Math.max((expires - time) * 0.8, 50), 0x7fff_ffff));
  }

  /** Gives up a connection that is of no use, and comes back. */
  _abandon(afterMs) {
    const socket = this._socket;
    if (!socket) return;
    this._socket = null;
    try {
      socket.close(1000);
    } catch {
      // Not even open.
    }
    this._closed(1006, "", afterMs);
  }

  _closed(code, reason, afterMs) {
    this._socket = null;
    this._stopTimers();
    for (const { reject, timer } of this._asked.values()) {
      clearTimeout(timer);
      reject(new NoAnswer(`the connection was closed: ${code} ${reason}`));
    }
    this._asked.clear();
    const bye = this._bye;
    const failed = this.state !== "online";
    // Whoever can get a new token comes back with it.
    const another = code === TOKEN_OVER && !failed && typeof this.options.token === "function";
    if (!returnsAfter(code) && !another) {
      const error = new CallError({ code, message: reason || `closed with ${code}` });
      return this._end(error);
    }
    this._failures += 1;
    const [min, max] = bye?.reconnect ? bye.after_ms : this._wait();
    const waitMs = Math.max(min + Math.random() * (max - min), afterMs ?? 0);
    this._setState("waiting");
    this._timers.retry = setTimeout(() => this._open(), waitMs);
  }

  /** Between when and when to come back where the server has not said it. */
  _wait() {
    const { base_ms, max_ms, jitter } = this.hello?.reconnect ?? DEFAULT_POLICY;
    const most = Math.min(base_ms * 2 ** Math.min(this._failures - 1, 30), max_ms);
    return [most * (1 - jitter), most];
  }

  _end(error) {
    const socket = this._socket;
    this._socket = null;
    this._stopTimers();
    try {
      socket?.close(1000);
    } catch {
      // Not even open.
    }
    for (const { reject, timer } of this._asked.values()) {
      clearTimeout(timer);
      reject(new NoAnswer(error.message));
    }
    this._asked.clear();
    for (const key of [...this._sends.keys()]) this._settleSend(key, "reject", error);
    this._arrival?.reject(error);
    this.error = error;
    this._setState("closed");
  }

  _stopTimers() {
    clearTimeout(this._timers.connect);
    clearTimeout(this._timers.refresh);
    clearTimeout(this._timers.retry);
    clearInterval(this._timers.heartbeat);
  }

  // What is known.

  _isNew(id) {
    if (this._seen.has(id)) return false;
    this._seen.add(id);
    if (this._seen.size > SEEN_MAX) this._seen.delete(this._seen.values().next().value);
    return true;
  }

  /** Of two states of a user the one with the larger version is the newer. */
  _isNewer(user, version) {
    if (version === undefined) return true;
    if (version <= (this._versions.get(user) ?? -1)) return false;
    // Of those one does not watch nothing comes by itself.
    if (this._watched.has(user)) this._versions.set(user, version);
    return true;
  }

  _learn(users) {
    for (const [user, { version }] of Object.entries(users ?? {})) this._isNewer(user, version);
  }

  _setState(state) {
    if (this.state === state) return;
    this.state = state;
    this._emit("state", state);
  }

  _emit(event, detail) {
    for (const listener of this._listeners.get(event) ?? []) {
      try {
        listener(detail);
      } catch (error) {
        // A listener's failure is its own: the connection goes on.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

function deferred() {
  let resolve, reject;
  const promise = new Promise((resolved, rejected) => {
    resolve = resolved;
    reject = rejected;
  });
  return { promise, resolve, reject };
}

/** Text that no other client has: keys must not meet those of an earlier life on this device. */
function randomText() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
