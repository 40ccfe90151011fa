// Switches the notifications of this browser on and off, on their settings page; static/notify.js shows them.
"use strict";

/** Why this browser cannot, in words; null where it can. */
function whyNoNotifications() {
  if (!isSecureContext) return "This page came over plain HTTP, and browsers show notifications only for HTTPS and for localhost. Use a message above, for instance ntfy, or put HTTPS in front.";
  if (!("Notification" in window)) return "This browser has no notifications.";
  if (Notification.permission === "denied") return "This browser was told to refuse notifications of this page; its site settings change that.";
  return null;
}

function showNotifyState() {
  const button = document.querySelector("[data-notify-toggle]"), state = document.querySelector("[data-notify-state]");
  const reason = whyNoNotifications();
  button.hidden = Boolean(reason);
  button.textContent = notifies() ? "Stop notifying me" : "Notify me in this browser";
  state.textContent = reason ?? (notifies() ? "On." : "Off.");
}

document.addEventListener("click", async (event) => {
  if (!event.target.closest("[data-notify-toggle]")) return;
  const turnOn = !notifies();
  if (turnOn) await Notification.requestPermission();
  try { localStorage.setItem(NOTIFY_KEY, turnOn && Notification.permission === "granted" ? "on" : "off"); } catch { /* said below */ }
  showNotifyState();
});

showNotifyState();
