// The charts of the dashboard and of a job's page: found on the page, then fed by the stream's events.

import { Board } from "./board.js";
import { makeChart } from "./kinds.js";

const board = new Board();
const find = () => board.find(makeChart);

for (const kind of ["metric", "progress", "gpu", "artifact", "status", "finished"]) {
  document.addEventListener(kind, (event) => {
    const message = JSON.parse(event.detail.data);
    board.jobs.get(String(message.job_id))?.on(kind, message);
  });
}

/** No point will come to an ended job's chart that has none. */
document.addEventListener("finished", (event) => {
  const { job_id } = JSON.parse(event.detail.data);
  for (const figure of document.querySelectorAll(`[data-chart][data-job="${job_id}"].no-points`)) figure.remove();
});
document.addEventListener("htmx:after:swap", find);
document.addEventListener("loradeck:theme", () => board.each((chart) => chart.build()));
find();
