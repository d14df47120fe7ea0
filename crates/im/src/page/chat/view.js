// What is shown of conversations. Keeps what is on the screen where it is: who clicks, reads or selects is not
// disturbed by what comes.

/** A text in its own direction, whatever stands beside it. */
function words(className, text) {
  const element = html("bdi", className, text);
  element.dir = "auto";
  return element;
}

function change(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ---- the list of conversations

function entry(talk) {
  if (talk.entry) return talk.entry;
  const parts = { item: html("li"), button: html("button"), dot: html("span", talk.isRoom ? "dot room" : "dot"), unread: html("span", "unread") };
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
  const list = $("talks");
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
  const list = $("talks");
  if (list.matches(":hover, :focus-within")) return;
  list.prepend(entry(talk).item);
}

// ---- one conversation

const isAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 80;

function drawTalk(talk) {
  $("talk").hidden = !talk;
  $("nothing").hidden = Boolean(talk);
  $("skip").hidden = !talk || talk.isServer;
  if (!talk) return;
  change($("title"), talk.title);
  $("close-talk").textContent = talk.isRoom ? "Leave" : "Close";
  $("say").hidden = talk.isServer;
  $("messages").replaceChildren(...talk.lines.map(row));
  $("log").scrollTop = talk.scroll ?? $("log").scrollHeight;
  drawBelow();
  drawAbout();
}

function drawAbout() {
  if (!chosen) return;
  change($("about"), about(chosen));
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
  change($("typing"), who.length ? `${who.slice(0, 3).join(", ")} ${who.length === 1 ? "is" : "are"} typing…` : "");
}

function row(line) {
  const item = html("li");
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
  const when = html("time", "when");
  when.dateTime = new Date(line.time).toISOString();
  when.textContent = new Date(line.time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    + (line.state === "waiting" ? " · sending" : line.state === "failed" ? ` · ${line.why}` : line.nobody ? " · nobody is there" : "");
  item.append(when);
  if (line.state === "failed") {
    const button = html("button", "again", line.again ? "Send again" : "Edit");
    button.type = "button";
    button.addEventListener("click", () => (line.again ? sayAgain(line) : edit(line)));
    item.append(button);
  }
  return item;
}

function drawLine(talk, line, gone) {
  const log = $("log");
  const follows = isAtEnd(log) || line.from === me;
  const before = log.scrollHeight;
  gone?.item?.remove();
  // What was above is gone: who reads on is to see the same lines.
  if (!follows) log.scrollTop -= before - log.scrollHeight;
  $("messages").append(row(line));
  if (follows) log.scrollTop = log.scrollHeight;
  else if (!line.note) talk.below += 1;
  drawBelow();
}

function drawAgain(line) {
  if (!line.item?.isConnected) return;
  const log = $("log");
  const follows = isAtEnd(log);
  line.item.replaceWith(row(line));
  if (follows) log.scrollTop = log.scrollHeight;
}

/** Tells who reads older lines that there are newer ones. */
function drawBelow() {
  if (isAtEnd($("log"))) chosen.below = 0;
  $("newer").hidden = chosen.below === 0;
  change($("newer"), `${chosen.below} new ↓`);
}

$("log").addEventListener("scroll", () => { if (chosen) drawBelow(); });
$("newer").addEventListener("click", () => { $("log").scrollTop = $("log").scrollHeight; });
