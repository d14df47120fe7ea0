// What a dashboard says of a server: numbers for people, and what happened between two looks at its status.
// Touches no page.

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
