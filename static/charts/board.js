// All charts of a page: one cursor, one zoom, one set of settings.

import { JobData } from "./job.js";
import { loadSettings, saveSettings } from "./settings.js";

const PIXELS_A_BUCKET = 0.5; // two buckets a pixel
const ZOOM_WAIT_MS = 60;
const FRAME_MS = 12;

export class Board {
  constructor() {
    this.settings = loadSettings();
    this.jobs = new Map();
    this.charts = new Map();
    this.zoomed = null; // {x, time}: [from, to] for charts along x, and for those along time
    this.pointing = false;
    this.waiting = []; // charts to be drawn
    this.framed = null;
    this.tools = document.querySelector("[data-chart-tools]");
    if (this.tools) this.watchTools();
  }

  job(id, url, more = {}) {
    if (!this.jobs.has(id)) {
      const job = new JobData(id, url, () => this.onData(job), more);
      this.jobs.set(id, job);
      queueMicrotask(() => job.load(this.settings.axis, this.buckets())); // once every chart has said what it wants
    }
    return this.jobs.get(id);
  }

  /** So many as the widest chart can show. */
  buckets() {
    const widths = [...this.charts.keys()].map((figure) => figure.clientWidth);
    return Math.round(Math.min(Math.max(Math.max(0, ...widths) / PIXELS_A_BUCKET, 200), 2400));
  }

  /** Draw the figures that are new on the page with `make`; forget those that are gone, and jobs that none shows. */
  find(make) {
    for (const figure of this.charts.keys()) if (!figure.isConnected) this.charts.delete(figure);
    for (const [id, job] of this.jobs) if (![...this.charts.values()].some((chart) => uses(chart, job))) this.jobs.delete(id);
    for (const figure of document.querySelectorAll("[data-chart]")) {
      if (!this.charts.has(figure)) this.charts.set(figure, make(figure, this));
    }
  }

  each(act) { for (const chart of this.charts.values()) act(chart); }

  /** Draw in one of the next frames: as many charts in each as leave it time for the reader. */
  draw(chart) {
    this.waiting.push(chart);
    this.framed ??= requestAnimationFrame(() => this.frame());
  }

  frame() {
    this.framed = null;
    const began = performance.now();
    while (this.waiting.length && performance.now() - began < FRAME_MS) {
      const chart = this.waiting.shift();
      chart.pending = false;
      if (chart.stale && chart.figure.isConnected) chart.refresh();
    }
    if (this.waiting.length) this.framed ??= requestAnimationFrame(() => this.frame());
  }

  onData(job) {
    this.follow(job);
    this.each((chart) => { if (uses(chart, job)) chart.schedule(); });
  }

  // --- Zoom. Charts along time show the same part of the run as those along x. ---
  zoom(chart, from, to) {
    if (!(from < to)) return;
    const job = chart.job ?? chart.sources[0].job, across = chart.timed && this.settings.axis !== "time";
    const other = [from, to].map((place) => (across ? job.placeAt?.(place) : this.settings.axis === "time" ? place : job.timeAt(place)));
    const pair = other[0] < other[1] ? other : null;
    this.show(across ? { x: pair, time: [from, to] } : { x: [from, to], time: pair });
    clearTimeout(this.zoomTimer);
    if (this.zoomed.x) this.zoomTimer = setTimeout(() => this.refine(), ZOOM_WAIT_MS);
  }

  /** Ask for the part in sight as fine as it can be shown. */
  refine() {
    if (!this.zoomed?.x) return;
    const [from, to] = this.zoomed.x;
    for (const job of this.jobs.values()) job.zoom(from, to, this.buckets()).catch((error) => console.warn("The zoomed part could not be read.", error));
  }

  reset() {
    if (!this.settings.follow) this.set("follow", true);
    clearTimeout(this.zoomTimer);
    for (const job of this.jobs.values()) job.leaveZoom();
    this.show(null);
  }

  show(zoomed) {
    this.zoomed = zoomed;
    const button = this.tools?.querySelector("[data-reset-zoom]");
    if (button) button.disabled = zoomed === null;
    this.each((chart) => chart.refresh());
  }

  range(_chart, first, last) { return this.zoomed?.x ?? [first, last]; }
  timeRange(_chart, first, last) { return this.zoomed?.time ?? [first, last]; }

  /** A zoom that reaches the newest point moves on with it. */
  follow(job) {
    const newest = job.newest?.x.at(-1), before = job.seenTo;
    job.seenTo = newest;
    if (!this.settings.follow || !this.zoomed?.x || newest === undefined || before === undefined || newest <= before) return;
    const [from, to] = this.zoomed.x;
    if (to < before) return;
    const x = [from + newest - to, newest].map((place) => place);
    const time = x.map((place) => (this.settings.axis === "time" ? place : job.timeAt(place)));
    this.zoomed = { x, time: time[0] < time[1] ? time : null };
  }

  // --- One cursor ---
  point(from, row) {
    if (this.pointing) return;
    this.pointing = true;
    from.read(row);
    const x = row == null ? null : from.data[0][row];
    const job = from.job ?? from.sources?.[0]?.job;
    const elsewhere = x == null || this.settings.axis === "time" ? x : from.timed ? job.placeAt?.(x) : job?.timeAt(x);
    this.each((chart) => {
      if (chart !== from) chart.showCursor(Boolean(chart.timed) === Boolean(from.timed) ? x : elsewhere ?? null);
    });
    this.pointing = false;
  }

  // --- Settings ---
  watchTools() {
    const { elements } = this.tools;
    elements.axis.value = this.settings.axis;
    elements.smoothing.value = this.settings.smoothing;
    for (const name of ["log", "clip", "follow"]) elements[name].checked = this.settings[name];
    this.tools.addEventListener("submit", (event) => event.preventDefault());
    this.tools.querySelector("[data-reset-zoom]").addEventListener("click", () => this.reset());
    this.tools.addEventListener("input", ({ target }) => {
      this.set(target.name, target.type === "checkbox" ? target.checked : target.type === "range" ? Number(target.value) : target.value);
    });
  }

  set(name, value) {
    this.settings[name] = value;
    saveSettings(this.settings);
    if (this.tools && typeof value === "boolean") this.tools.elements[name].checked = value;
    if (name === "axis") {
      for (const job of this.jobs.values()) { job.leaveZoom(); job.load(value, this.buckets()); }
      this.zoomed = null;
    }
    if (name === "axis" || name === "log") this.each((chart) => chart.build());
    if (name === "follow" && !value && !this.zoomed) this.freeze();
    else this.show(this.zoomed);
  }

  /** Keep what is in sight, whatever comes. */
  freeze() {
    const chart = [...this.charts.values()].find((each) => !each.timed && each.data[0].length);
    if (chart) this.show({ x: [chart.plot.scales.x.min, chart.plot.scales.x.max], time: [...this.charts.values()].filter((each) => each.timed).map((each) => [each.plot.scales.x.min, each.plot.scales.x.max])[0] ?? null });
  }
}

const uses = (chart, job) => chart.job === job || (chart.sources?.some((source) => source.job === job) ?? false);
