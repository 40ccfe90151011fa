// Series of numbers by step, time or tokens: raw and smoothed, with a band from the least to the most of each bucket.

import { Chart, css } from "./chart.js";
import { drawMissing } from "./marks.js";
import { smooth } from "./smooth.js";
import { AXES, logTicks, logarithms, middle, pad, short, SECONDS } from "./scales.js";

export class MetricChart extends Chart {
  /** `sources`: {job, name, label, stroke, dash, dots, smooth}, one for each series; `look`: {log, range, axes, compared}. */
  constructor(figure, board, sources, look = {}) {
    super(figure, board, { sources, look, rows: [] });
  }

  get log() { return Boolean(this.board.settings.log && this.look.log); }
  get axis() { return (this.look.axes ?? AXES)[this.board.settings.axis]; }
  get xLabel() { return this.axis.label; }
  xText(x) { return this.axis.text(x); }
  format(value) { return short(value); }

  /** For each source: its band's ends, its rows, and smoothed where it is to be. */
  lines() {
    return this.sources.flatMap(({ label, stroke, dash, dots, smooth: smoothed }) => {
      const edges = [{ stroke, aside: true }, { stroke, aside: true }];
      if (!smoothed) return [...edges, { label, stroke, dash, dots, width: 1.8 }];
      const [raw, over] = this.look.compared ? [`${label} raw`, label] : [label, `smoothed ${label}`];
      return [...edges, { label: raw, stroke, alpha: 0.55, width: 1, keyless: this.look.compared }, { label: over, stroke, dash, width: 2.5 }];
    });
  }

  bands() {
    let at = 1;
    return this.sources.map(({ stroke, smooth: smoothed }) => {
      const band = { series: [at, at + 1], fill: `${css(stroke)}38` };
      at += smoothed ? 4 : 3;
      return band;
    });
  }

  collect() {
    this.rows = this.sources.map(({ job, name }) => job.rows(name));
    const x = union(this.rows.map((rows) => rows.x));
    const factor = this.board.settings.smoothing;
    return [x, ...this.sources.flatMap(({ smooth: smoothed }, index) => {
      const rows = this.rows[index], bucketed = !rows.exact;
      const place = (column) => align(x, rows.x, column);
      const columns = [bucketed ? place(rows.max) : [], bucketed ? place(rows.min) : [], place(rows.mean)];
      return smoothed ? [...columns, place(factor > 0 ? smooth(rows.x, rows.mean, factor) : [])] : columns;
    })];
  }

  drawn(columns) { return this.log ? columns.map(logarithms) : columns; }

  count() { return this.rows.every((rows) => rows.exact) ? this.data[0].length : Math.max(...this.rows.map((rows) => rows.total)); }

  xRange(first, last) { return this.board.range(this, first, last); }

  whole() {
    const all = this.sources.map(({ job, name }) => job.series.get(name)?.x ?? []).filter((x) => x.length);
    return [Math.min(...all.map((x) => x[0])), Math.max(...all.map((x) => x.at(-1)))];
  }

  yRange(low, high) {
    if (this.look.range) return this.look.range;
    return pad(...(this.board.settings.clip ? this.clipped() : null) ?? [low, high]);
  }

  /** The middle of what is in sight, bands left out. */
  clipped() {
    const [from, to] = this.plot.series[0].idxs ?? [0, this.data[0].length - 1];
    const seen = this.plot.data.slice(1).filter((_, index) => !this.shape[index].aside);
    return middle(seen.flatMap((column) => Array.from(column).slice(from, to + 1)));
  }

  xAxis() {
    const timed = this.board.settings.axis === "time";
    return { space: timed ? 90 : 60, ...(timed ? { incrs: SECONDS } : {}), values: (_plot, ticks, _axis, _space, step) => ticks.map((tick) => this.axis.tick(tick, step)) };
  }

  yAxis() {
    return this.log ? { splits: (_plot, _axis, low, high) => logTicks(low, high), values: (_plot, ticks) => ticks.map((tick) => short(10 ** tick)) } : {};
  }

  marks() {
    const { job } = this.sources[0] ?? {};
    return this.look.compared || !job ? [] : job.marks.map((mark) => ({ ...mark, x: job.placeOf(mark) }));
  }

  drawAbove() {
    drawMissing(this, this.rows.flatMap((rows) => rows.x.filter((_, row) => rows.missing[row] > 0)));
  }

  extraKeys() {
    const missing = this.rows.reduce((sum, rows) => sum + rows.missing.reduce((all, count) => all + count, 0), 0);
    const below = this.log ? this.rows.reduce((sum, rows) => sum + rows.min.filter((value) => value !== null && value <= 0).length, 0) : 0;
    return [
      ...(this.rows.some((rows) => !rows.exact) ? [{ label: "band: least to most of each bucket", look: "key key-band" }] : []),
      ...(missing ? [{ label: `× ${missing} not finite` }] : []),
      ...(below ? [{ label: `${below} at or below 0, which a log axis cannot show` }] : []),
      ...(this.board.settings.clip && !this.look.range ? [{ label: "y clipped to the middle 96 %" }] : []),
    ];
  }
}

/** Ascending places of several ascending columns, each once. */
function union(columns) {
  const some = columns.filter((column) => column.length);
  if (some.length < 2) return (some[0] ?? []).filter((x) => x != null);
  const all = Float64Array.from(some.flat().filter((x) => x != null)).sort();
  return Array.from(all).filter((x, row) => row === 0 || x !== all[row - 1]);
}

/** A column's values at the places of `x`; undefined where it has none, which is no gap. */
function align(x, places, column) {
  const aligned = new Array(x.length).fill(undefined);
  let at = 0;
  for (let row = 0; row < column.length; row += 1) {
    while (at < x.length && x[at] < places[row]) at += 1;
    if (x[at] === places[row]) aligned[at] = column[row];
  }
  return aligned;
}
