// The dashboard: asks for the status once a second and shows what it says. Keeps the key in this tab alone.

const POLL_MS = 1_000;
const ANSWER_MS = 5_000;
const TRY_AGAIN_MAX_MS = 5_000;
const KEEP_MS = 900_000;
/** Quantiles are of so long a time, so that a quiet server has some. */
const QUANTILE_MS = 10_000;
const EVENTS_MAX = 100;
const KEY = "dunlin-api-key";

// ---- Figures, tables, events

/**
 * Makes these the children of an element, and touches only what differs: what somebody has selected stays so.
 */
function settle(parent, wanted) {
  const old = [...parent.childNodes];
  wanted.forEach((node, at) => {
    const there = old[at];
    if (!there) return parent.append(node);
    if (there.isEqualNode(node)) return undefined;
    const inside = node.children?.length && there.nodeName === node.nodeName && there.className === node.className;
    return inside ? settle(there, [...node.childNodes]) : there.replaceWith(node);
  });
  old.slice(wanted.length).forEach((node) => node.remove());
}

const known = (value, say) => (value === null ? "–" : say(value));

function tiles(status, now) {
  const connections = sum(status.workers, "connections");
  const fill = status.sessions.used / status.sessions.capacity;
  const cpu = now.cpu.every((one) => one === null) ? null : now.cpu.reduce((all, one) => all + (one ?? 0), 0);
  // What took longer than the last bound took nobody knows how long.
  const isOver = now.p99 !== null && now.p99 >= status.bounds_us.at(-1) / 1e6;
  const memory = sum(status.workers, "rss_bytes");
  const rows = [
    ["Connections", [count(connections)], `peak ${count(status.sessions.peak)} sessions`, "connections"],
    ["Logged in", [count(status.sessions.logged_in)], `${count(status.rooms?.used ?? 0)} rooms`, "logged-in"],
    ["From clients", [count(now.in), "/s"], `${known(now.bytesIn, told.bytes)}/s`, "in"],
    ["To clients", [count(now.out), "/s"], `${known(now.bytesOut, told.bytes)}/s`, "out"],
    ["Latency p99", isOver ? [`> ${seconds(now.p99)[0]}`, "s"] : seconds(now.p99), now.in === null ? "not known yet" : now.p50 === null ? "no message in 10 s" : `p50 ${joined(seconds(now.p50))}`, "latency"],
    ["Session table", percent(fill), `${count(status.sessions.used)} of ${count(status.sessions.capacity)}`, "table"],
    ["Processor", cpu === null ? ["–", ""] : percent(cpu), `of ${status.workers.length} workers`, "cpu"],
    ["Memory", bytes(memory), "of all workers", "memory"],
  ];
  settle($("tiles"), rows.map(([name, [value, unit], beside, id]) => {
    const box = html("div");
    const figure = html("dd", "", value);
    figure.id = `now-${id}`;
    if (unit) figure.append(html("small", "", unit));
    box.append(html("dt", "", name), figure, html("dd", "beside", beside));
    return box;
  }));
}

function workers(status, now) {
  settle($("workers").tBodies[0], status.workers.map((worker, at) => {
    const row = html("tr");
    const state = html("td");
    state.append(html("span", `is ${worker.state}`, worker.state.replace("_", " ")));
    if (worker.stood_in_by !== null) state.append(` (worker ${worker.stood_in_by} stands in)`);
    const deaths = Object.values(worker.deaths).reduce((all, one) => all + one, 0);
    const cells = [worker.pid || "–", worker.generation, count(worker.connections), count(now.ins[at]), count(now.outs[at]), joined(seconds(now.turns[at])), joined(bytes(worker.mailbox_depth + worker.spilled_bytes)), joined(bytes(worker.rss_bytes)), told.percent(now.cpu[at]), deaths];
    row.append(html("td", "", String(worker.slot)), state, ...cells.map((value) => html("td", "n", String(value))));
    return row;
  }));
}

function fill(status) {
  const { sessions, rooms, presence, idempotency, descriptors, backend } = status;
  const rows = [
    ["Session table", sessions.used, sessions.capacity], ["Receive pool", (sessions.pool_blocks - sessions.pool_blocks_free) * 1_024, sessions.pool_blocks * 1_024, told.bytes],
    ["Rooms", rooms?.used, rooms?.capacity], ["Room members", rooms?.members, rooms?.members_capacity], ["Watches", presence?.watches, presence?.watches_capacity],
    ["Idempotency keys", idempotency?.kept, idempotency?.capacity], ["Descriptors", descriptors.open, descriptors.limit],
  ];
  if (backend?.configured) rows.push(["Backend queue", backend.queued_bytes, backend.queue_bytes, told.bytes]);
  const items = rows.filter((row) => row[2] > 0).map(([name, used, of, say = count]) => {
    const item = html("li");
    const bar = html("div", used / of > 0.9 ? "bar high" : "bar");
    bar.setAttribute("role", "meter");
    bar.setAttribute("aria-label", name);
    for (const [key, value] of [["valuemin", 0], ["valuemax", of], ["valuenow", used]]) bar.setAttribute(`aria-${key}`, value);
    const inner = html("i");
    inner.style.width = `${Math.min(100, (used / of) * 100)}%`;
    bar.append(inner);
    item.append(html("span", "", name), html("span", "of", `${say(used)} of ${say(of)}`), bar);
    return item;
  });
  const leans = [];
  if (status.redis?.configured) leans.push(["Redis", status.redis.connected ? "connected" : `away: ${status.redis.last_error ?? "no answer"}`]);
  if (backend?.configured) leans.push(["Backend", backend.circuit === "closed" ? "answers" : `left alone: ${backend.last_error ?? "no answer"}`]);
  for (const [name, text] of leans) {
    const item = html("li");
    item.append(html("span", "", name), html("span", "of", text));
    items.push(item);
  }
  settle($("fill"), items);
}

function ends(status) {
  const totals = {};
  for (const worker of status.workers) for (const [code, many] of Object.entries(worker.closed_by_code)) totals[code] = (totals[code] ?? 0) + many;
  const rows = Object.entries(totals).sort((a, b) => b[1] - a[1]);
  const cells = rows.length ? rows.map(([code, many]) => [code === "none" || code === "other" ? "–" : code, ENDS[code] ?? "", count(many)]) : [["–", "none yet", ""]];
  settle($("ends").tBodies[0], cells.map(([code, text, many]) => {
    const row = html("tr");
    row.append(html("td", "", code), html("td", "", text), html("td", "n", many));
    return row;
  }));
}

function note(mark) {
  marks.push(mark);
  const item = html("li", mark.kind);
  const time = html("time", "", clock(mark.at));
  time.dateTime = new Date(mark.at).toISOString();
  item.append(time, html("span", "", mark.text));
  const events = $("events").firstElementChild;
  events.prepend(item);
  while (events.children.length > EVENTS_MAX) events.lastChild.remove();
  $("no-events").hidden = true;
}

// ---- The loop

let key = null, timer = 0, failures = 0, asking = 0;
let looks = [], points = [], marks = [];
const view = { status: null, from: 0, to: 1, span: 300_000 };
const kept = (() => { try { return window.sessionStorage; } catch { return null; } })();

function show() {
  view.to = Date.now();
  view.from = view.to - view.span;
  charts.forEach((chart) => chart.draw());
}

function take(status) {
  const look = { at: Date.now(), status };
  const last = looks.at(-1);
  const fits = last && same(last.status, status) && last.status.workers.length === status.workers.length;
  if (last) happened(status, last.status).forEach((mark) => note({ ...mark, at: look.at }));
  if (last && !fits) looks = [];
  if (last && last.status.workers.length !== status.workers.length) points = [];
  // However long ago: a tab in the background looks once a minute, and the rate since then is as true.
  const near = fits ? last : null;
  const earlier = near && looks.findLast((one) => look.at - one.at >= QUANTILE_MS) || (near && looks[0]);
  const now = point(look, near, earlier);
  looks = [...looks.filter((one) => one === last || look.at - one.at <= 2 * QUANTILE_MS), look];
  points = [...points.filter((one) => look.at - one.at <= KEEP_MS), now];
  marks = marks.filter((one) => look.at - one.at <= KEEP_MS);
  view.status = status;
  $("state").textContent = status.state;
  $("state").dataset.state = status.state;
  $("facts").textContent = `${status.version} · up ${lasting(status.uptime_ms)} · ${status.listen.join(", ")} · pid ${status.pid}`;
  document.title = `${count(sum(status.workers, "connections"))} connections · dunlin dashboard`;
  tiles(status, now);
  workers(status, now);
  fill(status);
  ends(status);
}

function link(state, text) {
  if ($("link").textContent !== text) $("link").textContent = text;
  $("link").dataset.link = state;
  $("board").toggleAttribute("data-stale", state === "away");
  if (state !== "away") return;
  $("state").textContent = $("state").dataset.state = "away";
  document.title = "away · dunlin dashboard";
}

async function ask() {
  const mine = ++asking;
  let answer = null;
  try {
    answer = await fetch(new URL("api/status", location.href), { headers: { Authorization: `Bearer ${key}` }, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (answer.status === 401) return shut("This key does not open the server. It changes when the server is started anew, unless http.api_key_file holds it.");
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const status = await answer.json();
    if (mine !== asking) return;
    if (!enter()) return;
    failures = 0;
    take(status);
    link("live", "live");
  } catch (error) {
    if (mine !== asking) return;
    failures += 1;
    const wait = Math.min(TRY_AGAIN_MAX_MS, POLL_MS * failures);
    const why = answer && !answer.ok ? `answers ${answer.status}` : "does not answer";
    if (!$("board").hidden) link("away", `The server ${why}: trying again`);
    else $("door-error").textContent = `The server ${why}. Trying again.`;
    timer = setTimeout(ask, wait);
    if (view.status) show();
    return;
  }
  show();
  timer = setTimeout(ask, POLL_MS);
}

function enter() {
  if (!key) return false;
  if ($("board").hidden) {
    kept?.setItem(KEY, key);
    $("door").hidden = true;
    $("board").hidden = false;
    $("door-error").textContent = "";
    $("key").value = "";
  }
  return true;
}

/** Back to the door: the key is forgotten. What was seen stays for who comes in again, unless he asked to go. */
function shut(why, forgets = false) {
  asking += 1;
  clearTimeout(timer);
  key = null;
  kept?.removeItem(KEY);
  if (forgets) {
    [looks, points, marks] = [[], [], []];
    view.status = null;
    $("events").firstElementChild.replaceChildren();
    $("no-events").hidden = false;
  }
  $("board").hidden = true;
  $("door").hidden = false;
  $("door-error").textContent = why;
  document.title = "dunlin dashboard";
  $("key").focus();
}

makeCharts();
$("open").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  $("door-error").textContent = "";
  key = $("key").value.trim();
  // No header can carry anything else.
  if (!/^[\x21-\x7e]+$/.test(key)) return shut("This is no key: it has letters, digits and signs, and no space.");
  failures = 0;
  ask();
});
$("leave").addEventListener("click", () => shut("", true));
$("span").addEventListener("change", () => { view.span = Number($("span").value); if (view.status) show(); });
// A tab in the background is seldom let look.
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !key) return;
  clearTimeout(timer);
  ask();
});
addEventListener("resize", () => { if (view.status) show(); });
key = kept?.getItem(KEY) ?? null;
if (key) ask();
