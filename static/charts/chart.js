// One figure: its plot, legend, readout and what it says aloud. What it shows is its subclass's matter.

import { nearest } from "./series.js";
import { drawMarks, MARKS } from "./marks.js";
import { watchKeys } from "./keys.js";
import { pad } from "./scales.js";

export const css = (name) => (name.startsWith("--") ? getComputedStyle(document.documentElement).getPropertyValue(name).trim() : name);
const HEIGHT = 220;
const NEAR_PIXELS = 6;
const MOST_DOTS = 60;
const UNSEEN_MS = 1000;

/** A line needs two points; fewer are drawn as dots. */
export const few = (plot) => plot.data[0].length < 3;

/** Dots mark the points of a line that has few; many would cover it. */
const sparse = (plot, series) => plot.data[series].reduce((count, value) => count + (value == null ? 0 : 1), 0) <= MOST_DOTS;

export class Chart {
  /** `more`: what the subclass needs before it builds. */
  constructor(figure, board, more = {}) {
    Object.assign(this, { figure, board, pending: false, seen: true, idx: null, ...more });
    this.box = figure.querySelector("[data-plot]");
    this.title = figure.querySelector(".chart-title").textContent;
    this.options = JSON.parse(figure.querySelector("[data-options]")?.textContent ?? "{}");
    figure.querySelector("[data-table]").addEventListener("toggle", () => this.fillTable());
    figure.querySelector("[data-png]")?.addEventListener("click", async () => (await import("./picture.js")).savePng(this));
    this.box.addEventListener("pointerdown", async (event) => { if (event.pointerType === "touch") (await import("./touch.js")).touch(this, event); });
    new ResizeObserver(() => this.resize()).observe(this.box);
    new IntersectionObserver(([entry]) => this.see(entry.isIntersecting)).observe(figure);
    watchKeys(this);
    this.build();
  }

  // --- What a subclass says: ---
  /** Its lines: {label, stroke, width, dash, alpha, dots, aside, keyless}. One that is `aside` is the edge of a band. */
  lines() { return []; }
  /** [x, …a column for each line], values as they are read aloud. */
  collect() { return [[], ...this.lines().map(() => [])]; }
  /** What is drawn of them. */
  drawn(columns) { return columns; }
  /** [first, last] of x. */
  xRange(first, last) { return [first, last]; }
  yRange(low, high) { return pad(low, high); }
  yAxis() { return {}; }
  xAxis() { return {}; }
  bands() { return []; }
  drawBelow() {}
  drawAbove() {}
  extraKeys() { return []; }
  marks() { return []; }
  /** The whole range of x that there is. */
  whole() { return [this.data[0][0], this.data[0].at(-1)]; }
  // ---

  get heading() { return this.figure.dataset.job ? `Job #${this.figure.dataset.job}: ${this.title}` : this.title; }

  build() {
    this.plot?.destroy();
    this.shape = this.lines();
    this.data = this.collect();
    const axis = { stroke: css("--chart-text"), grid: { stroke: css("--chart-grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.width(), height: HEIGHT, legend: { show: false }, padding: [10, this.xAxis().space / 2.6, 0, 0], // half of the widest tick
      scales: { x: { time: false, range: (_plot, low, high) => [low ?? 0, high ?? 1] }, y: { range: (_plot, low, high) => this.yRange(low, high) } },
      axes: [{ ...axis, size: 34, ...this.xAxis() }, { ...axis, size: 62, values: (_plot, ticks) => ticks.map((tick) => this.format(tick)), ...this.yAxis() }],
      series: [{}, ...this.shape.map((line) => this.series(line))],
      bands: this.bands(),
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 6 }, bind: { dblclick: () => () => { this.board.reset(); } } },
      hooks: {
        drawClear: [() => this.drawBelow()],
        draw: [() => { this.drawAbove(); drawMarks(this); this.tellRanges(); }],
        setCursor: [(plot) => { if (this.hovered) this.board.point(this, plot.cursor.idx); }],
        setSelect: [(plot) => this.select(plot)],
      },
    }, [this.data[0], ...this.drawn(this.data.slice(1))], this.box);
    this.plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
    this.plot.over.addEventListener("mouseenter", () => { this.hovered = true; });
    this.plot.over.addEventListener("mouseleave", () => { this.hovered = false; this.board.point(this, null); });
    this.refresh();
  }

  series({ stroke, alpha = 1, width = 2, dash, dots, aside }) {
    const colour = css(stroke);
    if (aside) return { stroke: `${colour}70`, width: 1, points: { show: false } };
    return { stroke: colour, alpha, width, dash, points: dots ? { show: sparse, size: 7, fill: colour } : { show: few, size: 4 } };
  }

  width() { return Math.max(200, Math.floor(this.box.clientWidth)); }

  resize() {
    if (this.width() !== this.plot.width) this.plot.setSize({ width: this.width(), height: HEIGHT });
  }

  /** Whether it is in sight: what nobody sees is drawn seldom. */
  see(seen) {
    this.seen = seen;
    if (seen && this.stale) this.refresh();
  }

  /** Many points may come between two frames; draw once. */
  schedule() {
    this.stale = true;
    if (this.pending) return;
    this.pending = true;
    if (this.seen || !this.data[0].length) this.board.draw(this);
    else setTimeout(() => this.board.draw(this), UNSEEN_MS);
  }

  refresh() {
    this.stale = false;
    const place = this.idx == null ? null : this.data[0][this.idx];
    this.data = this.collect();
    if (place != null) this.idx = nearest(this.data[0], place); // rows may have become finer
    const [x, ...columns] = this.data;
    const [from, to] = x.length ? this.xRange(x[0], x.at(-1)) : [0, 1];
    this.plot.batch(() => {
      this.plot.setData([x, ...this.drawn(columns)], false);
      this.plot.setScale("x", from < to ? { min: from, max: to } : { min: from - 1, max: from + 1 });
    });
    if (place != null && !this.hovered) queueMicrotask(() => this.showCursor(place)); // once the scale has moved
    this.drawLegend();
    this.describeAloud();
    this.fillTable();
    this.figure.dataset.drawn = String(Number(this.figure.dataset.drawn ?? 0) + 1);
  }

  /** Where "Show data" is open. What few readers want is loaded when they do. */
  async fillTable() {
    if (this.figure.querySelector("[data-table]").open) (await import("./table.js")).fillTable(this);
  }

  /** What is in sight, for scripts and tests: a canvas tells nothing. */
  tellRanges() {
    const { x, y } = this.plot.scales;
    Object.assign(this.figure.dataset, { range: JSON.stringify([x.min, x.max]), top: String(this.log ? 10 ** y.max : y.max) });
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width > NEAR_PIXELS) this.board.zoom(this, plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
    if (width) plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }

  /** Put the cursor onto the row that is nearest to a place on x; take it away at null. */
  showCursor(x) {
    const row = x == null ? -1 : nearest(this.data[0], x);
    const left = row < 0 ? -10 : this.plot.valToPos(this.data[0][row], "x");
    this.plot.setCursor({ left, top: row < 0 ? -10 : 10 }, false);
    this.read(row < 0 ? null : row);
  }

  /** The lines that hold a value, each with its column. */
  known() {
    return this.shape.map((line, index) => ({ ...line, values: this.data[index + 1] }))
      .filter(({ label, values }) => label && values.some((value) => value != null));
  }

  read(row) {
    this.idx = row;
    this.figure.querySelector("[data-readout]").textContent = row == null ? "" : this.tell(row);
  }

  tell(row) {
    const x = this.data[0][row];
    const told = this.known().filter(({ values }) => values[row] != null).map(({ label, values }) => `${label} ${this.format(values[row])}`);
    const near = this.marks().filter((mark) => Math.abs(this.plot.valToPos(mark.x, "x") - this.plot.valToPos(x, "x")) < NEAR_PIXELS);
    return `${this.xText(x)}: ${[...told, ...near.map(({ label }) => label)].join(" · ") || "no finite value"}`;
  }

  drawLegend() {
    const kinds = new Set(this.marks().map(({ kind }) => kind));
    const keys = [...this.known().filter(({ keyless }) => !keyless), ...this.extraKeys(), ...[...kinds].map((kind) => ({ label: `${MARKS[kind].sign} ${MARKS[kind].label}` }))];
    const wanted = keys.map(({ label }) => label).join("\n");
    const legend = this.figure.querySelector("[data-legend]");
    if (legend.dataset.keys === wanted) return;
    legend.dataset.keys = wanted;
    legend.replaceChildren(...keys.map(({ label, stroke, dash, width = 2, look }) => {
      const item = document.createElement("li");
      if (stroke || look) {
        const key = item.appendChild(document.createElement("span"));
        key.className = look ?? "key";
        key.setAttribute("aria-hidden", "true");
        if (stroke) Object.assign(key.style, { borderTopColor: css(stroke), borderTopStyle: dash ? (dash[0] > 3 ? "dashed" : "dotted") : "solid", borderTopWidth: `${Math.max(1, Math.round(width))}px` });
      }
      item.append(label);
      return item;
    }));
  }

  describeAloud() {
    const last = this.known().map(({ label, values }) => `${label} ${this.format(values.findLast((value) => value != null))}`);
    const count = this.count();
    this.box.setAttribute("aria-label", `${this.title}: ${last.length ? `${count} points; latest ${last.join(", ")}` : "no points yet"}`);
    this.figure.classList.toggle("no-points", last.length === 0);
    this.figure.dataset.points = String(count);
  }

  /** How many points the rows stand for. */
  count() { return this.data[0].length; }
}
