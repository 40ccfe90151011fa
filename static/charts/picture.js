// A chart as a PNG file: its canvas on the page's background, with title and legend.

const EDGE = 12, LINE = 20;

export function savePng(chart) {
  const plot = chart.plot.root.querySelector("canvas"), ratio = devicePixelRatio;
  const keys = chart.known();
  const canvas = document.createElement("canvas");
  canvas.width = plot.width + 2 * EDGE * ratio;
  canvas.height = plot.height + (2 * EDGE + 2 * LINE) * ratio;
  const ctx = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  ctx.fillStyle = getComputedStyle(document.body).backgroundColor;
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(plot, EDGE * ratio, (EDGE + LINE) * ratio);
  ctx.scale(ratio, ratio);
  ctx.fillStyle = style.getPropertyValue("--chart-text").trim();
  ctx.font = "600 14px system-ui, sans-serif";
  ctx.fillText(chart.heading, EDGE, EDGE + 12);
  ctx.font = "12px system-ui, sans-serif";
  let left = EDGE;
  const foot = canvas.height / ratio - EDGE;
  for (const { label, stroke } of keys) {
    ctx.fillStyle = stroke.startsWith("--") ? style.getPropertyValue(stroke).trim() : stroke;
    ctx.fillRect(left, foot - 6, 18, 3);
    ctx.fillStyle = style.getPropertyValue("--chart-text").trim();
    ctx.fillText(label, left + 22, foot);
    left += 40 + ctx.measureText(label).width;
  }
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `loradeck-${chart.heading.replace(/[^\p{L}\p{N}]+/gu, "-").toLowerCase()}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }, "image/png");
}
