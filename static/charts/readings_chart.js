// Readings over time: memory with the planned peak behind it, or the GPU's load and temperature.

import { Chart, css } from "./chart.js";
import { AXES, GIB, gib, SECONDS } from "./scales.js";

class ReadingsChart extends Chart {
  constructor(figure, board, job) { super(figure, board, { job }); }

  get xLabel() { return "time"; }
  xText(x) { return AXES.time.text(x); }
  xAxis() { return { space: 90, incrs: SECONDS, values: (_plot, ticks, _axis, _space, step) => ticks.map((tick) => AXES.time.tick(tick, step)) }; }
  xRange(first, last) { return this.board.timeRange(this, first, last); }
  get timed() { return true; }

  /** Those of the page itself, where the server chose them. */
  get readings() { return this.job.readings; }

  collect() { return this.readings.columns(this.shape.map(({ name }) => name)); }
  marks() { return this.options.readings ? [] : this.job.marks.map((mark) => ({ ...mark, x: mark.time })); }
  count() { return this.readings.length; }
}

export class MemoryChart extends ReadingsChart {
  format(value) { return gib(value); }
  yAxis() { return { values: (_plot, ticks) => ticks.map((tick) => `${Number(tick.toPrecision(3))} GiB`) }; }

  lines() {
    this.onDevice = this.readings.has("vram_used_bytes");
    const [used, mine, cap] = this.onDevice
      ? [["vram_used_bytes", "VRAM used, whole device"], ["process_vram_bytes", "VRAM of this job's process"], ["vram_total_bytes", "VRAM total"]]
      : [["ram_used_bytes", "host RAM used"], ["child_rss_bytes", "resident memory of this job's process"], ["ram_total_bytes", "host RAM total"]];
    return [
      { name: used[0], label: used[1], stroke: "--series-used" },
      { name: mine[0], label: mine[1], stroke: "--series-mine", dash: [8, 3] },
      { name: cap[0], label: cap[1], stroke: "--series-cap", dash: [2, 4], width: 1.5 },
    ];
  }

  /** In GiB, so that the axis has round numbers. */
  collect() {
    const [x, ...columns] = super.collect();
    return [x, ...columns.map((values) => values.map((value) => (value == null ? value : value / GIB)))];
  }

  refresh() {
    if (this.readings.has("vram_used_bytes") === this.onDevice) super.refresh();
    else this.build();
  }

  yRange(_low, high) { return [0, high == null ? 1 : Math.max(high, this.onDevice ? this.predictedPeak() : 0) * 1.05]; }

  get predicted() { return Object.entries(this.options.predicted ?? {}).filter(([, bytes]) => bytes > 0); }
  predictedPeak() { return this.predicted.reduce((sum, [, bytes]) => sum + bytes, 0) / GIB; }

  /** The planned peak's components one on the other, as bands behind the readings of the device. */
  drawBelow() {
    if (!this.onDevice) return;
    const { ctx, bbox } = this.plot;
    let below = 0;
    ctx.save();
    ctx.globalAlpha = 0.28;
    for (const [name, bytes] of this.predicted) {
      const top = Math.max(this.plot.valToPos((below + bytes) / GIB, "y", true), bbox.top);
      const bottom = Math.min(this.plot.valToPos(below / GIB, "y", true), bbox.top + bbox.height);
      ctx.fillStyle = css(`--fit-${name}`);
      ctx.fillRect(bbox.left, top, bbox.width, bottom - top);
      below += bytes;
    }
    ctx.restore();
  }

  extraKeys() {
    return this.onDevice ? this.predicted.map(([name, bytes]) => ({ look: `fit-key fit-${name}`, label: `planned ${name} ${gib(bytes / GIB)}` })) : [];
  }
}

export class GpuChart extends ReadingsChart {
  format(value) { return value == null ? "n/a" : String(Math.round(value)); }
  yRange() { return [0, 105]; }

  lines() {
    return [
      { name: "utilization_percent", label: "busy, %", stroke: "--series-used" },
      { name: "temperature_celsius", label: "temperature, °C", stroke: "--series-eval", dash: [8, 3] },
    ];
  }
}

export class PowerChart extends ReadingsChart {
  format(value) { return value == null ? "n/a" : `${Math.round(value)} W`; }
  yRange(_low, high) { return [0, high == null ? 1 : high * 1.1]; }

  lines() { return [{ name: "power_watts", label: "power", stroke: "--series-mine" }]; }
}
