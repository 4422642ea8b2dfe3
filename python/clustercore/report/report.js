"use strict";
// Everything the page does. Texts from the data are only ever set as text, never as markup.
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  // A script that fails says so on the page, since nobody looks at a console.
  const failures = [];
  const fail = (message) => {
    failures.push(String(message));
    root.dataset.errors = JSON.stringify(failures);
    const place = byId("failure");
    place.textContent = "A part of this page failed: " + failures[0];
    place.hidden = false;
  };
  addEventListener("error", (event) => fail(event.message));
  addEventListener("unhandledrejection", (event) => fail(event.reason));

  const MINUS = "\u2212", DASH = "\u2013", DAY = 86400000;
  const data = JSON.parse(byId("report-data").textContent);
  const { sessions, trades, equity } = data;
  const sessionCount = sessions.date.length;
  const tradeCount = trades.net.length;

  // Text ------------------------------------------------------------------------------------

  const number = (value, decimals = 2, sign = false) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
    const text = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
    if (!/[1-9]/.test(text)) return text;
    return (value < 0 ? MINUS : sign ? "+" : "") + text;
  };
  const price = (value) => number(value, data.decimals);
  const words = (text) => (text === null ? DASH : text.replaceAll("_", " "));
  const plural = (count, one, many = one + "s") => `${number(count, 0)} ${count === 1 ? one : many}`;

  /** New York's offset from UTC at an instant, from the transitions that came with the data. */
  const offsetAt = (ms) => {
    const list = data.offsets;
    let place = list.length - 1;
    while (place > 0 && list[place][0] > ms) place -= 1;
    return list[place][1];
  };
  const local = (ms) => ms + offsetAt(ms);
  const stamp = (ms) => new Date(ms).toISOString();
  const minutes = (ms) => (ms % 60000 ? 19 : 16);
  const localText = (ms) => stamp(local(ms)).slice(0, minutes(ms)).replace("T", " ");
  const localTime = (ms) => stamp(local(ms)).slice(11, minutes(ms));
  const utcText = (ms) => stamp(ms).slice(0, minutes(ms)).replace("T", " ") + " UTC";
  const bothTimes = (ms) => `${localTime(ms)} New York (${stamp(ms).slice(11, minutes(ms))} UTC)`;
  const longDate = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
  const dateText = (iso) => longDate.format(new Date(iso + "T00:00:00Z"));

  /** The chart library reads a little markup in its texts. */
  const inert = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  const make = (tag, properties = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };

  // Packed data -----------------------------------------------------------------------------

  const bytesOf = (base64) => {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    return bytes;
  };
  const inflate = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const inflateText = async (id) => {
    const node = byId(id);
    const text = new TextDecoder().decode(await inflate(bytesOf(node.textContent)));
    node.remove();
    return text;
  };

  const barText = byId("report-bars").textContent;
  /** The bytes from one place to another of what the base64 text holds. */
  const barBytes = (start, length) => {
    const from = Math.floor(start / 3), to = Math.ceil((start + length) / 3);
    return bytesOf(barText.slice(from * 4, to * 4)).subarray(start - from * 3, start - from * 3 + length);
  };

  /** The twin of decode_bars. Shifts of more than 31 bits do not exist here, so planes are multiplied. */
  const decodeBars = (bytes) => {
    const count = bytes[0] + bytes[1] * 256 + bytes[2] * 65536 + bytes[3] * 16777216;
    let place = 4;
    const column = () => {
      const values = new Float64Array(count);
      const planes = bytes[place];
      place += 1;
      for (let plane = 0, weight = 1; plane < planes; plane += 1, weight *= 256, place += count)
        for (let i = 0; i < count; i += 1) values[i] += bytes[place + i] * weight;
      return values;
    };
    const signed = (values) => values.map((v) => (v % 2 ? -(v + 1) / 2 : v / 2));
    const step = column(), gap = signed(column()), body = signed(column());
    const above = column(), below = column(), volume = column();
    const bars = { start: new Float64Array(count), open: new Float64Array(count), high: new Float64Array(count), low: new Float64Array(count), close: new Float64Array(count), volume };
    let start = 0, close = 0;
    for (let i = 0; i < count; i += 1) {
      start += step[i];
      const open = close + gap[i];
      close = open + body[i];
      bars.start[i] = start;
      bars.open[i] = open;
      bars.close[i] = close;
      bars.high[i] = Math.max(open, close) + above[i];
      bars.low[i] = Math.min(open, close) - below[i];
    }
    return bars;
  };

  const barsOf = async (session) => {
    if (!sessions.length[session]) return null;
    const bars = decodeBars(await inflate(barBytes(sessions.start[session], sessions.length[session])));
    const scale = (values) => values.map((v) => Math.round(v) * data.unit);
    return {
      start: bars.start.map((v) => sessions.first[session] + v * data.interval),
      open: scale(bars.open), high: scale(bars.high), low: scale(bars.low), close: scale(bars.close), volume: bars.volume,
    };
  };

  // `part` is the part of the session that was asked for, `focus` the times to be seen instead of it.
  const state = { session: -1, bars: null, part: null, focus: null, minutes: 0, request: 0, printing: false };

  // Charts ----------------------------------------------------------------------------------

  let colours = {};
  const readColours = () => {
    const style = getComputedStyle(root);
    for (const name of ["paper", "ink", "muted", "rule", "rule-strong", "accent", "accent-soft", "gain", "loss", "candle", "volume", "sans"])
      colours[name] = style.getPropertyValue("--" + name).trim();
  };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const narrow = () => innerWidth < 600;
  const config = { displayModeBar: false, responsive: true, showTips: false, doubleClick: "reset", locale: "en-US" };

  const axis = (title, more = {}) => ({
    title: { text: title, font: { size: 12, color: colours.muted }, standoff: 8 },
    tickfont: { size: 11.5, color: colours.muted },
    gridcolor: colours.rule, zeroline: false, showline: true, linecolor: colours["rule-strong"],
    ticks: "outside", ticklen: 4, tickcolor: colours["rule-strong"], automargin: true, ...more,
  });
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colours.sans, size: 12, color: colours.ink },
    // Paper is narrower than the screen: about this wide on A4 and on Letter.
    ...(state.printing ? { width: 690, height: 340 } : { autosize: true }),
    margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, dragmode: coarse ? false : "zoom",
    hoverlabel: { bgcolor: colours.paper, bordercolor: colours["rule-strong"], font: { family: colours.sans, size: 12.5, color: colours.ink }, align: "left" },
    ...more,
  });

  const drawEquity = () => {
    const balance = equity.balance;
    const few = sessionCount < 3;
    const sessionAt = (ms) => Math.max(0, sessions.open.findLastIndex((open) => open < ms));
    const texts = sessions.date.map((day, i) => `${day}<br>equity ${number(equity.close[i])} USD<br>change ${number(equity.pnl[i], 2, true)} USD, ${plural(sessions.trades[i], "trade")}<br>deepest drawdown ${number(equity.drawdown[i])} USD`);
    const common = { x: sessions.date, type: "scatter", hoverinfo: "text", text: texts, mode: few ? "lines+markers" : "lines" };
    const marks = equity.risk.time.map((ms, i) => [ms, equity.risk.kind[i], equity.risk.reason[i]]).filter((mark) => mark[1] === "halted");
    return Plotly.react("equity-chart", [
      { ...common, y: equity.close, line: { color: colours.accent, width: 1.8 } },
      { ...common, y: equity.drawdown.map((v) => -v), yaxis: "y2", fill: "tozeroy", line: { color: colours.loss, width: 1.2 }, fillcolor: colours.loss + "33" },
      {
        x: marks.map((mark) => sessions.date[sessionAt(mark[0])]), y: marks.map((mark) => equity.close[sessionAt(mark[0])]), type: "scatter", mode: "markers", hoverinfo: "text",
        marker: { symbol: "x-thin", size: 9, line: { width: 2, color: colours.loss } },
        text: marks.map((mark) => `trading halted ${localText(mark[0])} New York<br>${inert(words(mark[2]))}`),
      },
    ], layout({
      xaxis: axis("Trade date", { type: "date", anchor: "y2", gridcolor: "rgba(0,0,0,0)", hoverformat: "%d %b %Y", nticks: narrow() ? 4 : 10 }),
      yaxis: axis("Equity, USD", { domain: [0.34, 1], tickformat: ",.0f" }),
      yaxis2: axis("Drawdown, USD", { domain: [0, 0.26], tickformat: ",.0f", rangemode: "tozero", nticks: 4 }),
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: balance, y1: balance, line: { color: colours["rule-strong"], width: 1, dash: "dot" } }],
      hovermode: "x",
    }), config);
  };

  const drawHistogram = (id, part, title, more, marks) => {
    const width = part.edges.slice(1).map((edge, i) => edge - part.edges[i]);
    const middle = part.edges.slice(1).map((edge, i) => (edge + part.edges[i]) / 2);
    const text = (counts, what) => counts.map((count, i) => `${number(part.edges[i])} to ${number(part.edges[i + 1])}<br>${number(count, 0)} ${what}`);
    const bars = (counts, colour, what) => ({ type: "bar", x: middle, y: counts, width, marker: { color: colour, line: { width: 0.5, color: colours.paper } }, hoverinfo: "text", hovertext: text(counts, what), textposition: "none" });
    return Plotly.react(id, [bars(part.all, colours.volume, "clusters"), bars(part.armed, colours.accent, "armed a signal")], layout({
      barmode: "overlay", bargap: 0,
      margin: { l: 8, r: 8, t: 24, b: 8 },
      xaxis: axis(title, { gridcolor: "rgba(0,0,0,0)", ...more }),
      yaxis: axis("Clusters, count", { tickformat: ",d", rangemode: "tozero" }),
      shapes: marks.map((mark) => ({ type: "line", x0: mark.at, x1: mark.at, yref: "paper", y0: 0, y1: 1, line: { color: colours.ink, width: 1, dash: "dash" } })),
      annotations: marks.map((mark) => ({ x: mark.log ? Math.log10(mark.at) : mark.at, yref: "paper", y: 1, yanchor: "bottom", xanchor: mark.anchor, showarrow: false, text: mark.text, font: { size: 11.5, color: colours.muted } })),
    }), config);
  };

  const drawDistributions = () => {
    if (!byId("position-chart")) return;
    const { position, ratio } = data;
    const marks = [{ at: position.long, text: `long up to ${position.long}`, anchor: "center" }];
    if (position.short !== null) marks.push({ at: position.short, text: `short from ${position.short}`, anchor: "center" });
    drawHistogram("position-chart", position, "Modal position in the window (0 = low, 1 = high)", { range: [-0.02, 1.02] }, marks);
    const steps = [0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000];
    if (ratio.edges.length)
      drawHistogram("ratio-chart", ratio, "Volume ratio (times the usual volume, logarithmic)", { type: "log", tickvals: steps, ticktext: steps.map(String) },
        [{ at: ratio.threshold, log: true, text: `threshold ${ratio.threshold}`, anchor: "left" }]);
  };

  // Sessions --------------------------------------------------------------------------------

  let levels = null;
  const withTrades = [];
  const tradesOf = new Map();
  trades.session.forEach((session, row) => {
    if (session < 0) return;
    if (!tradesOf.has(session)) tradesOf.set(session, []);
    tradesOf.get(session).push(row);
  });
  withTrades.push(...[...tradesOf.keys()].sort((a, b) => a - b));
  let clustersOf = new Map();
  let signalOf = new Map();
  let orderOf = new Map();

  const indexLevels = () => {
    levels.clusters.session.forEach((session, row) => {
      if (!clustersOf.has(session)) clustersOf.set(session, []);
      clustersOf.get(session).push(row);
    });
    levels.signals.decision_time.forEach((time, row) => signalOf.set(time, row));
    levels.orders.decision_time.forEach((time, row) => orderOf.set(time, row));
  };

  /** What became of a cluster, in words. */
  const why = (reason) => data.reasons[reason] ?? words(reason);
  const outcome = (row) => {
    const { clusters, signals, orders } = levels;
    if (clusters.reason[row] !== "armed") return why(clusters.reason[row]);
    const signal = signalOf.get(clusters.decision_time[row]);
    if (signal === undefined) return "armed, waiting when the data end";
    if (signals.confirmed_time[signal] === null) return "armed, " + why(signals.reason[signal]);
    const order = orderOf.get(clusters.decision_time[row]);
    const last = order === undefined ? signals.reason[signal] : orders.reason[order];
    return `armed, retest ${localTime(signals.confirmed_time[signal])}, ${why(last)}`;
  };

  /** Bars joined to candles of a given length, counted from the session's open. */
  const candles = (bars, open, length) => {
    if (length <= data.interval) return { ...bars, length: data.interval };
    const out = { start: [], open: [], high: [], low: [], close: [], volume: [], length };
    let last = null;
    for (let i = 0; i < bars.start.length; i += 1) {
      const start = open + Math.floor((bars.start[i] - open) / length) * length;
      const at = out.start.length - 1;
      if (start !== last) {
        last = start;
        out.start.push(start); out.open.push(bars.open[i]); out.high.push(bars.high[i]);
        out.low.push(bars.low[i]); out.close.push(bars.close[i]); out.volume.push(bars.volume[i]);
      } else {
        out.high[at] = Math.max(out.high[at], bars.high[i]);
        out.low[at] = Math.min(out.low[at], bars.low[i]);
        out.close[at] = bars.close[i];
        out.volume[at] += bars.volume[i];
      }
    }
    return out;
  };

  /** A trace of separate pieces: the library breaks a line at null. */
  const pieces = (lines, style) => {
    const x = [], y = [], text = [];
    for (const [x0, x1, level, label] of lines) {
      // Points between the ends, so that the pointer finds the line anywhere.
      const steps = 8;
      for (let i = 0; i <= steps; i += 1) { x.push(local(x0 + ((x1 - x0) * i) / steps)); y.push(level); text.push(label); }
      x.push(null); y.push(null); text.push(null);
    }
    return { type: "scatter", mode: "lines", x, y, text, hoverinfo: "text", ...style };
  };

  const MARGIN = 20 * 60000, LONGEST = 5 * 3600000;
  const clip = (session, times, margin = MARGIN) => times.length
    ? [Math.max(Math.min(...times) - margin, sessions.open[session]), Math.min(Math.max(...times) + margin, sessions.close[session] + data.interval)]
    : null;

  /** From the first to the last thing that a cluster led to. */
  const clusterTimes = (session, row) => {
    const { clusters, signals } = levels;
    const decided = clusters.decision_time[row];
    const times = [clusters.window_start[row], decided];
    const signal = signalOf.get(decided);
    if (signal !== undefined) times.push(signals.resolved_time[signal]);
    for (const trade of tradesOf.get(session) || []) if (trades.decision_time[trade] === decided) times.push(trades.exit_time[trade]);
    return times;
  };
  const signalSpan = (session, rows) => clip(session, rows.filter((row) => levels.clusters.reason[row] === "armed").flatMap((row) => clusterTimes(session, row)));

  /** What is shown first: all signals when they fit, else the last that led to a trade. */
  const firstSpan = (session, rows, spans) => {
    if (!spans.signals || spans.signals[1] - spans.signals[0] <= LONGEST) return spans.signals ? ["signals", spans.signals] : ["all", spans.all];
    const traded = new Set((tradesOf.get(session) || []).map((row) => trades.decision_time[row]));
    const row = rows.findLast((r) => traded.has(levels.clusters.decision_time[r])) ?? rows.findLast((r) => levels.clusters.reason[r] === "armed");
    return ["", clip(session, clusterTimes(session, row))];
  };

  /** 09:30 to 16:00 New York of the session's last calendar day, where the session holds it. */
  const regularSpan = (session) => {
    const close = sessions.close[session];
    const midnight = Math.floor((local(close) - 1) / DAY) * DAY - offsetAt(close);
    const from = Math.max(midnight + 570 * 60000, sessions.open[session]), to = Math.min(midnight + 960 * 60000, close);
    return to > from ? [from, to] : null;
  };

  const visibleRange = (range) => {
    const { shown } = state;
    let low = Infinity, high = -Infinity, most = 0;
    const inside = (ms) => local(ms) >= range[0] && local(ms) <= range[1];
    if (shown.candles) shown.candles.start.forEach((start, i) => {
      if (!inside(start)) return;
      low = Math.min(low, shown.candles.low[i]); high = Math.max(high, shown.candles.high[i]); most = Math.max(most, shown.candles.volume[i]);
    });
    // Levels far from the prices would press the candles flat; they are named at the edge instead.
    const reach = shown.candles ? Math.max(high - low, data.unit * 20) : Infinity;
    const [floor, ceiling] = [low - reach, high + reach];
    const outside = [];
    for (const { from, to, level, name } of shown.levels) {
      if (level === null || local(to) < range[0] || local(from) > range[1]) continue;
      if (level < floor || level > ceiling) outside.push({ from, to, level, name });
      else { low = Math.min(low, level); high = Math.max(high, level); }
    }
    if (!(high >= low)) return null;
    const margin = Math.max((high - low) * 0.06, data.unit * 2);
    const notes = outside.map(({ from, to, level, name }) => ({
      x: Math.min(Math.max(local((from + to) / 2), range[0]), range[1]), yref: "paper", y: level > high ? 1 : 0.25, yanchor: level > high ? "top" : "bottom", showarrow: false,
      text: `${level > high ? "\u2191" : "\u2193"} ${name} ${price(level)}`, font: { size: 12, color: name === "stop" ? colours.loss : name === "target" ? colours.gain : colours.muted }, bgcolor: colours.paper,
    }));
    return { y: [low - margin, high + margin], volume: [0, most * 1.05 || 1], notes };
  };

  const drawSession = async () => {
    const session = state.session, bars = state.bars;
    const chart = byId("session-chart");
    const rows = clustersOf.get(session) || [];
    const tradeRows = tradesOf.get(session) || [];
    const { clusters, signals } = levels;
    const c = bars ? candles(bars, sessions.open[session], state.minutes * 60000) : null;
    const shapes = [], modal = [], quiet = [], retests = { x: [], y: [], text: [] }, shownLevels = [];
    const inWindow = [];

    for (const row of rows) {
      const armed = clusters.reason[row] === "armed";
      const start = clusters.window_start[row], end = start + data.window;
      inWindow.push([start, end, armed]);
      shapes.push({
        type: "rect", layer: "below", x0: local(start), x1: local(end), y0: clusters.low[row], y1: clusters.high[row],
        line: { color: armed ? colours.accent : colours["rule-strong"], width: 1, dash: armed ? "solid" : "dot" },
        fillcolor: armed ? colours["accent-soft"] : "rgba(0,0,0,0)",
      });
      if (!c) for (const level of [clusters.low[row], clusters.high[row]]) shownLevels.push({ from: start, to: end, level, name: "cluster" });
      if (clusters.modal_price[row] === null) continue;
      const label = `${armed ? "modal price" : "modal price of a cluster that went no further"} ${price(clusters.modal_price[row])}<br>` +
        `window ${localTime(start)} to ${localTime(end)} New York<br>decided ${bothTimes(clusters.decision_time[row])}<br>` +
        `volume ratio ${number(clusters.volume_ratio[row])}, rank ${clusters.rank[row] ?? DASH}, modal position ${number(clusters.modal_position[row])}<br>` +
        `value area ${price(clusters.value_area_low[row])} to ${price(clusters.value_area_high[row])}<br>${inert(outcome(row))}`;
      if (armed && clusters.value_area_low[row] !== null)
        shapes.push({ type: "rect", layer: "below", x0: local(start), x1: local(end), y0: clusters.value_area_low[row], y1: clusters.value_area_high[row], line: { width: 0 }, fillcolor: colours.accent, opacity: 0.22 });
      if (!armed) { quiet.push([start, end, clusters.modal_price[row], label]); continue; }
      const signal = signalOf.get(clusters.decision_time[row]);
      const until = signal === undefined ? sessions.close[session] : signals.resolved_time[signal];
      modal.push([start, end, clusters.modal_price[row], label]);
      modal.push([end, Math.max(until, clusters.decision_time[row]), clusters.modal_price[row], label]);
      if (signal !== undefined && signals.confirmed_time[signal] !== null) {
        retests.x.push(local(signals.confirmed_time[signal])); retests.y.push(clusters.modal_price[row]);
        retests.text.push(`retest of ${price(clusters.modal_price[row])} confirmed<br>${bothTimes(signals.confirmed_time[signal])}<br>${inert(outcome(row))}`);
      }
    }

    const stops = [], targets = [], path = { x: [], y: [] };
    const entries = { x: [], y: [], text: [], symbol: [] }, exits = { x: [], y: [], text: [], colour: [] };
    for (const row of tradeRows) {
      const from = trades.entry_time[row], to = trades.exit_time[row], long = trades.direction[row] === "long";
      const head = `trade ${row + 1}, ${inert(trades.direction[row])} ${trades.quantity[row]}`;
      const wide = Math.max(to, from + data.interval);
      stops.push([from, wide, trades.stop[row], `${head}<br>stop ${price(trades.stop[row])}`]);
      targets.push([from, wide, trades.target[row], `${head}<br>target ${price(trades.target[row])}`]);
      path.x.push(local(from), local(to), null); path.y.push(trades.entry_price[row], trades.exit_price[row], null);
      entries.x.push(local(from)); entries.y.push(trades.entry_price[row]); entries.symbol.push(long ? "triangle-up" : "triangle-down");
      entries.text.push(`${head}<br>entry ${price(trades.entry_price[row])}<br>${bothTimes(from)}`);
      exits.x.push(local(to)); exits.y.push(trades.exit_price[row]); exits.colour.push(trades.net[row] > 0 ? colours.gain : colours.loss);
      exits.text.push(`${head}<br>exit ${number(trades.exit_price[row], Math.max(data.decimals, 2))}, ${inert(words(trades.exit_reason[row]))}<br>${bothTimes(to)}<br>net ${number(trades.net[row], 2, true)} USD, ${number(trades.r[row], 2, true)} R`);
      for (const name of ["stop", "target"]) shownLevels.push({ from, to: wide, level: trades[name][row], name });
      for (const name of ["entry_price", "exit_price"]) shownLevels.push({ from, to: wide, level: trades[name][row], name: words(name) });
    }

    const traces = [];
    if (c) {
      const middle = Array.from(c.start, (start) => local(start) + c.length / 2);
      const text = Array.from(c.start, (start, i) => `${bothTimes(start)}<br>open ${price(c.open[i])}, high ${price(c.high[i])}<br>low ${price(c.low[i])}, close ${price(c.close[i])}<br>volume ${number(c.volume[i], 0)}`);
      const side = { line: { color: colours.candle, width: 1 } };
      traces.push({
        type: "candlestick", x: middle, open: c.open, high: c.high, low: c.low, close: c.close, hovertext: text, hoverinfo: "text", whiskerwidth: 0,
        increasing: { ...side, fillcolor: colours.paper }, decreasing: { ...side, fillcolor: colours.candle },
      });
      const tint = Array.from(c.start, (start) => {
        const windows = inWindow.filter(([from, to]) => start + c.length > from && start < to);
        return windows.some((w) => w[2]) ? colours.accent : windows.length ? colours["rule-strong"] : colours.volume;
      });
      traces.push({ type: "bar", x: middle, y: c.volume, yaxis: "y2", marker: { color: tint, line: { width: 0 } }, hovertext: text, hoverinfo: "text", textposition: "none" });
    }
    traces.push(
      pieces(quiet, { line: { color: colours["rule-strong"], width: 1.5 } }),
      pieces(modal, { line: { color: colours.accent, width: 2 } }),
      pieces(targets, { line: { color: colours.gain, width: 1.6, dash: "4px,3px" } }),
      pieces(stops, { line: { color: colours.loss, width: 1.6, dash: "4px,3px" } }),
      { type: "scatter", mode: "lines", ...path, line: { color: colours.ink, width: 1.4 }, hoverinfo: "skip" },
      { type: "scatter", mode: "markers", ...retests, hoverinfo: "text", marker: { symbol: "circle-open", size: 11, color: colours.accent, line: { width: 2 } } },
      { type: "scatter", mode: "markers", x: entries.x, y: entries.y, text: entries.text, hoverinfo: "text", marker: { symbol: entries.symbol, size: 12, color: colours.ink, line: { width: 1, color: colours.paper } } },
      { type: "scatter", mode: "markers", x: exits.x, y: exits.y, text: exits.text, hoverinfo: "text", marker: { symbol: "diamond", size: 11, color: exits.colour, line: { width: 1, color: colours.paper } } },
    );
    // Without prices the chart is drawn from levels alone.
    state.shown = { candles: c, levels: shownLevels };
    const spans = { signals: signalSpan(session, rows), regular: regularSpan(session), all: [sessions.open[session], sessions.close[session]] };
    const [part, span] = state.focus ? ["", clip(session, state.focus)] : spans[state.part] ? [state.part, spans[state.part]] : firstSpan(session, rows, spans);
    const range = span.map(local);
    const visible = visibleRange(range);
    await Plotly.react(chart, traces, layout({
      xaxis: axis("Time, New York", { type: "date", range, anchor: "y2", rangeslider: { visible: false }, gridcolor: colours.rule, nticks: narrow() ? 5 : 14, tickformatstops: [{ dtickrange: [null, 59999], value: "%H:%M:%S" }, { dtickrange: [60000, null], value: "%H:%M" }] }),
      yaxis: axis("Price, points", { domain: [0.25, 1], side: "right", range: visible?.y, tickformat: `,.${data.decimals}f` }),
      yaxis2: axis("Volume, contracts", { domain: [0, 0.19], side: "right", range: visible?.volume, nticks: 4, tickformat: "~s" }),
      shapes, annotations: visible?.notes ?? [], bargap: 0.15, hovermode: "closest",
    }), config);
    const controls = byId("session-part").querySelectorAll("button");
    for (const button of controls) {
      button.disabled = !spans[button.dataset.part];
      button.setAttribute("aria-pressed", String(button.dataset.part === part));
    }
    for (const button of byId("candle-length").children) button.setAttribute("aria-pressed", String(Number(button.dataset.minutes) === state.minutes));
    chart.dataset.session = sessions.date[session];
  };

  /** Prices and volumes fill the height again when another part is shown. */
  const fitHeights = (change) => {
    if (!("xaxis.range[0]" in change) && !change["xaxis.autorange"]) return;
    const range = byId("session-chart").layout.xaxis.range.map((value) => (typeof value === "number" ? value : Date.parse(String(value).replace(" ", "T") + (String(value).length > 10 ? "Z" : "T00:00Z"))));
    const visible = visibleRange(range);
    if (visible) Plotly.relayout("session-chart", { "yaxis.range": visible.y, "yaxis2.range": visible.volume, annotations: visible.notes });
  };

  const sessionTable = (session) => {
    const table = byId("session-table");
    const rows = clustersOf.get(session) || [];
    table.replaceChildren();
    if (!rows.length) return;
    const { clusters } = levels;
    const columns = [["Window", ""], ["Decided", ""], ["Volume", "n"], ["Ratio", "n"], ["Rank", "n"], ["Modal price", "n"], ["Value area", "n"], ["Position", "n"], ["Direction", ""], ["Strength", "n"], ["What became of it", ""]];
    table.append(make("thead", {}, make("tr", {}, ...columns.map(([name, kind]) => make("th", { scope: "col", className: kind }, name)))));
    const body = make("tbody");
    for (const row of rows) {
      const start = clusters.window_start[row], end = start + data.window, decided = clusters.decision_time[row];
      const cells = [
        [`${localTime(start)} to ${localTime(end)}`, "", `${utcText(start)} to ${utcText(end)}`], [localTime(decided), "", utcText(decided)],
        [number(clusters.volume[row], 0), "n"], [number(clusters.volume_ratio[row]), "n"], [clusters.rank[row] ?? DASH, "n"],
        [price(clusters.modal_price[row]), "n"],
        [clusters.value_area_low[row] === null ? DASH : `${price(clusters.value_area_low[row])} to ${price(clusters.value_area_high[row])}`, "n"],
        [number(clusters.modal_position[row]), "n"], [words(clusters.direction[row]), ""], [number(clusters.strength[row]), "n"], [outcome(row), ""],
      ];
      const line = make("tr", { className: clusters.reason[row] === "armed" ? "here" : "" }, ...cells.map(([text, kind, title]) => make("td", title ? { className: kind, title } : { className: kind }, String(text))));
      const button = make("button", { type: "button", title: line.cells[0].title }, line.cells[0].textContent);
      button.addEventListener("click", () => { state.focus = clusterTimes(session, row); drawSession(); });
      line.cells[0].replaceChildren(button);
      body.append(line);
    }
    table.append(body);
  };

  const neighbour = (list, session, direction) => {
    if (direction > 0) return list.find((other) => other > session) ?? -1;
    return list.findLast((other) => other < session) ?? -1;
  };

  const showSession = async (session, focus = null) => {
    if (session < 0 || session >= sessionCount) return;
    state.request += 1;
    const request = state.request;
    const bars = await barsOf(session);
    if (request !== state.request) return; // another was asked for meanwhile
    state.session = session;
    state.bars = bars;
    state.focus = focus;
    const rows = clustersOf.get(session) || [];
    const net = (tradesOf.get(session) || []).reduce((sum, row) => sum + trades.net[row], 0);
    byId("session-name").textContent = [
      dateText(sessions.date[session]) + (sessions.symbol[session] ? ", " + sessions.symbol[session] : ""),
      `${plural(rows.length, "cluster")}, ${number(sessions.armed[session], 0)} armed, ${plural(sessions.trades[session], "trade")}` + (sessions.trades[session] ? `, net ${number(net, 2, true)} USD` : ""),
    ].join(": ");
    byId("session-date").value = sessions.date[session];
    byId("session-list").value = String(tradesOf.has(session) ? session : -1);
    byId("session-previous").disabled = session === 0;
    byId("session-next").disabled = session === sessionCount - 1;
    byId("trade-previous").disabled = neighbour(withTrades, session, -1) < 0;
    byId("trade-next").disabled = neighbour(withTrades, session, 1) < 0;
    sessionTable(session);
    await drawSession();
  };

  const prepareSessions = () => {
    const list = byId("session-list"), picker = byId("session-date");
    list.append(make("option", { value: "-1" }, withTrades.length ? `${plural(withTrades.length, "session")} to choose from` : "none"));
    for (const session of withTrades) {
      const rows = tradesOf.get(session);
      const net = rows.reduce((sum, row) => sum + trades.net[row], 0);
      list.append(make("option", { value: String(session) }, `${sessions.date[session]}: ${plural(rows.length, "trade")}, ${number(net, 2, true)} USD`));
    }
    list.addEventListener("change", () => showSession(Number(list.value)));
    picker.min = sessions.date[0];
    picker.max = sessions.date[sessionCount - 1];
    picker.addEventListener("change", () => {
      // A day without a session leads to the next one that is there.
      const found = sessions.date.findIndex((day) => day >= picker.value);
      if (picker.value) showSession(found < 0 ? sessionCount - 1 : found);
    });
    byId("session-previous").addEventListener("click", () => showSession(state.session - 1));
    byId("session-next").addEventListener("click", () => showSession(state.session + 1));
    byId("trade-previous").addEventListener("click", () => showSession(neighbour(withTrades, state.session, -1)));
    byId("trade-next").addEventListener("click", () => showSession(neighbour(withTrades, state.session, 1)));
    for (const button of byId("session-part").querySelectorAll("button"))
      button.addEventListener("click", () => { state.part = button.dataset.part; state.focus = null; drawSession(); });
    const base = data.interval / 60000;
    const lengths = [...new Set([base, 1, 5, 15, 60])].filter((length) => length >= base && Number.isInteger(length / base) && 86400000 / data.interval / (length / base) <= 4000).sort((a, b) => a - b);
    if (!lengths.length) lengths.push(base);
    for (const length of lengths) {
      const button = make("button", { type: "button" }, length < 1 ? `${length * 60} s` : `${length} min`);
      button.dataset.minutes = String(length);
      button.addEventListener("click", () => { state.minutes = length; drawSession(); });
      byId("candle-length").append(button);
    }
    state.minutes = narrow() && lengths.length > 1 ? lengths[1] : lengths[0];
  };

  // Trades ----------------------------------------------------------------------------------

  const table = { column: "entry_time", descending: false, page: 0, rows: [] };
  const flags = (row) => ["ambiguous", "optimistic", "stale", "modal_tied"].filter((name) => trades[name][row]).map(words).join(", ");
  const time = (name) => ({ show: (row) => localText(trades[name][row]), title: (row) => utcText(trades[name][row]) });
  const fixed = (name, decimals) => ({ show: (row) => number(trades[name][row], decimals), kind: "n" });
  const level = (name) => ({ show: (row) => price(trades[name][row]), kind: "n" });
  const columns = [
    { name: "number", label: "No.", value: (row) => row, kind: "n" },
    { name: "entry_time", label: "Entry", ...time("entry_time") },
    { name: "direction", label: "Direction", show: (row) => trades.direction[row] },
    { name: "quantity", label: "Qty", ...fixed("quantity", 0) },
    { name: "entry_price", label: "Entry price", ...level("entry_price") },
    { name: "stop", label: "Stop", ...level("stop") },
    { name: "target", label: "Target", ...level("target") },
    { name: "exit_time", label: "Exit", ...time("exit_time") },
    { name: "exit_price", label: "Exit price", ...fixed("exit_price", Math.max(2, data.decimals)) },
    { name: "exit_reason", label: "Exit reason", show: (row) => words(trades.exit_reason[row]) },
    { name: "net", label: "Net, USD", ...fixed("net", 2), tone: true },
    { name: "r", label: "R", ...fixed("r", 2), tone: true },
    { name: "gross", label: "Gross, USD", ...fixed("gross", 2), extra: true },
    { name: "costs", label: "Costs, USD", ...fixed("costs", 2), extra: true },
    { name: "mae", label: "MAE, points", ...fixed("mae", 2) },
    { name: "mfe", label: "MFE, points", ...fixed("mfe", 2) },
    { name: "bars_held", label: "Bars held", ...fixed("bars_held", 0) },
    { name: "volume_ratio", label: "Volume ratio", ...fixed("volume_ratio", 2), extra: true },
    { name: "rank", label: "Rank", ...fixed("rank", 0), extra: true },
    { name: "modal_price", label: "Modal price", ...level("modal_price"), extra: true },
    { name: "modal_position", label: "Modal position", ...fixed("modal_position", 2), extra: true },
    { name: "strength", label: "Strength", ...fixed("strength", 2), extra: true },
    { name: "context", label: "Context", ...fixed("context", 0), extra: true },
    { name: "multiplier", label: "Multiplier", ...fixed("multiplier", 2), extra: true },
    { name: "symbol", label: "Symbol", show: (row) => trades.symbol[row], extra: true },
    { name: "flags", label: "Marks", show: (row) => flags(row) || DASH, value: flags, extra: true },
  ];

  const openTrade = async (row) => {
    const session = trades.session[row];
    if (session < 0) return;
    await showSession(session, [trades.decision_time[row] - data.window, trades.exit_time[row]]);
    byId("session").scrollIntoView();
    byId("session-date").focus({ preventScroll: true });
  };

  const searchText = (row) => [row + 1, localText(trades.entry_time[row]), localText(trades.exit_time[row]), trades.symbol[row], trades.direction[row], words(trades.exit_reason[row]), flags(row)].join(" ").toLowerCase();
  const searched = [];

  const chooseRows = () => {
    const wanted = byId("filter-text").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const direction = byId("filter-direction").value, exit = byId("filter-exit").value, result = byId("filter-outcome").value;
    const from = byId("filter-from").value, to = byId("filter-to").value;
    table.rows = [];
    for (let row = 0; row < tradeCount; row += 1) {
      if (direction && trades.direction[row] !== direction) continue;
      if (exit && trades.exit_reason[row] !== exit) continue;
      if (result && trades.net[row] > 0 !== (result === "win")) continue;
      const day = sessions.date[trades.session[row]] ?? localText(trades.entry_time[row]).slice(0, 10);
      if ((from && day < from) || (to && day > to)) continue;
      if (wanted.length) {
        searched[row] ??= searchText(row);
        if (!wanted.every((word) => searched[row].includes(word))) continue;
      }
      table.rows.push(row);
    }
    const column = columns.find(({ name }) => name === table.column);
    const value = column.value ?? ((row) => trades[column.name][row]);
    const sign = table.descending ? -1 : 1;
    table.rows.sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === y) return a - b;
      if (x === null) return 1; // what is missing stands last, whichever way is sorted
      if (y === null) return -1;
      return x < y ? -sign : sign;
    });
  };

  const drawRows = (size = Number(byId("page-size").value)) => {
    const pages = Math.max(1, Math.ceil(table.rows.length / size));
    table.page = Math.min(Math.max(table.page, 0), pages - 1);
    const shown = table.rows.slice(table.page * size, (table.page + 1) * size);
    const body = make("tbody");
    for (const row of shown) {
      const line = make("tr");
      for (const column of columns) {
        const cell = make("td", { className: [column.kind, column.extra ? "extra" : ""].filter(Boolean).join(" ") });
        if (column.name === "number") {
          const button = make("button", { type: "button", "aria-label": `Show trade ${row + 1} in its session` }, String(row + 1));
          cell.append(button);
        } else {
          cell.textContent = column.show(row);
          if (column.title) cell.title = column.title(row);
          if (column.tone && trades.net[row] !== 0) cell.classList.add(trades.net[row] > 0 ? "gain" : "loss");
        }
        line.append(cell);
      }
      line.addEventListener("click", () => { if (!String(getSelection())) openTrade(row); });
      body.append(line);
    }
    byId("trade-table").tBodies[0].replaceWith(body);
    const first = table.rows.length ? table.page * size + 1 : 0;
    byId("page-place").textContent = `${number(first, 0)} to ${number(first ? first + shown.length - 1 : 0, 0)} of ${number(table.rows.length, 0)}`;
    byId("page-previous").disabled = table.page === 0;
    byId("page-next").disabled = table.page >= pages - 1;
    const net = table.rows.reduce((sum, row) => sum + trades.net[row], 0);
    const wins = table.rows.filter((row) => trades.net[row] > 0).length;
    byId("trade-summary").textContent = table.rows.length
      ? `${plural(table.rows.length, "trade")}${table.rows.length < tradeCount ? " of " + number(tradeCount, 0) : ""}: net ${number(net, 2, true)} USD, mean ${number(net / table.rows.length, 2, true)} USD, ${number((100 * wins) / table.rows.length, 1)} % won`
      : "No trade fits.";
    for (const head of byId("trade-table").tHead.rows[0].cells) {
      if (head.dataset.name === table.column) head.setAttribute("aria-sort", table.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  const prepareTrades = () => {
    if (!byId("trade-table")) return;
    const head = make("tr");
    for (const column of columns) {
      const button = make("button", { type: "button" }, column.label);
      const cell = make("th", { scope: "col", className: [column.kind, column.extra ? "extra" : ""].filter(Boolean).join(" ") }, button);
      cell.dataset.name = column.name;
      button.addEventListener("click", () => {
        table.descending = table.column === column.name ? !table.descending : false;
        table.column = column.name;
        table.page = 0;
        chooseRows();
        drawRows();
      });
      head.append(cell);
    }
    byId("trade-table").tHead.append(head);
    const again = () => { table.page = 0; chooseRows(); drawRows(); };
    byId("trade-filter").addEventListener("input", again);
    byId("trade-filter").addEventListener("submit", (event) => event.preventDefault());
    byId("trade-filter").addEventListener("reset", () => setTimeout(again));
    byId("page-size").addEventListener("change", () => { table.page = 0; drawRows(); });
    byId("page-previous").addEventListener("click", () => { table.page -= 1; drawRows(); });
    byId("page-next").addEventListener("click", () => { table.page += 1; drawRows(); });
    chooseRows();
    drawRows();
  };

  // Start -----------------------------------------------------------------------------------

  const loadCharts = async () => {
    const script = document.createElement("script");
    script.textContent = await inflateText("report-plotly");
    document.head.append(script);
    script.remove();
    if (typeof Plotly === "undefined") throw new Error("the chart library did not start");
    levels = JSON.parse(await inflateText("report-levels"));
    indexLevels();
  };

  const firstSession = () => {
    const wanted = /^#day=(\d{4}-\d{2}-\d{2})$/.exec(location.hash);
    const named = wanted ? sessions.date.indexOf(wanted[1]) : -1;
    if (named >= 0) return named;
    if (withTrades.length) return withTrades.at(-1);
    const armed = sessions.armed.findLastIndex((count) => count > 0);
    if (armed >= 0) return armed;
    const any = sessions.clusters.findLastIndex((count) => count > 0);
    return any >= 0 ? any : sessionCount - 1;
  };

  const redraw = () => {
    readColours();
    if (typeof Plotly === "undefined" || !sessionCount) return;
    drawEquity();
    drawDistributions();
    if (state.session >= 0) drawSession();
  };

  const start = async () => {
    readColours();
    prepareTrades();
    if (typeof DecompressionStream === "undefined") {
      fail("this browser is too old to unpack the charts (it needs one from 2023 or later); numbers and tables are complete");
      return;
    }
    if (!sessionCount) {
      for (const id of ["equity-chart", "session-chart"]) byId(id).replaceWith(make("p", { className: "empty" }, "There is no session with a bar."));
      byId("session-controls").hidden = true;
      root.dataset.ready = "true";
      return;
    }
    await loadCharts();
    await drawEquity();
    drawDistributions();
    prepareSessions();
    await showSession(firstSession());
    byId("session-chart").on("plotly_relayout", fitHeights);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    const print = (printing) => {
      state.printing = printing;
      root.toggleAttribute("data-printing", printing);
      if (tradeCount) drawRows(printing ? 1000 : undefined);
      redraw();
    };
    addEventListener("beforeprint", () => print(true));
    addEventListener("afterprint", () => print(false));
    root.dataset.ready = "true";
  };
  start().catch(fail);
})();
