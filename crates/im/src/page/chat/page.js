// The chat page: logging in and out, and what is typed. The connection is the client's above (dunlin.js).

const SIGNAL_EVERY_MS = 2_000; // one word of typing
/** The server wants a token in place of a name. */
const byToken = document.documentElement.dataset.auth === "token";
const field = $(byToken ? "token" : "name");

let lastSignal = 0;
let lastBye = "";

const random = () => [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** One device id a tab, kept over reloads of the page: a login from another tab must not end this one. */
async function deviceId() {
  const kept = sessionStorage.getItem("dunlin.device");
  const id = kept && (await isMine(kept)) ? kept : `web-${random()}`;
  if (id !== kept) await isMine(id);
  sessionStorage.setItem("dunlin.device", id);
  return id;
}

const locked = new Set();

/** A tab that was duplicated has the other's id, too: who holds its lock keeps it. Where there are no locks, all do. */
function isMine(id) {
  if (!navigator.locks || locked.has(id)) return true;
  return new Promise((resolve) => {
    navigator.locks.request(`dunlin.device.${id}`, { ifAvailable: true }, (lock) => {
      resolve(Boolean(lock));
      if (!lock) return undefined;
      locked.add(id);
      return new Promise(() => {}); // until the tab is closed
    });
  });
}

// ---- logging in and out

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = byToken ? field.value.replace(/\s+/g, "") : field.value.trim();
  if (typed) enter(byToken ? { token: typed } : { user: typed });
  else field.focus();
});

$("token").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("login").requestSubmit();
});

async function enter(who) {
  client?.close();
  client = null;
  $("login-error").textContent = "";
  const device = { id: await deviceId(), model: navigator.platform || "browser", kind: "browser" };
  if (client) return; // Pressed twice: the first goes on.
  const url = new URL("ws", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = new Dunlin(url.href, { ...who, device });
  client = mine;
  const on = (event, does) => mine.on(event, (news) => { if (client === mine) does(news); });
  on("state", showState);
  on("message", heard);
  on("signal", signalled);
  on("presence", presenceNews);
  on("joined", (news) => roomNews(news, "joined"));
  on("left", (news) => roomNews(news, "left"));
  on("room", counted);
  on("bye", ({ reason }) => {
    lastBye = reason;
    if (chosen) add(chosen, { note: `The server says: ${reason}` });
  });
  on("lost", lost);
  try {
    const login = await mine.connect();
    if (client !== mine) return;
    await arrive(login);
  } catch (error) {
    if (client !== mine) return;
    mine.close();
    client = null;
    leaveHouse();
    $("login-error").textContent = said(error);
  }
}

async function arrive(login) {
  if (login.user !== me) forget();
  me = login.user;
  for (const talk of talks.values()) talk.entered = false;
  $("me-name").textContent = me;
  $("token").value = "";
  if (!byToken) sessionStorage.setItem("dunlin.user", me);
  $("door").hidden = true;
  $("house").hidden = false;
  $("house").dataset.view = chosen ? "talk" : "side";
  const kept = remembered();
  const named = (login.rooms ?? []).map((room) => "#" + room);
  for (const key of new Set([...named, ...kept.keys, ...talks.keys()])) await open(key, false);
  const last = talks.get(chosen?.key ?? kept.chosen);
  if (last && last !== chosen) choose(last);
  else $(chosen ? "text" : "peer").focus();
}

function forget() {
  talks.clear();
  outgoing.length = Math.min(outgoing.length, 1);
  choose(null);
  $("text").value = "";
}

function leaveHouse() {
  $("house").hidden = true;
  $("door").hidden = false;
  field.focus();
}

$("logout").addEventListener("click", () => {
  client?.close();
  client = null;
  forget();
  me = "";
  for (const what of ["talks", "user"]) sessionStorage.removeItem(`dunlin.${what}`);
  $("token").value = "";
  leaveHouse();
});

$("again").addEventListener("click", () => {
  if (byToken) leaveHouse();
  else enter({ user: me });
});

const STATES = { idle: "", connecting: "connecting…", online: "online", waiting: "connection lost, coming back…", closed: "closed" };
const AT_THE_DOOR = { connecting: "Connecting…", waiting: "The server does not answer. Trying again…" };

function showState(state) {
  if (!$("door").hidden) $("login-error").textContent = AT_THE_DOOR[state] ?? "";
  $("state").textContent = STATES[state] + (state === "closed" && lastBye ? `: ${lastBye}` : "");
  $("state").dataset.state = state === "online" ? "online" : "offline";
  $("again").hidden = state !== "closed";
  $("say").querySelector("button").disabled = state === "closed";
  if (state === "online") talks.forEach(refresh);
}

// The network is there again, or somebody looks: not after the wait, but now.
addEventListener("online", () => client?.wake());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  client?.wake();
  if (chosen) { chosen.unread = 0; drawTalks(); }
});

// ---- conversations

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const typed = $("peer").value.trim();
  const isRoom = typed.startsWith("#");
  const name = isRoom ? typed.slice(1).trim() : typed;
  if (name && (await open((isRoom ? "#" : "@") + name, true))) $("peer").value = "";
});

async function open(key, andChoose) {
  $("start-error").textContent = "";
  try {
    const talk = await enterTalk(key);
    refresh(talk);
    drawTalks();
    if (andChoose) choose(talk);
    return true;
  } catch (error) {
    $("start-error").textContent = said(error);
    return false;
  }
}

$("close-talk").addEventListener("click", async () => {
  const talk = chosen;
  if (talk.isRoom) leaving.add(talk.key);
  talks.delete(talk.key);
  choose(null);
  $("peer").focus();
  if (talk.isServer) return;
  await (talk.isRoom ? client.leave(talk.name) : client.unwatch([talk.name])).catch(() => {});
  leaving.delete(talk.key);
});

/** On a small screen a conversation covers the list, and the browser's Back leads there. */
const isSmall = matchMedia("(max-width: 44rem)");
$("back").addEventListener("click", () => { if (history.state?.talk) history.back(); else goBack(); });
addEventListener("popstate", () => { if (chosen && isSmall.matches) goBack(); });

function goBack() {
  choose(null);
  $("peer").focus();
}

function choose(talk) {
  if (chosen) {
    chosen.draft = $("text").value;
    chosen.scroll = isAtEnd($("log")) ? null : $("log").scrollTop;
  }
  chosen = talk;
  $("house").dataset.view = talk ? "talk" : "side";
  if (talk && isSmall.matches && !history.state?.talk) history.pushState({ talk: true }, "");
  if (talk) talk.unread = 0;
  $("text").value = talk?.draft ?? "";
  drawTalk(talk);
  grow();
  if (talk && !talk.isServer) $("text").focus();
  drawTalks();
  if (me) remember();
}

// ---- what is typed

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !chosen || !client || client.state === "closed") return;
  $("text").value = "";
  lastSignal = 0; // the next word is news
  grow();
  const line = { from: me, text, key: `page-${random()}`, time: Date.now(), state: "waiting", inRoom: chosen.isRoom };
  add(chosen, line);
  send(chosen, line);
});

/** Under its key, so that it is there once if it was there before. */
function sayAgain(line) {
  line.state = "waiting";
  drawAgain(line);
  send(chosen, line);
}

/** What will never be taken as it is goes back to where it was typed. */
function edit(line) {
  chosen.lines.splice(chosen.lines.indexOf(line), 1);
  line.item.remove();
  $("text").value = [line.text, $("text").value].filter(Boolean).join("\n");
  grow();
  $("text").focus();
}

$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("say").requestSubmit();
  }
});

$("text").addEventListener("input", () => {
  grow();
  const now = Date.now();
  if (chosen && client && $("text").value && now - lastSignal > SIGNAL_EVERY_MS) {
    lastSignal = now;
    client.signal(chosen.to, { typing: true }).catch(() => {});
  }
});

function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight}px`;
}

$("by-name").hidden = byToken;
$("by-token").hidden = !byToken;
field.focus();
const before = byToken ? null : sessionStorage.getItem("dunlin.user");
if (before) {
  field.value = before;
  enter({ user: before });
}
