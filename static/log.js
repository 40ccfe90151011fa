// A job's log: follows its end until the reader scrolls up; where only some lines are asked for, so are the new ones.
"use strict";

const MAX_LOG_LINES = 2000;
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
const logAtEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 24;
let lastLevel = 1; // of a line without one, as in a traceback: that of the line before

/** Whether a log that shows only some lines shows this one. */
function isWanted(line, { search = "", level = "" }) {
  const named = line.match(/^\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) /);
  if (named) lastLevel = LEVELS.indexOf(named[1]);
  return lastLevel >= LEVELS.indexOf(level) && line.toLowerCase().includes(search.toLowerCase());
}

function toLogEnd() {
  const log = byId("log");
  if (log) log.scrollTop = log.scrollHeight;
}

document.addEventListener("scroll", (event) => {
  if (event.target.id !== "log") return;
  const log = event.target, following = logAtEnd(log);
  if (log.dataset.paused !== undefined && !following) return;
  delete log.dataset.paused;
  if (!following) log.dataset.paused = "";
  byId("log-state").textContent = following || !log.dataset.log ? "" : "paused; scroll to the end to follow";
}, true);
document.addEventListener("log", (event) => {
  const { job_id, data } = JSON.parse(event.detail.data), log = byId("log");
  if (!log || String(job_id) !== log.dataset.log) return;
  const wanted = data.lines.filter((line) => isWanted(line, log.dataset));
  if (!wanted.length) return;
  const lines = log.textContent.split("\n").slice(0, -1).concat(wanted);
  log.textContent = lines.slice(-MAX_LOG_LINES).map((line) => `${line}\n`).join("");
  if (log.dataset.paused === undefined) toLogEnd();
});
document.addEventListener("htmx:after:swap", (event) => { if (event.detail.ctx.target.id === "log-region") toLogEnd(); });
toLogEnd();
