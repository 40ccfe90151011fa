// What is known of one job: its series in buckets from the server, then point by point from the stream.

import { Series, between, nearest } from "./series.js";
import { Readings } from "./readings.js";

const RETRY_MS = 3000;
export const MOST_ROWS = 2400; // twice as many as a chart of 600 pixels can show in pairs

export class JobData {
  /** `changed` is called after each change. `alone`: only series are asked for; `origin`: where x begins along time. */
  constructor(id, url, changed, { origin = 0, alone = false } = {}) {
    Object.assign(this, { id, url, changed, origin, alone });
    this.names = new Set();
    this.series = new Map();
    this.window = null; // {from, to, series}: a part of the run, read finer
    this.readings = new Readings();
    this.marks = [];
    this.axis = "step";
    this.after = 0; // the newest event that the rows know of
    this.waiting = null; // events that come while rows are read
    this.tokens = null;
  }

  want(names) { for (const name of names) this.names.add(name); }

  /** Read everything anew; what comes meanwhile is put behind it. */
  async load(axis, buckets) {
    if (axis !== this.axis) this.series = new Map(); // what is known stands elsewhere on x
    Object.assign(this, { axis, buckets, window: null });
    this.waiting ??= [];
    const ticket = this.ticket = Symbol("load");
    try {
      const answers = await Promise.all([
        this.names.size ? this.ask(axis, buckets) : {}, ...(this.alone ? [] : [this.read(`readings?buckets=${buckets}`), this.read("marks")]),
      ]);
      if (ticket !== this.ticket) return;
      const [chart, readings, marks] = answers;
      this.series = this.toSeries(chart.series ?? {});
      this.readings.load(readings ?? {});
      this.marks = marks?.marks ?? [];
      this.after = Math.min(chart.after ?? Infinity, readings?.after ?? Infinity);
    } catch (error) {
      if (ticket !== this.ticket) return;
      console.warn(`The charts of job ${this.id} could not be read; trying again.`, error);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      if (ticket === this.ticket) await this.load(axis, buckets);
      return;
    }
    const waiting = this.waiting;
    this.waiting = null;
    for (const [kind, message] of waiting) this.on(kind, message);
    this.changed();
  }

  /** Read a part of the run finer, with a tenth more on either side, so that smoothing and lines reach in from there. */
  async zoom(from, to, buckets) {
    const ticket = this.zoomTicket = Symbol("zoom");
    if (this.exact) return;
    const more = (to - from) / 10;
    const chart = await this.ask(this.axis, Math.round(buckets * 1.2), { from: from - more + this.shift, to: to + more + this.shift });
    if (ticket !== this.zoomTicket) return;
    this.window = { from, to, series: this.toSeries(chart.series) };
    this.changed();
  }

  leaveZoom() { this.window = this.zoomTicket = null; }

  get shift() { return this.axis === "time" ? this.origin : 0; }

  toSeries(answer) {
    const series = new Map(Object.entries(answer).map(([name, columns]) => [name, new Series(columns)]));
    if (this.shift) for (const each of series.values()) each.x = each.x.map((x) => x - this.shift);
    return series;
  }

  get exact() { return [...this.series.values()].every((series) => series.exact); }

  ask(axis, buckets, part = {}) {
    const query = new URLSearchParams({ names: [...this.names].join(","), x: axis, buckets, ...part });
    return this.read(`series?${query}`);
  }

  async read(what) {
    const answer = await fetch(`${this.url}/${what}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`${what}: ${answer.status}`);
    return answer.json();
  }

  on(kind, message) {
    if (this.waiting) { this.waiting.push([kind, message]); return; }
    if (message.id <= this.after) return;
    if (kind === "metric") this.put(message);
    if (kind === "gpu") this.readings.put(message.time, message.data);
    if (kind === "progress" && message.step < (this.newest?.step.at(-1) ?? -1)) this.load(this.axis, this.buckets); // an interrupted run goes on from there
    if (kind === "artifact" || kind === "finished" || (kind === "status" && message.data.status === "running")) this.readMarks();
    this.changed();
  }

  put({ step, time, data }) {
    if (data.tokens != null) this.tokens = data.tokens;
    const x = { step, time: time - this.origin, tokens: this.tokens ?? this.series.get("tokens")?.last.at(-1) ?? null }[this.axis];
    for (const name of Object.keys(data)) {
      if (!this.names.has(name)) continue;
      if (!this.series.has(name)) this.series.set(name, new Series());
      for (const series of [this.series.get(name), this.window?.series.get(name)]) {
        series?.put({ x, step, time, value: data[name] });
        series?.compact(2 * MOST_ROWS);
      }
    }
  }

  readMarks() {
    this.read("marks").then(({ marks }) => { this.marks = marks; this.changed(); }, (error) => console.warn(error));
  }

  /** The rows to draw of a series: the finer ones where a part was read. */
  rows(name) { return (this.window?.series ?? this.series).get(name) ?? new Series(); }

  /** The series that has come farthest, of those the longest: where its steps lie in time. */
  get newest() {
    let found = null;
    for (const series of this.series.values()) {
      const ahead = found ? series.step.at(-1) - found.step.at(-1) || series.length - found.length : 1;
      if (ahead > 0) found = series;
    }
    return found;
  }

  timeAt(x) { return this.newest && between(this.newest.x, this.newest.time, x); }
  placeAt(time) { return this.newest && between(this.newest.time, this.newest.x, time); }

  /** Where a mark stands on x; null where that cannot be told. */
  placeOf(mark) {
    if (this.axis === "time") return mark.time;
    if (this.axis === "step" && mark.step != null) return mark.step;
    if (!this.newest?.length) return null;
    return mark.step == null ? this.placeAt(mark.time) : this.newest.x[nearest(this.newest.step, mark.step)];
  }
}
