// What is shown of conversations. Keeps what is on the screen where it is: who clicks, reads or selects is not
// disturbed by what comes.

const at = (id) => document.getElementById(id);

function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A text in its own direction, whatever stands beside it. */
function words(className, text) {
  const element = made("bdi", className, text);
  element.dir = "auto";
  return element;
}

function change(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ---- the list of conversations

function entry(talk) {
  if (talk.entry) return talk.entry;
  const parts = { item: made("li"), button: made("button"), dot: made("span", talk.isRoom ? "dot room" : "dot"), unread: made("span", "unread") };
  parts.button.type = "button";
  parts.dot.setAttribute("role", "img");
  if (talk.isRoom || talk.isServer) parts.dot.setAttribute("aria-label", talk.isRoom ? "room" : "notices");
  if (talk.isRoom) parts.dot.textContent = "#";
  parts.button.append(parts.dot, words("name", talk.isServer ? talk.title : talk.name), parts.unread);
  parts.button.addEventListener("click", () => choose(talk));
  parts.item.append(parts.button);
  talk.entry = parts;
  return parts;
}

function drawTalks() {
  const list = at("talks");
  let unread = 0;
  for (const talk of talks.values()) {
    const parts = entry(talk);
    parts.button.setAttribute("aria-current", String(talk === chosen));
    if (!talk.isRoom && !talk.isServer) {
      parts.dot.dataset.on = String(talk.online === true);
      parts.dot.setAttribute("aria-label", talk.online ? "online" : "offline");
    }
    parts.unread.hidden = talk.unread === 0;
    change(parts.unread, String(talk.unread));
    parts.unread.setAttribute("aria-label", `${talk.unread} unread`);
    if (parts.item.parentElement !== list) list.append(parts.item);
    unread += talk.unread;
  }
  for (const item of [...list.children]) {
    if (![...talks.values()].some((talk) => talk.entry?.item === item)) item.remove();
  }
  document.title = (unread ? `(${unread}) ` : "") + "dunlin chat";
}

/** What has news stands first, but not under somebody's pointer. */
function raise(talk) {
  const list = at("talks");
  if (list.matches(":hover, :focus-within")) return;
  list.prepend(entry(talk).item);
}

// ---- one conversation

const isAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 80;

function drawTalk(talk) {
  at("talk").hidden = !talk;
  at("nothing").hidden = Boolean(talk);
  at("skip").hidden = !talk || talk.isServer;
  if (!talk) return;
  change(at("title"), talk.title);
  at("close-talk").textContent = talk.isRoom ? "Leave" : "Close";
  at("say").hidden = talk.isServer;
  at("messages").replaceChildren(...talk.lines.map(row));
  at("log").scrollTop = talk.scroll ?? at("log").scrollHeight;
  drawBelow();
  drawAbout();
}

function drawAbout() {
  if (!chosen) return;
  change(at("about"), about(chosen));
  drawTyping();
}

function about(talk) {
  if (talk.lost) return "you are not in this room any more";
  if (talk.isRoom) {
    if (talk.members) return `${talk.members.length}${talk.more ? " and more" : ""} here: ${talk.members.map((name) => `\u2068${name}\u2069`).join(", ")}`;
    return talk.count === null ? "" : `${talk.count} here`;
  }
  if (talk.isServer || talk.online === null) return "";
  const devices = talk.online ? (talk.devices ?? []).map((device) => device.kind || device.id) : [];
  return talk.online ? `online${devices.length ? ` on ${devices.join(", ")}` : ""}` : "offline";
}

function drawTyping() {
  const now = Date.now();
  const who = chosen ? [...chosen.typing].filter(([, until]) => until > now).map(([user]) => user) : [];
  change(at("typing"), who.length ? `${who.slice(0, 3).join(", ")} ${who.length === 1 ? "is" : "are"} typing…` : "");
}

function row(line) {
  const item = made("li");
  line.item = item;
  if (line.note) {
    item.className = "note";
    item.textContent = line.note;
    return item;
  }
  if (line.from === me) item.classList.add("mine");
  if (line.state) item.classList.add(line.state);
  if (line.from !== me || line.inRoom) item.append(words("by", line.from ?? "server"));
  item.append(words("", line.text));
  const when = made("time", "when");
  when.dateTime = new Date(line.time).toISOString();
  when.textContent = new Date(line.time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    + (line.state === "waiting" ? " · sending" : line.state === "failed" ? ` · ${line.why}` : line.nobody ? " · nobody is there" : "");
  item.append(when);
  if (line.state === "failed") {
    const button = made("button", "again", line.again ? "Send again" : "Edit");
    button.type = "button";
    button.addEventListener("click", () => (line.again ? sayAgain(line) : edit(line)));
    item.append(button);
  }
  return item;
}

function drawLine(talk, line, gone) {
  const log = at("log");
  const follows = isAtEnd(log) || line.from === me;
  const before = log.scrollHeight;
  gone?.item?.remove();
  // What was above is gone: who reads on is to see the same lines.
  if (!follows) log.scrollTop -= before - log.scrollHeight;
  at("messages").append(row(line));
  if (follows) log.scrollTop = log.scrollHeight;
  else if (!line.note) talk.below += 1;
  drawBelow();
}

function drawAgain(line) {
  if (!line.item?.isConnected) return;
  const log = at("log");
  const follows = isAtEnd(log);
  line.item.replaceWith(row(line));
  if (follows) log.scrollTop = log.scrollHeight;
}

/** Tells who reads older lines that there are newer ones. */
function drawBelow() {
  if (isAtEnd(at("log"))) chosen.below = 0;
  at("newer").hidden = chosen.below === 0;
  change(at("newer"), `${chosen.below} new ↓`);
}

at("log").addEventListener("scroll", () => { if (chosen) drawBelow(); });
at("newer").addEventListener("click", () => { at("log").scrollTop = at("log").scrollHeight; });
