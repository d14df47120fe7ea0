// Lines, areas and lanes over time, with one cursor in all of them.

/** Longer between two looks: nobody knows what was in between, and no line says so. */
const GAP_MS = 3_500;
const LINES_MAX = 8;
const LANES_MAX = 16;
const SVG = "http://www.w3.org/2000/svg";

const node = (name, attributes = {}, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
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
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    // A finger is lifted to read what it has shown.
    this.svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") choose(null); });
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
