// Several runs laid over each other: one chart a series, one line a run.

import { Board } from "./board.js";
import { MetricChart } from "./metric_chart.js";
import { AXES } from "./scales.js";

const COLOURS = 6;
const DASHES = [undefined, [8, 3], [2, 4], [12, 3, 2, 3], [5, 5]]; // as templates/compare/show.html draws them
const runs = JSON.parse(document.getElementById("compared").textContent);
const board = new Board();

function makeChart(figure) {
  const name = figure.dataset.series;
  const sources = runs.map(({ id, url, label, origin }, number) => {
    const job = board.job(String(id), url, { origin, alone: true });
    job.want([name]);
    return { job, name, label, stroke: `--run-${number % COLOURS}`, dash: DASHES[number % DASHES.length], smooth: name !== "eval_loss", dots: name === "eval_loss" };
  });
  return new MetricChart(figure, board, sources, { log: true, compared: true, axes: { ...AXES, time: AXES.elapsed } });
}

for (const kind of ["metric", "progress"]) {
  document.addEventListener(kind, (event) => {
    const message = JSON.parse(event.detail.data);
    board.jobs.get(String(message.job_id))?.on(kind, message);
  });
}
document.addEventListener("loradeck:theme", () => board.each((chart) => chart.build()));
board.find(makeChart);
