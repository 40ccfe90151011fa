// Loss, rewards and memory over time, drawn by uPlot: first from the page's own data, then from the stream's events.
"use strict";

const GIB = 2 ** 30;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) => (value == null ? "n/a" : Number(value.toPrecision(4)).toString());
const gib = (value) => (value == null ? "n/a" : `${value.toFixed(2)} GiB`);

/** What is drawn on this page, by figure. */
const charts = new Map();

/** A line needs two points; fewer are drawn as dots. */
const few = (plot) => plot.data[0].length < 3;

/** Sorted x with columns beside it; a point at a known x replaces what it names. */
class Table {
  constructor(names) {
    this.x = [];
    this.columns = Object.fromEntries(names.map((name) => [name, []]));
  }

  set(x, values) {
    let index = this.x.length;
    while (index > 0 && this.x[index - 1] > x) index -= 1;
    if (index > 0 && this.x[index - 1] === x) index -= 1;
    else {
      this.x.splice(index, 0, x);
      for (const column of Object.values(this.columns)) column.splice(index, 0, null);
    }
    for (const [name, value] of Object.entries(values)) this.columns[name][index] = value;
  }

  /** Forget what lies behind x. Returns whether there was any. */
  cut(x) {
    const before = this.x.length;
    while (this.x.at(-1) > x) this.x.pop();
    for (const column of Object.values(this.columns)) column.length = this.x.length;
    return this.x.length < before;
  }

  /** Fill from sorted columns at once. */
  load(x, columns) {
    this.x = x;
    Object.assign(this.columns, columns);
  }
}

/** Exponential moving average, weighted by the distance between points and freed of its start's bias. */
function smooth(x, y, factor) {
  let mean = 0, weight = 0, last = null;
  return y.map((value, index) => {
    if (value == null) return null;
    const decay = last === null ? 0 : factor ** Math.max(1, x[index] - last);
    const keep = last === null ? factor : decay;
    mean = mean * keep + value * (1 - keep);
    weight = weight * keep + (1 - keep);
    last = x[index];
    return weight > 0 ? mean / weight : value;
  });
}

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.job = figure.dataset.job;
    this.box = figure.querySelector("[data-plot]");
    this.zoomed = false;
    this.pending = false;
    const source = figure.querySelector("[data-points]");
    this.load(source ? JSON.parse(source.textContent) : {});
    figure.querySelector("[data-table]").addEventListener("toggle", () => this.fillTable());
    new ResizeObserver(() => this.resize()).observe(this.box);
    this.build();
  }

  build() {
    this.plot?.destroy();
    const { series, yValues } = this.describe();
    this.series = series;
    const axis = { stroke: css("--chart-text"), grid: { stroke: css("--chart-grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.width(), height: 220, legend: { show: false }, padding: [8, 12, 0, 0],
      scales: { x: { time: false }, y: { range: (_plot, low, high) => this.range(low, high) } },
      axes: [{ ...axis, size: 34, ...this.xAxis(), values: (_plot, ticks) => ticks.map((tick) => this.xTick(tick)) }, { ...axis, size: 62, values: (_plot, ticks) => ticks.map(yValues) }],
      series: [{}, ...series.map(({ column, label, ...style }) => ({ ...style, label }))],
      cursor: { y: false, drag: { x: true, y: false }, points: { size: 6 } },
      hooks: {
        drawClear: [(plot) => this.drawBelow(plot)],
        setCursor: [(plot) => this.read(plot.cursor.idx)],
        setSelect: [(plot) => { this.zoomed = plot.select.width > 0; }],
      },
    }, this.data(), this.box);
    this.plot.over.addEventListener("dblclick", () => { this.zoomed = false; });
    this.drawLegend();
    this.describeAloud();
  }

  /** What lies below the grid and the lines. */
  drawBelow() {}

  /** Keys of the legend that stand for no line. */
  extraKeys() { return []; }

  width() { return Math.max(200, Math.floor(this.box.clientWidth)); }

  resize() {
    if (this.plot && this.width() !== this.plot.width) this.plot.setSize({ width: this.width(), height: 220 });
  }

  range(low, high) {
    if (low == null || high == null) return [0, 1];
    const size = Math.max(Math.abs(low), Math.abs(high));
    const spread = high - low > 1e-9 * size ? high - low : size || 1; // what differs by rounding alone is one value
    return [low - 0.08 * spread, high + 0.08 * spread];
  }

  /** Many events may come between two frames; draw once. */
  schedule() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      if (!this.figure.isConnected) return;
      this.plot.setData(this.data(), !this.zoomed);
      if (this.zoomed) this.plot.redraw();
      this.drawLegend();
      this.describeAloud();
      this.fillTable();
    });
  }

  data() { return [this.table.x, ...this.series.map(({ column }) => this.column(column))]; }

  column(name) { return this.table.columns[name]; }

  has(name) { return this.table.columns[name].some((value) => value != null); }

  /** The series that hold a value: the legend and the table name no others. */
  known() { return this.series.filter(({ column }) => this.has(column)); }

  drawLegend() {
    let legend = this.figure.querySelector(".legend");
    if (!legend) {
      legend = document.createElement("ul");
      legend.className = "legend";
      this.box.after(legend);
    }
    const keys = [...this.known().map(({ column, label }) => ({ look: `key key-${column}`, label })), ...this.extraKeys()];
    legend.replaceChildren(...keys.map(({ look, label }) => {
      const item = document.createElement("li");
      const key = document.createElement("span");
      key.className = look;
      key.setAttribute("aria-hidden", "true");
      item.append(key, label);
      return item;
    }));
  }

  read(index) {
    const out = this.figure.querySelector("[data-readout]");
    out.textContent = index == null ? "" : `${this.xText(this.table.x[index])}: ` +
      this.series.map(({ column, label }) => [label, this.column(column)[index]])
        .filter(([, value]) => value != null).map(([label, value]) => `${label} ${this.format(value)}`).join(" · ");
  }

  describeAloud() {
    const last = this.series.map(({ column, label }) => [label, this.column(column).findLast((value) => value != null)]);
    const known = last.filter(([, value]) => value != null).map(([label, value]) => `${label} ${this.format(value)}`);
    const title = this.figure.querySelector(".chart-title").textContent;
    this.box.setAttribute("aria-label", `${title}: ${known.length ? `${this.table.x.length} points; latest ${known.join(", ")}` : "no points yet"}`);
    this.figure.classList.toggle("no-points", known.length === 0);
    this.figure.dataset.points = String(this.table.x.length);
  }

  fillTable() {
    const details = this.figure.querySelector("[data-table]");
    if (!details.open) return;
    const series = this.known();
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const text of [this.xLabel, ...series.map(({ label }) => label)]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = text;
      head.append(cell);
    }
    const columns = series.map(({ column }) => this.column(column));
    const body = table.createTBody();
    for (let index = this.table.x.length - 1; index >= Math.max(0, this.table.x.length - 200); index -= 1) {
      const row = body.insertRow();
      row.insertCell().textContent = this.xText(this.table.x[index]);
      for (const column of columns) row.insertCell().textContent = this.format(column[index]);
    }
    details.querySelector(".scroll").replaceChildren(table);
  }
}

/** Metrics by step: the first series raw and smoothed, the others as the subclass styles them. */
class MetricChart extends Chart {
  get xLabel() { return "step"; }
  xText(x) { return `step ${x}`; }
  format(value) { return short(value); }

  load(series) {
    this.table = new Table(this.names);
    for (const name of this.names) {
      series[name]?.step.forEach((step, index) => this.table.set(step, { [name]: series[name].value[index] }));
    }
    const slider = this.figure.querySelector("[data-smoothing]");
    try { slider.value = localStorage.getItem("smoothing") ?? slider.value; } catch { /* the default holds */ }
    slider.addEventListener("input", () => {
      try { localStorage.setItem("smoothing", slider.value); } catch { /* it holds for this page at least */ }
      for (const chart of charts.values()) if (chart.slider) { chart.slider.value = slider.value; chart.schedule(); }
    });
    this.slider = slider;
  }

  get names() { return [this.main.column, ...this.others().map(({ column }) => column)]; }

  describe() {
    const { column, label } = this.main, colour = css("--series-loss");
    return {
      yValues: (value) => short(value),
      series: [
        { column, label, stroke: `${colour}b0`, width: 1, spanGaps: true, points: { show: few, size: 4 } },
        { column: "smoothed", label: `smoothed ${label}`, stroke: colour, width: 2.5, spanGaps: true, points: { show: false } },
        ...this.others(),
      ],
    };
  }

  /** A value measured on held-out rows, at a few steps. */
  evalLine(column, label) {
    const stroke = css("--series-eval");
    return { column, label, stroke, width: 1.5, dash: [6, 4], spanGaps: true, points: { show: true, size: 8, fill: stroke } };
  }

  xAxis() { return { space: 60 }; }
  xTick(tick) { return Number.isInteger(tick) ? String(tick) : ""; }

  column(name) {
    return name === "smoothed" ? smooth(this.table.x, this.table.columns[this.main.column], Number(this.slider.value)) : super.column(name);
  }

  has(name) { return super.has(name === "smoothed" ? this.main.column : name); }

  /** Progress never falls behind the points but where an interrupted run goes on: the later ones will come again. */
  on(kind, { step, data }) {
    if (kind === "progress" && this.table.cut(step)) this.schedule();
    if (kind !== "metric") return;
    const named = Object.fromEntries(this.names.filter((name) => name in data).map((name) => [name, data[name]]));
    if (Object.keys(named).length === 0) return;
    this.table.set(step, named);
    this.schedule();
  }
}

class LossChart extends MetricChart {
  get main() { return { column: "loss", label: "loss" }; }
  others() { return [this.evalLine("eval_loss", "eval loss")]; }
}

/** DPO: how far the chosen answers are ahead of the rejected ones, and what each side does. */
class RewardChart extends MetricChart {
  get main() { return { column: "rewards_margin", label: "margin" }; }
  others() {
    const side = (column, label, colour, dash) => ({ column, label, stroke: css(colour), width: 1.5, dash, spanGaps: true, points: { show: few, size: 4 } });
    return [
      side("rewards_chosen", "chosen", "--series-mine", [8, 3]),
      side("rewards_rejected", "rejected", "--series-used", [2, 4]),
      this.evalLine("eval_rewards_margin", "eval margin"),
    ];
  }
}

class AccuracyChart extends MetricChart {
  get main() { return { column: "rewards_accuracy", label: "accuracy" }; }
  others() { return [this.evalLine("eval_rewards_accuracy", "eval accuracy")]; }
  range() { return [0, 1.02]; }
}

const MEMORY = ["vram_used_bytes", "process_vram_bytes", "vram_total_bytes", "ram_used_bytes", "child_rss_bytes", "ram_total_bytes"];

class MemoryChart extends Chart {
  get xLabel() { return "time"; }
  xText(x) { return new Date(x * 1000).toLocaleTimeString(); }
  format(value) { return gib(value); }

  load(columns) {
    this.table = new Table(MEMORY);
    const { time, predicted, ...rest } = columns;
    if (time) this.table.load(time, rest);
    this.predicted = Object.entries(predicted ?? {}).filter(([, bytes]) => bytes > 0);
    this.onDevice = this.hasDevice();
  }

  hasDevice() { return this.has("vram_used_bytes"); }

  describe() {
    const used = css("--series-used"), mine = css("--series-mine"), cap = css("--series-cap");
    const line = (column, label, stroke, extra) => ({ column, label, stroke, width: 2, points: { show: few, size: 4 }, ...extra });
    const series = this.onDevice
      ? [line("vram_used_bytes", "VRAM used, whole device", used), line("process_vram_bytes", "VRAM of this job's process", mine, { dash: [8, 3] }), line("vram_total_bytes", "VRAM total", cap, { width: 1.5, dash: [2, 4], points: { show: false } })]
      : [line("ram_used_bytes", "host RAM used", used), line("child_rss_bytes", "resident memory of this job's process", mine, { dash: [8, 3] }), line("ram_total_bytes", "host RAM total", cap, { width: 1.5, dash: [2, 4], points: { show: false } })];
    return { series, yValues: (value) => `${Number(value.toPrecision(3))} GiB` };
  }

  range(_low, high) { return high == null ? [0, 1] : [0, Math.max(high, this.onDevice ? this.predictedPeak() : 0) * 1.05]; }

  /** In GiB. */
  predictedPeak() { return this.predicted.reduce((sum, [, bytes]) => sum + bytes, 0) / GIB; }

  /** The planned peak's components one on the other, as bands behind the readings of the device. */
  drawBelow(plot) {
    if (!this.onDevice) return;
    const { ctx, bbox } = plot;
    let below = 0;
    ctx.save();
    ctx.globalAlpha = 0.28;
    for (const [name, bytes] of this.predicted) {
      const top = plot.valToPos((below + bytes) / GIB, "y", true), bottom = plot.valToPos(below / GIB, "y", true);
      ctx.fillStyle = css(`--fit-${name}`);
      ctx.fillRect(bbox.left, Math.max(top, bbox.top), bbox.width, Math.min(bottom, bbox.top + bbox.height) - Math.max(top, bbox.top));
      below += bytes;
    }
    ctx.restore();
  }

  extraKeys() {
    return this.onDevice ? this.predicted.map(([name, bytes]) => ({ look: `fit-key fit-${name}`, label: `planned ${name} ${gib(bytes / GIB)}` })) : [];
  }

  xAxis() { return { space: 80, incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400] }; }
  xTick(tick) { return new Date(tick * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }); }

  /** In GiB, so that the axis has round numbers. */
  column(name) { return super.column(name).map((value) => (value == null ? null : value / GIB)); }

  /** Of several devices, the one that the job's process is on (as app/web/charts.py chooses). */
  on(kind, { time, data }) {
    if (kind !== "gpu") return;
    const device = data.devices.find((each) => each.process_vram_bytes != null) ?? data.devices[0] ?? {};
    const source = { ...device, ...data.host };
    this.table.set(time, Object.fromEntries(MEMORY.map((name) => [name, source[name] ?? null])));
    if (this.hasDevice() !== this.onDevice) {
      this.onDevice = !this.onDevice;
      this.build();
    }
    this.schedule();
  }
}

const KINDS = { loss: LossChart, rewards: RewardChart, accuracy: AccuracyChart, memory: MemoryChart };

/** Draw the figures that are new on the page, forget those that are gone. */
function findCharts() {
  for (const figure of charts.keys()) if (!figure.isConnected) charts.delete(figure);
  for (const figure of document.querySelectorAll("[data-chart]")) {
    if (!charts.has(figure)) charts.set(figure, new KINDS[figure.dataset.chart](figure));
  }
}

for (const kind of ["metric", "progress", "gpu"]) {
  document.addEventListener(kind, (event) => {
    const message = JSON.parse(event.detail.data);
    for (const chart of charts.values()) if (chart.job === String(message.job_id)) chart.on(kind, message);
  });
}
/** No point will come to an ended job's chart that has none. */
document.addEventListener("finished", (event) => {
  const { job_id } = JSON.parse(event.detail.data);
  for (const [figure, chart] of charts) if (chart.job === String(job_id) && chart.known().length === 0) figure.remove();
});
document.addEventListener("htmx:after:swap", findCharts);
document.addEventListener("loradeck:theme", () => { for (const chart of charts.values()) chart.build(); });
findCharts();
