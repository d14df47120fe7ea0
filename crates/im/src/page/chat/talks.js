// Conversations, and what the server tells of them. Draws nothing: it says what is to be drawn (view.js).

const TYPING_FOR_MS = 4_000; // how long one is believed
const KEPT_PER_TALK = 500; // messages shown of one conversation
const MEMBERS_MAX = 1_000; // names asked for of one room
const INVALID_PARAMS = -32602;
/** What the server itself says stands apart: a user may have any name. */
const FROM_SERVER = "!server";

/** A conversation: with a user (@), in a room (#), or what the server says (!). */
class Talk {
  constructor(key) {
    this.key = key;
    this.name = key.slice(1);
    this.isRoom = key[0] === "#";
    this.isServer = key[0] === "!";
    this.lines = [];
    this.unread = 0;
    this.below = 0; // lines that came while older ones were read
    this.scroll = null; // where it was read, if not at its end
    this.draft = "";
    this.online = null;
    this.devices = [];
    this.members = null;
    this.more = false; // there are more members than these
    this.count = null; // sessions in the room, where it is told
    this.entered = false; // joined, or watched
    this.lost = false; // no member any more, without having left
    this.typing = new Map(); // user → when it is no longer believed
  }
  get title() { return this.isServer ? "From the server" : (this.isRoom ? "#" : "") + this.name; }
  get to() { return this.isRoom ? { room: this.name } : { user: this.name }; }
}

let client = null;
let me = "";
let chosen = null;
const talks = new Map();
/** Rooms that are being left: what still comes of them is not told. */
const leaving = new Set();

function talkOf(key) {
  if (!talks.has(key)) {
    talks.set(key, new Talk(key));
    remember();
  }
  return talks.get(key);
}

/** Of this user in this tab: who logs in after him has his own. */
function remember() {
  const keys = [...talks.keys()].filter((key) => key !== FROM_SERVER);
  sessionStorage.setItem("dunlin.talks", JSON.stringify({ user: me, keys, chosen: chosen?.key ?? null }));
}

function remembered() {
  try {
    const kept = JSON.parse(sessionStorage.getItem("dunlin.talks"));
    return kept.user === me ? kept : { keys: [], chosen: null };
  } catch { return { keys: [], chosen: null }; }
}

/** Joins or watches, once. Throws where there can be no such conversation. */
async function enterTalk(key) {
  const there = talks.get(key);
  if (there?.entered && !there.lost) return there;
  let known = {};
  if (key[0] === "#") {
    leaving.delete(key);
    known = { count: (await client.join(key.slice(1))).count };
  } else if (key[0] === "@") {
    known = await watch(key.slice(1)).catch((error) => {
      // No more may be watched, or nobody answers: one can talk all the same.
      if (error.code === INVALID_PARAMS) throw error;
      return {};
    });
  }
  // Something may have come in the meantime, and have made it.
  return Object.assign(talkOf(key), known, { entered: true, lost: false });
}

async function watch(user) {
  const { online, devices } = (await client.watch([user])).users[user];
  return { online, devices };
}

/** What may have changed while nobody told: after coming in, and after coming back. */
async function refresh(talk) {
  try {
    if (talk.isRoom) {
      const names = [];
      let cursor;
      do {
        const page = await client.members(talk.name, cursor === undefined ? {} : { cursor });
        names.push(...page.members);
        cursor = page.cursor;
      } while (cursor !== undefined && names.length < MEMBERS_MAX);
      Object.assign(talk, { members: names, more: cursor !== undefined });
    } else if (!talk.isServer) {
      const { users } = await client.presence([talk.name]);
      ({ online: talk.online, devices: talk.devices } = users[talk.name]);
    }
    drawTalks();
    if (talk === chosen) drawAbout();
  } catch { /* the next change tells */ }
}

// ---- what comes

/** What a message of another program than this page looks like. */
function textOf(body) {
  if (typeof body === "string") return body;
  return typeof body?.text === "string" ? body.text : JSON.stringify(body);
}

function add(talk, line) {
  talk.lines.push(line);
  const gone = talk.lines.length > KEPT_PER_TALK ? talk.lines.shift() : null;
  if (talk === chosen) drawLine(talk, line, gone);
}

function heard({ from, to, body, time, id }) {
  const user = from?.user ?? null;
  const key = to.room !== undefined ? "#" + to.room : user === null ? FROM_SERVER : "@" + (user === me ? to.user : user);
  if (leaving.has(key)) return;
  const isNew = !talks.has(key);
  const talk = talkOf(key);
  if (isNew && key[0] === "@") enterTalk(key).then(() => { drawTalks(); drawAbout(); }).catch(() => {});
  talk.typing.delete(user);
  // Written to oneself: shown when it was typed, and its answer may still be on the way.
  const toMyself = user === me && talk.name === me && !talk.isRoom;
  const mine = toMyself && talk.lines.find((line) => line.state === "waiting" && line.text === textOf(body));
  if (mine) mine.id = id;
  if (talk.lines.some((line) => line.id === id)) return;
  if (talk !== chosen || document.hidden) talk.unread += 1;
  add(talk, { id, from: user, text: textOf(body), time, inRoom: talk.isRoom });
  if (talk === chosen) drawTyping();
  raise(talk);
  drawTalks();
}

function signalled({ from, to, body }) {
  if (!body?.typing || from.user === me) return;
  const talk = talks.get(to.room !== undefined ? "#" + to.room : "@" + from.user);
  if (!talk) return;
  talk.typing.set(from.user, Date.now() + TYPING_FOR_MS);
  drawTyping();
  setTimeout(drawTyping, TYPING_FOR_MS + 50);
}

function presenceNews({ user, online, devices }) {
  const talk = talks.get("@" + user);
  if (!talk) return;
  Object.assign(talk, { online, devices });
  drawTalks();
  if (talk === chosen) drawAbout();
}

function roomNews(news, what) {
  const talk = talks.get("#" + news.room);
  if (!talk) return;
  const users = news.users ?? (news.user ? [news.user] : []);
  users.filter((user) => user !== me).forEach((user) => add(talk, { note: `${user} ${what}` }));
  refresh(talk);
}

/** A large room tells how many are there, and not who. */
function counted({ room, count }) {
  const talk = talks.get("#" + room);
  if (!talk) return;
  Object.assign(talk, { members: null, count });
  if (talk === chosen) drawAbout();
}

/** Not joined or watched again after coming back. */
function lost({ room, error }) {
  const talk = room !== undefined && talks.get("#" + room);
  if (!talk) return;
  Object.assign(talk, { lost: true, members: null, count: null });
  add(talk, { note: `You are not in this room any more: ${error.message}` });
  if (talk === chosen) drawAbout();
}

// ---- what is said

/** Lines on their way, in their order: one at a time, so that a refused one does not fall behind. */
const outgoing = [];
let isSending = false;

async function send(talk, line) {
  outgoing.push([talk, line]);
  if (isSending) return;
  isSending = true;
  while (outgoing.length) await sendOne(...outgoing[0]).then(() => outgoing.shift());
  isSending = false;
}

async function sendOne(talk, line) {
  for (;;) {
    const mine = client;
    try {
      if (!mine) throw new NoAnswer("logged out");
      const sent = await mine.send(talk.to, line.text, { key: line.key });
      Object.assign(line, { id: sent.id, time: sent.time, state: "", nobody: !talk.isRoom && sent.sessions === 0 });
    } catch (error) {
      if (error.retryAfterMs !== undefined && mine === client) {
        await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs + 10));
        continue;
      }
      Object.assign(line, { state: "failed", why: said(error), again: error instanceof NoAnswer });
    }
    return drawAgain(line);
  }
}

/** An error for people: what a program calls the body is the message to them. */
function said(error) {
  const text = error?.message?.replace(/^params\.body/, "the message").replace(/^params\./, "");
  return text ? text[0].toUpperCase() + text.slice(1) + "." : "That did not work.";
}
