// Notifications of this browser: switched on and off on their settings page, shown on every page that has the stream.
"use strict";

const NOTIFY_KEY = "notify";

/** Why this browser cannot, in words; null where it can. */
function whyNoNotifications() {
  if (!isSecureContext) return "This page came over plain HTTP, and browsers show notifications only for HTTPS and for localhost. Use a message above, for instance ntfy, or put HTTPS in front.";
  if (!("Notification" in window)) return "This browser has no notifications.";
  if (Notification.permission === "denied") return "This browser was told to refuse notifications of this page; its site settings change that.";
  return null;
}

function wantsNotifications() {
  try { return localStorage.getItem(NOTIFY_KEY) === "on"; } catch { return false; /* nothing is kept here */ }
}

function showNotifyState() {
  const button = document.querySelector("[data-notify-toggle]"), state = document.querySelector("[data-notify-state]");
  if (!button) return;
  const reason = whyNoNotifications(), on = !reason && wantsNotifications() && Notification.permission === "granted";
  button.hidden = Boolean(reason);
  button.textContent = on ? "Stop notifying me" : "Notify me in this browser";
  state.textContent = reason ?? (on ? "On." : "Off.");
}

document.addEventListener("click", async (event) => {
  if (!event.target.closest("[data-notify-toggle]")) return;
  const turnOn = !(wantsNotifications() && Notification.permission === "granted");
  if (turnOn) await Notification.requestPermission();
  try { localStorage.setItem(NOTIFY_KEY, turnOn && Notification.permission === "granted" ? "on" : "off"); } catch { /* said below */ }
  showNotifyState();
});

const NOTIFY_KINDS = ["train", "merge", "export"];
document.addEventListener("finished", (event) => {
  if (whyNoNotifications() || !wantsNotifications() || Notification.permission !== "granted") return;
  const { job_id, data } = JSON.parse(event.detail.data);
  if (!NOTIFY_KINDS.includes(data.kind) || data.status === "cancelled") return;
  const loss = data.summary?.eval_loss;
  const body = data.status === "completed" ? (loss == null ? "" : `eval loss ${loss.toPrecision(4)}`) : (data.error?.message ?? "");
  const shown = new Notification(`#${job_id} ${data.name}: ${data.status}`, { body, tag: `job-${job_id}` });
  shown.addEventListener("click", () => { focus(); location.assign(`/jobs/${job_id}`); });
});

showNotifyState();
