// The chat page: what is shown, and what is typed. The connection is the client's above (dunlin.js).

const at = (id) => document.getElementById(id);
const SIGNAL_EVERY_MS = 2_000; // one word of typing
const TYPING_FOR_MS = 4_000; // how long one is believed
const KEPT_PER_TALK = 500; // messages shown of one conversation

/** A conversation: with a user, or in a room. */
class Talk {
  constructor(name, isRoom) {
    this.name = name;
    this.isRoom = isRoom;
    this.lines = [];
    this.unread = 0;
    this.online = null;
    this.devices = [];
    this.members = null;
    this.count = null; // sessions in the room, where it is told
    this.typing = new Map(); // user → when it is no longer believed
  }
  get key() { return (this.isRoom ? "#" : "@") + this.name; }
  get title() { return (this.isRoom ? "#" : "") + this.name; }
  get to() { return this.isRoom ? { room: this.name } : { user: this.name }; }
}

let client = null;
let me = "";
let chosen = null;
let lastSignal = 0;
let lastBye = "";
const talks = new Map();
/** The server wants a token in place of a name. */
const byToken = document.documentElement.dataset.auth === "token";

/** One device id a tab, kept over reloads of the page: a login from another tab must not end this one. */
function deviceId() {
  let id = sessionStorage.getItem("dunlin.device");
  if (!id) {
    id = "web-" + [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("dunlin.device", id);
  }
  return id;
}

// ---- logging in and out

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = at(byToken ? "token" : "name");
  const typed = field.value.trim();
  if (typed) enter(byToken ? { token: typed } : { user: typed });
  else field.focus();
});

async function enter(who) {
  at("login-error").textContent = "";
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  client = new Dunlin(`${scheme}//${location.host}/ws`, {
    ...who,
    device: { id: deviceId(), model: navigator.platform || "browser", kind: "browser" },
  });
  client.on("state", showState);
  client.on("message", heard);
  client.on("signal", signalled);
  client.on("presence", presenceNews);
  client.on("joined", (news) => roomNews(news, "joined"));
  client.on("left", (news) => roomNews(news, "left"));
  client.on("room", ({ room, count }) => counted(room, count));
  client.on("bye", ({ reason }) => { lastBye = reason; note(`The server says: ${reason}`); });
  client.on("lost", ({ room, users, error }) => note(`Not ${room ? `in #${room}` : `told of ${users.join(", ")}`} any more: ${error.message}`));
  try {
    const login = await client.connect();
    me = login.user;
    at("me-name").textContent = me;
    at("door").hidden = true;
    at("house").hidden = false;
    at("house").dataset.view = "side";
    const kept = JSON.parse(sessionStorage.getItem("dunlin.talks") || "[]");
    const named = (login.rooms ?? []).map((room) => "#" + room);
    for (const key of new Set([...named, ...kept])) await open(key, false);
    at("peer").focus();
  } catch (error) {
    client.close();
    client = null;
    at("login-error").textContent = said(error);
  }
}

at("logout").addEventListener("click", () => {
  client?.close();
  client = null;
  talks.clear();
  choose(null);
  showTalks();
  sessionStorage.removeItem("dunlin.talks");
  at("house").hidden = true;
  at("door").hidden = false;
  at(byToken ? "token" : "name").focus();
});

function said(error) {
  return error?.message ? error.message[0].toUpperCase() + error.message.slice(1) + "." : "That did not work.";
}

const STATES = { idle: "", connecting: "connecting…", online: "online", waiting: "connection lost, coming back…", closed: "closed" };

function showState(state) {
  at("state").textContent = STATES[state] + (state === "closed" && lastBye ? `: ${lastBye}` : "");
  at("state").dataset.state = state === "online" ? "online" : "offline";
  at("say").querySelector("button").disabled = state === "closed";
  if (state === "online") talks.forEach(refresh);
}

// ---- conversations

at("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const typed = at("peer").value.trim();
  const isRoom = typed.startsWith("#");
  const name = isRoom ? typed.slice(1).trim() : typed;
  if (!name) return;
  if (await open((isRoom ? "#" : "@") + name, true)) at("peer").value = "";
});

async function open(key, andChoose) {
  at("start-error").textContent = "";
  const talk = talks.get(key) ?? new Talk(key.slice(1), key[0] === "#");
  try {
    if (!talks.has(key)) {
      if (talk.isRoom) talk.count = (await client.join(talk.name)).count;
      else await watch(talk);
      talks.set(key, talk);
      remember();
    }
    refresh(talk);
    showTalks();
    if (andChoose) choose(talk);
    return true;
  } catch (error) {
    at("start-error").textContent = said(error);
    return false;
  }
}

async function watch(talk) {
  const { users } = await client.watch([talk.name]);
  ({ online: talk.online, devices: talk.devices } = users[talk.name]);
}

/** What may have changed while nobody told: after coming in, and after coming back. */
async function refresh(talk) {
  try {
    if (talk.isRoom) {
      const { members, cursor } = await client.members(talk.name);
      talk.members = cursor === undefined ? members : null;
    } else {
      const { users } = await client.presence([talk.name]);
      ({ online: talk.online, devices: talk.devices } = users[talk.name]);
    }
    showTalks();
    if (talk === chosen) showAbout();
  } catch { /* the next change tells */ }
}

function remember() {
  sessionStorage.setItem("dunlin.talks", JSON.stringify([...talks.keys()]));
}

at("close-talk").addEventListener("click", async () => {
  const talk = chosen;
  talks.delete(talk.key);
  remember();
  choose(null);
  showTalks();
  at("peer").focus();
  await (talk.isRoom ? client.leave(talk.name) : client.unwatch([talk.name])).catch(() => {});
});

at("back").addEventListener("click", () => { choose(null); at("peer").focus(); });

function choose(talk) {
  chosen = talk;
  at("house").dataset.view = talk ? "talk" : "side";
  at("talk").hidden = !talk;
  at("nothing").hidden = Boolean(talk);
  if (talk) {
    talk.unread = 0;
    at("title").textContent = talk.title;
    at("close-talk").textContent = talk.isRoom ? "Leave" : "Close";
    at("messages").replaceChildren(...talk.lines.map(row));
    at("log").scrollTop = at("log").scrollHeight;
    showAbout();
    at("text").focus();
  }
  showTalks();
}

function showTalks() {
  const rows = [...talks.values()].map((talk) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-current", String(talk === chosen));
    const dot = document.createElement("span");
    dot.className = talk.isRoom ? "dot room" : "dot";
    if (talk.isRoom) dot.textContent = "#";
    else dot.dataset.on = String(talk.online === true);
    dot.setAttribute("role", "img");
    dot.setAttribute("aria-label", talk.isRoom ? "room" : talk.online ? "online" : "offline");
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = talk.name;
    button.append(dot, name);
    if (talk.unread) {
      const unread = document.createElement("span");
      unread.className = "unread";
      unread.textContent = talk.unread;
      unread.setAttribute("aria-label", `${talk.unread} unread`);
      button.append(unread);
    }
    button.addEventListener("click", () => choose(talk));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  at("talks").replaceChildren(...rows);
  const unread = [...talks.values()].reduce((sum, talk) => sum + talk.unread, 0);
  document.title = (unread ? `(${unread}) ` : "") + "dunlin chat";
}

function showAbout() {
  if (!chosen) return;
  const about = chosen.isRoom
    ? chosen.members ? `${chosen.members.length} here: ${chosen.members.join(", ")}`
      : chosen.count === null ? "" : `${chosen.count} here`
    : chosen.online === null ? "" : chosen.online
      ? `online${chosen.devices?.length ? " on " + chosen.devices.map((device) => device.kind || device.id).join(", ") : ""}`
      : "offline";
  at("about").textContent = about || "";
  showTyping();
}

// ---- messages

/** What a message of another program than this page looks like. */
function textOf(body) {
  if (typeof body === "string") return body;
  return typeof body?.text === "string" ? body.text : JSON.stringify(body);
}

function row(line) {
  const item = document.createElement("li");
  if (line.note) {
    item.className = "note";
    item.textContent = line.note;
    return item;
  }
  if (line.from === me) item.classList.add("mine");
  if (line.state) item.classList.add(line.state);
  if (line.from !== me || line.inRoom) {
    const by = document.createElement("span");
    by.className = "by";
    by.textContent = line.from ?? "server";
    item.append(by);
  }
  item.append(line.text);
  const when = document.createElement("time");
  when.className = "when";
  when.dateTime = new Date(line.time).toISOString();
  when.textContent = new Date(line.time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    + (line.state === "waiting" ? " · sending" : line.state === "failed" ? ` · ${line.why}` : line.nobody ? " · nobody is there" : "");
  item.append(when);
  line.item = item;
  return item;
}

function add(talk, line) {
  talk.lines.push(line);
  if (talk.lines.length > KEPT_PER_TALK) talk.lines.shift().item?.remove();
  if (talk === chosen) {
    const log = at("log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    at("messages").append(row(line));
    if (atEnd || line.from === me) log.scrollTop = log.scrollHeight;
  }
}

function note(text) {
  if (chosen) add(chosen, { note: text });
}

async function heard(message) {
  const { from, to, body, time, id } = message;
  const key = to.room !== undefined ? "#" + to.room : "@" + (from?.user === me ? to.user : from?.user ?? "server");
  if (!talks.has(key)) {
    const talk = new Talk(key.slice(1), key[0] === "#");
    talks.set(key, talk);
    remember();
    if (!talk.isRoom && from) watch(talk).then(() => { showTalks(); showAbout(); }).catch(() => {});
  }
  const talk = talks.get(key);
  talk.typing.delete(from?.user);
  // Written to oneself: shown when it was typed, and its answer may still be on the way.
  const mine = from?.user === me && talk.lines.find((line) => line.state === "waiting" && line.text === textOf(body));
  if (mine) mine.id = id;
  if (talk.lines.some((line) => line.id === id)) return;
  add(talk, { id, from: from?.user ?? null, text: textOf(body), time, inRoom: talk.isRoom });
  if (talk !== chosen || document.hidden) talk.unread += 1;
  if (talk === chosen) showTyping();
  showTalks();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && chosen) { chosen.unread = 0; showTalks(); }
});

async function say(text) {
  const talk = chosen;
  const line = { from: me, text, time: Date.now(), state: "waiting", inRoom: talk.isRoom };
  add(talk, line);
  try {
    const sent = await client.send(talk.to, text);
    line.id = sent.id;
    line.time = sent.time;
    line.state = "";
    line.nobody = !talk.isRoom && sent.sessions === 0;
  } catch (error) {
    line.state = "failed";
    line.why = said(error);
  }
  const shown = line.item;
  if (shown?.isConnected) shown.replaceWith(row(line));
}

at("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!text || !chosen || !client) return;
  at("text").value = "";
  lastSignal = 0; // the next word is news
  grow();
  say(text);
});

at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("say").requestSubmit();
  }
});

at("text").addEventListener("input", () => {
  grow();
  const now = Date.now();
  if (chosen && at("text").value && now - lastSignal > SIGNAL_EVERY_MS) {
    lastSignal = now;
    client.signal(chosen.to, { typing: true }).catch(() => {});
  }
});

function grow() {
  at("text").style.height = "auto";
  at("text").style.height = `${at("text").scrollHeight}px`;
}

// ---- what others do

function signalled({ from, to, body }) {
  if (!body?.typing || from.user === me) return;
  const talk = talks.get(to.room !== undefined ? "#" + to.room : "@" + from.user);
  if (!talk) return;
  talk.typing.set(from.user, Date.now() + TYPING_FOR_MS);
  showTyping();
  setTimeout(showTyping, TYPING_FOR_MS + 50);
}

function showTyping() {
  const now = Date.now();
  const who = chosen ? [...chosen.typing].filter(([, until]) => until > now).map(([user]) => user) : [];
  at("typing").textContent = who.length ? `${who.slice(0, 3).join(", ")} ${who.length === 1 ? "is" : "are"} typing…` : "";
}

function presenceNews({ user, online, devices }) {
  const talk = talks.get("@" + user);
  if (!talk) return;
  talk.online = online;
  talk.devices = devices;
  showTalks();
  if (talk === chosen) showAbout();
}

function roomNews(news, what) {
  const talk = talks.get("#" + news.room);
  if (!talk) return;
  const users = news.users ?? (news.user ? [news.user] : []);
  users.filter((user) => user !== me).forEach((user) => add(talk, { note: `${user} ${what}` }));
  refresh(talk);
}

/** A large room tells how many are there, and not who. */
function counted(room, count) {
  const talk = talks.get("#" + room);
  if (!talk) return;
  talk.members = null;
  talk.count = count;
  if (talk === chosen) showAbout();
}

at("by-name").hidden = byToken;
at("by-token").hidden = !byToken;
at(byToken ? "token" : "name").focus();
