// Notifications of this browser, on every page that has the stream; static/notify_settings.js switches them on and off.
"use strict";

const NOTIFY_KEY = "notify";

/** Whether they are switched on, and this browser may show them. */
function notifies() {
  if (!isSecureContext || window.Notification?.permission !== "granted") return false;
  try { return localStorage.getItem(NOTIFY_KEY) === "on"; } catch { return false; /* nothing is kept here */ }
}

const NOTIFY_KINDS = ["train", "merge", "export"];
document.addEventListener("finished", (event) => {
  if (!notifies()) return;
  const { job_id, data } = JSON.parse(event.detail.data);
  if (!NOTIFY_KINDS.includes(data.kind) || data.status === "cancelled") return;
  const loss = data.summary?.eval_loss;
  const body = data.status === "completed" ? (loss == null ? "" : `eval loss ${loss.toPrecision(4)}`) : (data.error?.message ?? "");
  const shown = new Notification(`#${job_id} ${data.name}: ${data.status}`, { body, tag: `job-${job_id}` });
  shown.addEventListener("click", () => { focus(); location.assign(`/jobs/${job_id}`); });
});
