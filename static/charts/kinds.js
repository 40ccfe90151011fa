// Which series each kind of chart shows, and how.

import { MetricChart } from "./metric_chart.js";
import { GpuChart, MemoryChart, PowerChart } from "./readings_chart.js";
import { Readings } from "./readings.js";

const main = (name, label) => ({ name, label, stroke: "--series-loss", smooth: true });
const plain = (name, label, stroke = "--series-loss", dash = undefined) => ({ name, label, stroke, dash });
/** A value measured on held-out rows, at a few steps. */
const evals = (name, label) => ({ name, label, stroke: "--series-eval", dash: [6, 4], dots: true });

const METRICS = {
  loss: { sources: [main("loss", "loss"), evals("eval_loss", "eval loss")], log: true },
  // DPO: how far the chosen answers are ahead of the rejected ones, and what each side does.
  rewards: {
    sources: [
      main("rewards_margin", "margin"), plain("rewards_chosen", "chosen", "--series-mine", [8, 3]),
      plain("rewards_rejected", "rejected", "--series-used", [2, 4]), evals("eval_rewards_margin", "eval margin"),
    ],
  },
  accuracy: { sources: [main("rewards_accuracy", "accuracy"), evals("eval_rewards_accuracy", "eval accuracy")], range: [0, 1.02] },
  learning_rate: { sources: [plain("learning_rate", "learning rate")], log: true },
  grad_norm: { sources: [main("grad_norm", "gradient norm")], log: true },
  speed: { sources: [main("tokens_per_second", "tokens/s")] },
};
const READINGS = { memory: MemoryChart, gpu: GpuChart, power: PowerChart };

/** Make the chart of a figure. */
export function makeChart(figure, board) {
  const { chart: kind, job: id, url } = figure.dataset;
  if (kind in READINGS) return new READINGS[kind](figure, board, jobOf(figure, board, id, url));
  const { sources, ...look } = METRICS[kind];
  const job = board.job(id, url);
  job.want(sources.map(({ name }) => name));
  return new MetricChart(figure, board, sources.map((source) => ({ job, ...source })), look);
}

/** Readings that the page brought itself stand for a job that nothing more comes of. */
function jobOf(figure, board, id, url) {
  const options = JSON.parse(figure.querySelector("[data-options]")?.textContent ?? "{}");
  if (!options.readings) return board.job(id, url);
  const readings = new Readings();
  readings.load(options.readings);
  return { readings, marks: [] };
}
