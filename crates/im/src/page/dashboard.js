// The dashboard: asks for the status once a second and draws what it says. Keeps the key in this tab alone.

const POLL_MS = 1_000;
const ANSWER_MS = 5_000;
const TRY_AGAIN_MAX_MS = 5_000;
const KEEP_MS = 900_000;
/** Quantiles are of so long a time, so that a quiet server has some. */
const QUANTILE_MS = 10_000;
/** Longer between two looks: nobody knows what was in between, and no line says so. */
const GAP_MS = 3_500;
const LINES_MAX = 8;
const LANES_MAX = 16;
const EVENTS_MAX = 100;
const KEY = "dunlin-api-key";
const SVG = "http://www.w3.org/2000/svg";

const $ = (id) => document.getElementById(id);

// ---- Numbers for people

const count = (value) => (value === null || value === undefined ? "–" : value < 100 ? String(Math.round(value * 10) / 10) : value < 10_000 ? value.toFixed(0) : scaled(value, 1_000, ["", "k", "M", "G", "T"]).join(" "));
const bytes = (value) => scaled(value, 1_024, ["B", "KiB", "MiB", "GiB", "TiB"]);
const percent = (value) => [value >= 0.0995 || value === 0 ? (value * 100).toFixed(0) : (value * 100).toFixed(1), "%"];

function scaled(value, step, units) {
  let at = 0;
  while (Math.abs(value) >= step && at < units.length - 1) { value /= step; at += 1; }
  return [value >= 100 || at === 0 ? String(Math.round(value)) : value.toFixed(1).replace(/\.0$/, ""), units[at]];
}

function seconds(value) {
  if (value === null || value === undefined) return ["–", ""];
  const [many, unit] = value < 1e-3 ? [value * 1e6, "µs"] : value < 1 ? [value * 1e3, "ms"] : [value, "s"];
  return [many >= 100 ? many.toFixed(0) : many >= 10 ? many.toFixed(0) : many.toFixed(1).replace(/\.0$/, ""), unit];
}

function lasting(ms) {
  const s = Math.floor(ms / 1_000), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  return d ? `${d} d ${h % 24} h` : h ? `${h} h ${m % 60} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
}

const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const joined = ([value, unit]) => (unit ? `${value} ${unit}` : value);

// ---- From two looks at the status to what happened between them

/** The value that `share` of the times did not exceed, in seconds; null where there were none. */
function quantile(share, boundsUs, counts) {
  const all = counts.reduce((sum, one) => sum + one, 0);
  if (all === 0) return null;
  let rank = share * all;
  for (let at = 0; at < counts.length; at += 1) {
    if (rank <= counts[at] && counts[at] > 0) {
      const from = at === 0 ? 0 : boundsUs[at - 1];
      const to = at < boundsUs.length ? boundsUs[at] : from;
      return (from + ((to - from) * rank) / counts[at]) / 1e6;
    }
    rank -= counts[at];
  }
  return boundsUs.at(-1) / 1e6;
}

const less = (now, before) => now.map((value, at) => Math.max(0, value - (before?.[at] ?? 0)));
const added = (lists) => lists.reduce((sum, list) => sum.map((value, at) => value + list[at]));
const sum = (list, field) => list.reduce((all, one) => all + (one[field] ?? 0), 0);
const same = (a, b) => a && b && a.pid === b.pid && a.started_at === b.started_at;

/** What the charts show of a moment; rates are null without a look before. */
function point(look, before, earlier) {
  const { status } = look;
  const workers = status.workers;
  const passed = before ? (status.uptime_ms - before.status.uptime_ms) / 1_000 : 0;
  const rate = (now, then) => (passed > 0 ? Math.max(0, now - then) / passed : null);
  const was = before?.status.workers;
  const each = (field) => workers.map((worker, at) => (was ? rate(worker[field], was[at][field]) : null));
  const of = (field) => (was ? rate(sum(workers, field), sum(was, field)) : null);
  // The kernel counts processor time in steps of 10 ms: over a second they would jump.
  const long = earlier?.status.workers;
  const times = (field) => workers.map((worker, at) => (long ? less(worker[field].counts, long[at][field].counts) : worker[field].counts.map(() => 0)));
  const latency = added(times("latency"));
  return {
    at: look.at,
    connections: workers.map((worker) => worker.connections),
    in: of("messages_in"), out: of("messages_out"), bytesIn: of("bytes_in"), bytesOut: of("bytes_out"),
    ins: each("messages_in"), outs: each("messages_out"),
    p50: quantile(0.5, status.bounds_us, latency), p99: quantile(0.99, status.bounds_us, latency),
    turns: times("turns").map((counts) => quantile(0.99, status.bounds_us, counts)),
    // A process that was replaced begins at nothing.
    cpu: workers.map((worker, at) => {
      const since = [earlier, before].find((one) => one?.status.workers[at].pid === worker.pid && status.uptime_ms > one.status.uptime_ms);
      return since ? Math.max(0, worker.cpu_ms - since.status.workers[at].cpu_ms) / (status.uptime_ms - since.status.uptime_ms) : null;
    }),
    lives: workers.map((worker) => ({ life: worker.generation, state: worker.state })),
  };
}

/** What happened between two looks, as sentences with a kind. */
function happened(now, before) {
  const marks = [];
  const mark = (kind, short, text) => marks.push({ kind, short, text });
  const more = (pointer) => pointer(now) - pointer(before);
  if (!same(now, before)) {
    mark("restart", "restart", "The server was started anew");
    return marks;
  }
  if (more((status) => status.reloads.done) > 0) {
    const { took_ms: took, adopted } = now.last_reload;
    mark("reload", "reload", `Reload applied${took === null ? "" : ` in ${joined(seconds(took / 1_000))}, ${adopted} connections handed on`}`);
  }
  if (more((status) => status.reloads.refused) > 0) mark("refused", "reload refused", `Reload refused: ${now.last_reload.error ?? "see the log"}`);
  if (more((status) => status.upgrades.done) > 0) mark("upgrade", "upgrade", `Upgraded to ${now.version}`);
  if (more((status) => status.upgrades.refused) > 0) mark("refused", "upgrade refused", `Upgrade refused: ${now.last_upgrade.error ?? "see the log"}`);
  const named = (status) => [
    ...status.workers.map((worker) => [`worker ${worker.slot}`, worker]),
    ...status.tasks.map((task) => [`task process ${task.slot}`, task]),
    ...status.processes.map((process) => [process.name === "timer" ? "the timer process" : `process ${process.name}`, process]),
  ];
  const old = new Map(named(before));
  for (const [name, process] of named(now)) {
    for (const [reason, total] of Object.entries(process.deaths)) {
      if (total > (old.get(name)?.deaths[reason] ?? total)) mark("death", name, `${name[0].toUpperCase()}${name.slice(1)} died: ${DEATHS[reason] ?? reason}`);
    }
  }
  return marks;
}

const DEATHS = { killed: "killed by SIGKILL", crashed: "crashed by a signal", exited: "it exited", stuck: "stuck, killed by the master" };
const ENDS = {
  1000: "closed in good order", 1001: "going away", 1002: "broke the protocol", 1003: "sent what is not taken", 1005: "closed, no code", 1006: "broke off",
  1007: "was no UTF-8", 1008: "against the rules", 1009: "message too large", 1011: "an error inside", 1012: "its worker died", 1013: "too slow, or a pool full",
  4002: "silent for too long", 4501: "no login in time", 4502: "token expired or refused", 4510: "replaced by another device", 4511: "kicked", none: "plain HTTP", other: "other codes",
};

// ---- Charts

const node = (name, attributes = {}, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const html = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

/** Round numbers from 0 to over `most`. */
function ticks(most, step = 1_000) {
  const goal = Math.max(most, 1e-9) / 3;
  const power = step === 1_024 && most >= 1_024 ? 1_024 ** Math.floor(Math.log(goal) / Math.log(1_024)) : 1;
  const unit = 10 ** Math.floor(Math.log10(goal / power)) * power;
  const size = [1, 2, 2.5, 5, 10].map((many) => many * unit).find((size) => size >= goal);
  return Array.from({ length: Math.ceil(most / size - 1e-9) + 1 || 2 }, (_, at) => at * size);
}

const LEFT = 56, RIGHT = 10, TOP = 14, BOTTOM = 20;
const charts = [];
let cursor = null;

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.figure = html("figure", spec.lanes ? "wide" : "");
    this.figure.id = `chart-${spec.id}`;
    this.figure.tabIndex = 0;
    const caption = html("figcaption");
    const title = html("h2", "", spec.title);
    title.id = `title-${spec.id}`;
    this.legend = html("div", "legend");
    caption.append(title, html("span", "unit", spec.unit), this.legend);
    this.svg = node("svg", { class: "plot", role: "img", "aria-labelledby": title.id });
    this.said = html("p", "sr");
    this.said.setAttribute("aria-live", "polite");
    this.figure.append(caption, this.svg, this.said);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => choose(null));
    this.figure.addEventListener("keydown", (event) => this.step(event));
    this.figure.addEventListener("blur", () => choose(null));
    $("charts").append(this.figure);
    charts.push(this);
  }

  names() { return this.spec.names(view.status); }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    const at = view.from + share * (view.to - view.from);
    choose(nearest(at), this, event.clientX, event.clientY);
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (event.key === "Escape") return choose(null);
    if (!by || points.length === 0) return;
    event.preventDefault();
    const now = cursor ? points.indexOf(cursor) : points.length;
    const next = points[Math.max(0, Math.min(points.length - 1, now + by))];
    const box = this.svg.getBoundingClientRect();
    choose(next, this, box.left + this.x(next.at), box.top + 30);
    this.said.textContent = `${clock(next.at)}: ${this.names().map((name, at) => `${name} ${this.spec.told(this.spec.values(next)[at])}`).join(", ")}`;
  }

  x(at) { return LEFT + ((at - view.from) / (view.to - view.from)) * (this.width - LEFT - RIGHT); }

  draw() {
    this.width = Math.max(200, this.svg.clientWidth || 400);
    const names = this.names();
    this.height = this.spec.lanes ? 40 + 26 * names.length : 168;
    this.svg.style.height = `${this.height}px`;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren();
    const shown = points.filter((one) => one.at >= view.from - GAP_MS);
    this.axis();
    if (this.spec.lanes) this.drawLanes(names, shown);
    else this.drawLines(names, shown);
    this.drawMarks();
    this.drawCursor();
    if (!this.spec.lanes) this.tell(names, shown.at(-1));
  }

  /** Times below, every so many seconds as there is room for. */
  axis() {
    const room = (this.width - LEFT - RIGHT) / 76;
    const step = [5, 10, 15, 30, 60, 120, 300, 600].map((s) => s * 1_000).find((ms) => (view.to - view.from) / ms <= room) ?? 600_000;
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const x = this.x(at);
      this.svg.append(node("line", { x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM, class: "grid" }));
      if (x > LEFT + 20 && x < this.width - 24) this.svg.append(node("text", { x, y: this.height - 5, "text-anchor": "middle" }, step < 60_000 ? clock(at) : clock(at).slice(0, 5)));
    }
  }

  drawLines(names, shown) {
    const { spec } = this;
    const all = shown.map((one) => spec.values(one));
    const values = all.flat().filter((value) => value !== null);
    const low = this.height - BOTTOM;
    let y;
    if (spec.log) {
      const from = Math.floor(Math.log10(Math.min(1e-4, ...values.filter((value) => value > 0)) * 1.0001));
      const to = Math.max(from + 2, Math.ceil(Math.log10(Math.max(1e-3, ...values))));
      y = (value) => low - ((Math.log10(Math.max(value, 10 ** from)) - from) / (to - from)) * (low - TOP);
      for (let power = from; power <= to; power += 1) this.level(y(10 ** power), spec.told(10 ** power), power === from);
    } else {
      const most = Math.max(spec.least ?? 1, ...(spec.stack ? all.map((row) => row.reduce((total, one) => total + (one ?? 0), 0)) : values));
      const marks = ticks(most, spec.step);
      y = (value) => low - (value / marks.at(-1)) * (low - TOP);
      for (const mark of marks) this.level(y(mark), spec.told(mark), mark === 0);
    }
    const below = shown.map(() => 0);
    names.forEach((_, at) => {
      const line = [], area = [];
      let run = [];
      const end = () => {
        if (run.length > 0) {
          line.push(`M${run.map(([x, , top]) => `${x},${top}`).join("L")}${run.length === 1 ? "h1" : ""}`);
          area.push(`M${run.map(([x, , top]) => `${x},${top}`).join("L")}L${[...run].reverse().map(([x, bottom]) => `${x},${bottom}`).join("L")}Z`);
        }
        run = [];
      };
      shown.forEach((one, index) => {
        if (index > 0 && one.at - shown[index - 1].at > GAP_MS) end();
        const value = all[index][at];
        if (value === null) return end();
        const from = spec.stack ? below[index] : 0;
        run.push([this.x(one.at).toFixed(1), y(from).toFixed(1), y(from + value).toFixed(1)]);
        if (spec.stack) below[index] += value;
      });
      end();
      if (spec.stack) this.svg.append(node("path", { d: area.join(""), class: `area s${at % LINES_MAX}` }));
      this.svg.append(node("path", { d: line.join(""), class: `trace s${at % LINES_MAX}` }));
    });
  }

  level(y, text, base) {
    this.svg.append(node("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: base ? "base" : "grid" }), node("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, text));
  }

  /** A bar for each life of each worker. */
  drawLanes(names, shown) {
    names.forEach((name, lane) => {
      const y = TOP + 6 + lane * 26;
      this.svg.append(node("text", { x: LEFT - 7, y: y + 14, "text-anchor": "end", class: "lane" }, name));
      let begin = 0;
      const bar = (from, to) => {
        const { life, state } = shown[from].lives[lane];
        const [x1, x2] = [Math.max(LEFT, this.x(shown[from].at)), this.x(shown[Math.min(to, shown.length - 1)].at)];
        if (x2 < LEFT) return;
        const down = !["running", "starting", "resting"].includes(state);
        this.svg.append(node("rect", { x: x1, y, width: Math.max(2, x2 - x1), height: 19, rx: 3, class: `life${life % 2 ? " odd" : ""}${down ? " down" : ""}` }));
        const text = down ? state : `life ${life}`;
        if (x2 - x1 > 44) this.svg.append(node("text", { x: (x1 + x2) / 2, y: y + 13.5, "text-anchor": "middle", class: "gen" }, text));
      };
      for (let index = 1; index <= shown.length; index += 1) {
        const last = index === shown.length;
        const gap = !last && shown[index].at - shown[index - 1].at > GAP_MS;
        const differs = !last && (shown[index].lives[lane]?.life !== shown[begin].lives[lane].life || (shown[index].lives[lane].state !== shown[begin].lives[lane].state && [shown[index], shown[begin]].some((one) => one.lives[lane].state.startsWith("crash"))));
        if (last || gap || differs) { bar(begin, last || gap ? index - 1 : index); begin = index; }
      }
    });
  }

  drawMarks() {
    let right = -Infinity;
    for (const mark of marks.filter((one) => one.at >= view.from && one.at <= view.to)) {
      const x = this.x(mark.at);
      this.svg.append(
        node("line", { x1: x, x2: x, y1: TOP - 4, y2: this.height - BOTTOM, class: `mark ${mark.kind}` }),
        node("path", { d: `M${x - 4},${TOP - 10}h8l-4,7z`, class: `flag ${mark.kind}` }),
      );
      if (!this.spec.lanes) continue;
      const text = node("text", { y: TOP - 3, class: `named ${mark.kind}` }, mark.kind === "death" ? `${mark.short} died` : mark.short);
      this.svg.append(text);
      const wide = text.getComputedTextLength() + 8;
      const before = x + wide > this.width;
      const from = before ? x - wide : x + 8;
      text.setAttribute("x", from);
      // What has no room beside the one before stands in the list of events.
      if (from < right) text.remove();
      else right = from + wide + 8;
    }
  }

  drawCursor() {
    this.svg.querySelector(".cursor")?.remove();
    if (!cursor || cursor.at < view.from) return;
    const x = this.x(cursor.at);
    this.svg.append(node("line", { x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM, class: "cursor" }));
  }

  tell(names, last) {
    const values = last ? this.spec.values(last) : [];
    this.legend.replaceChildren(...names.map((name, at) => {
      const entry = html("span", `s${at % LINES_MAX}`, `${name} `);
      entry.append(html("b", "", this.spec.told(values[at] ?? null)));
      return entry;
    }));
    this.svg.setAttribute("aria-label", `${this.spec.title}, ${this.spec.unit}: ${names.map((name, at) => `${name} ${this.spec.told(values[at] ?? null)}`).join(", ")}. Arrow keys go back in time.`);
  }
}

const nearest = (at) => points.reduce((best, one) => (best && Math.abs(best.at - at) <= Math.abs(one.at - at) ? best : one), null);

/** The moment all charts show, and its values beside the pointer. */
function choose(moment, chart, x, y) {
  cursor = moment;
  charts.forEach((one) => one.drawCursor());
  const tip = $("tip");
  tip.hidden = !moment;
  if (!moment) return;
  tip.replaceChildren(html("p", "", clock(moment.at)));
  const table = html("table");
  chart.names().forEach((name, at) => {
    const row = html("tr", `s${at % LINES_MAX}`);
    row.append(html("td", "", name), html("td", "n", chart.spec.told(chart.spec.values(moment)[at])));
    table.append(row);
  });
  tip.append(table);
  for (const mark of marks.filter((one) => Math.abs(one.at - moment.at) <= 2 * POLL_MS)) tip.append(html("p", "", mark.text));
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - width - 16 : x + 16)}px`;
  tip.style.top = `${Math.max(4, Math.min(y, innerHeight - height - 8))}px`;
}

const few = (status) => status.workers.length <= LINES_MAX;
const workerNames = (status) => (few(status) ? status.workers.map((worker) => `worker ${worker.slot}`) : ["highest", "middle", "lowest"]);
const workerValues = (values) => {
  if (values.length <= LINES_MAX) return values;
  const known = values.filter((value) => value !== null).sort((a, b) => b - a);
  return [known[0], known[Math.floor(known.length / 2)], known.at(-1)].map((value) => value ?? null);
};
const told = {
  count, rate: count, seconds: (value) => joined(seconds(value)),
  bytes: (value) => (value === null ? "–" : joined(bytes(value))),
  percent: (value) => (value === null || value === undefined ? "–" : percent(value).join(" ")),
};

function makeCharts() {
  const specs = [
    { id: "lives", title: "Workers by generation", unit: "a bar is one process; marks are reloads and deaths", lanes: true, names: (status) => status.workers.slice(0, LANES_MAX).map((worker) => `worker ${worker.slot}`), values: (one) => one.lives.map(({ life, state }) => `life ${life}, ${state}`), told: (text) => text },
    { id: "connections", title: "Connections", unit: "open, stacked", stack: true, names: (status) => (few(status) ? workerNames(status) : ["all workers"]), values: (one) => (one.connections.length <= LINES_MAX ? one.connections : [one.connections.reduce((a, b) => a + b)]), told: told.count, least: 4 },
    { id: "messages", title: "Messages", unit: "per second", names: () => ["from clients", "to clients"], values: (one) => [one.in, one.out], told: told.rate, least: 4 },
    { id: "latency", title: "Message latency", unit: "inside the server, 10 s", log: true, names: () => ["p50", "p99"], values: (one) => [one.p50, one.p99], told: told.seconds },
    { id: "bytes", title: "Traffic", unit: "bytes per second", names: () => ["received", "sent"], values: (one) => [one.bytesIn, one.bytesOut], told: told.bytes, step: 1_024, least: 1_024 },
    { id: "turns", title: "Turn time", unit: "p99 of 10 s", log: true, names: workerNames, values: (one) => workerValues(one.turns), told: told.seconds },
    { id: "cpu", title: "Processor", unit: "share of one core, 10 s", names: workerNames, values: (one) => workerValues(one.cpu), told: told.percent, least: 0.04 },
  ];
  specs.forEach((spec) => new Chart(spec));
}

// ---- Figures, tables, events

function tiles(status, now) {
  const connections = sum(status.workers, "connections");
  const fill = status.sessions.used / status.sessions.capacity;
  const cpu = now.cpu.reduce((all, one) => all + (one ?? 0), 0);
  const memory = sum(status.workers, "rss_bytes");
  const rows = [
    ["Connections", [count(connections)], `peak ${count(status.sessions.peak)} sessions`, "connections"],
    ["Logged in", [count(status.sessions.logged_in)], `${count(status.rooms?.used ?? 0)} rooms`, "logged-in"],
    ["From clients", [count(now.in), "/s"], `${joined(bytes(now.bytesIn ?? 0))}/s`, "in"],
    ["To clients", [count(now.out), "/s"], `${joined(bytes(now.bytesOut ?? 0))}/s`, "out"],
    ["Latency p99", seconds(now.p99), now.p50 === null ? "no message in 10 s" : `p50 ${joined(seconds(now.p50))}`, "latency"],
    ["Session table", percent(fill), `${count(status.sessions.used)} of ${count(status.sessions.capacity)}`, "table"],
    ["Processor", percent(cpu), `of ${status.workers.length} workers`, "cpu"],
    ["Memory", bytes(memory), "of all workers", "memory"],
  ];
  $("tiles").replaceChildren(...rows.map(([name, [value, unit], beside, id]) => {
    const box = html("div");
    const figure = html("dd", "", value);
    figure.id = `now-${id}`;
    if (unit) figure.append(html("small", "", unit));
    box.append(html("dt", "", name), figure, html("dd", "beside", beside));
    return box;
  }));
}

function workers(status, now) {
  $("workers").tBodies[0].replaceChildren(...status.workers.map((worker, at) => {
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
  $("fill").replaceChildren(...items);
}

function ends(status) {
  const totals = {};
  for (const worker of status.workers) for (const [code, many] of Object.entries(worker.closed_by_code)) totals[code] = (totals[code] ?? 0) + many;
  const rows = Object.entries(totals).sort((a, b) => b[1] - a[1]);
  const cells = rows.length ? rows.map(([code, many]) => [code === "none" || code === "other" ? "–" : code, ENDS[code] ?? "", count(many)]) : [["–", "none yet", ""]];
  $("ends").tBodies[0].replaceChildren(...cells.map(([code, text, many]) => {
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
  const near = fits && look.at - last.at <= 2 * TRY_AGAIN_MAX_MS ? last : null;
  const earlier = near && looks.findLast((one) => look.at - one.at >= QUANTILE_MS) || (near && looks[0]);
  const now = point(look, near, earlier);
  looks = [...looks.filter((one) => look.at - one.at <= 2 * QUANTILE_MS), look];
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
}

async function ask() {
  const mine = ++asking;
  let answer = null;
  try {
    answer = await fetch("/api/status", { headers: { Authorization: `Bearer ${key}` }, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
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
    if (view.status) link("away", `The server ${why}: trying again`);
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

/** Back to the door: the key is forgotten. */
function shut(why) {
  asking += 1;
  clearTimeout(timer);
  key = null;
  kept?.removeItem(KEY);
  [looks, points, marks] = [[], [], []];
  view.status = null;
  $("events").firstElementChild.replaceChildren();
  $("no-events").hidden = false;
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
$("leave").addEventListener("click", () => shut(""));
$("span").addEventListener("change", () => { view.span = Number($("span").value); if (view.status) show(); });
addEventListener("resize", () => { if (view.status) show(); });
key = kept?.getItem(KEY) ?? null;
if (key) ask();
