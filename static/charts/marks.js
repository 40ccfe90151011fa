// Moments of a run as lines across its charts: checkpoints, further attempts, and where it failed.

export const MARKS = {
  checkpoint: { sign: "▼", label: "checkpoint", colour: "--good" },
  resume: { sign: "↻", label: "another attempt", colour: "--busy" },
  out_of_memory: { sign: "✕", label: "out of memory", colour: "--bad" },
  failed: { sign: "✕", label: "failed", colour: "--bad" },
};

export function drawMarks(chart) {
  const { ctx, bbox, scales } = chart.plot;
  const colours = getComputedStyle(document.documentElement);
  ctx.save();
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textAlign = "center";
  for (const { kind, x } of chart.marks()) {
    if (x == null || x < scales.x.min || x > scales.x.max) continue;
    const at = Math.round(chart.plot.valToPos(x, "x", true));
    ctx.strokeStyle = ctx.fillStyle = colours.getPropertyValue(MARKS[kind].colour).trim();
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.fillText(MARKS[kind].sign, at, bbox.top);
  }
  ctx.restore();
}

/** A cross at the foot for each row with values that were not finite. */
export function drawMissing(chart, places) {
  const { ctx, bbox, scales } = chart.plot;
  ctx.save();
  ctx.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--bad").trim();
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textAlign = "center";
  for (const x of places) {
    if (x >= scales.x.min && x <= scales.x.max) ctx.fillText("×", chart.plot.valToPos(x, "x", true), bbox.top + bbox.height - 2);
  }
  ctx.restore();
}
