// What every page needs beside htmx: theme, the stream's bookkeeping, times in the reader's zone.
"use strict";

const byId = (id) => document.getElementById(id);

/** The theme in force: the reader's choice, else the system's. */
function currentTheme() {
  return document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

byId("theme-toggle").addEventListener("click", () => {
  const theme = currentTheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* it holds for this page at least */ }
  document.dispatchEvent(new CustomEvent("loradeck:theme"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("loradeck:theme")));

// --- The stream. A reconnect may replay events from where the page began: each id is let through once. ---
const TOO_LONG_MS = 5 * 60_000; // after so long a silence the page is read anew: a replay would take longer, and have gaps
const SILENT_MS = 45_000; // the server says something every 15 s
let connection = null; // of hx-sse
let lastEventId = 0;
let lastHeard = Date.now();

/** A name that the tabs of this browser share. They may open six connections in all; the server sees to it by this. */
function browserName() {
  try {
    localStorage.browser ??= Math.random().toString(36).slice(2);
    return localStorage.browser;
  } catch { return null; /* each tab is on its own */ }
}

document.addEventListener("htmx:config:request", (event) => {
  const { ctx } = event.detail, name = browserName();
  if (ctx.sourceElement.id !== "stream") return;
  if (document.hidden) event.preventDefault(); // a tab that nobody looks at needs no stream; it asks again once it is seen
  else if (name) ctx.request.headers["Loradeck-Browser"] = name;
});
document.addEventListener("htmx:sse:before:message", (event) => {
  const { event: kind, id } = event.detail.message;
  lastHeard = Date.now();
  if (kind === "reset") readAnew();
  else if (!kind || kind === "heartbeat" || !Number(id)) return;
  if (kind === "reset" || Number(id) <= lastEventId) event.preventDefault();
  else lastEventId = Number(id);
});
document.addEventListener("htmx:sse:after:connection", (event) => {
  connection = event.detail.connection;
  if (Date.now() - lastHeard > TOO_LONG_MS) readAnew();
  lastHeard = Date.now();
  showConnection(true);
  // hx-sse lets a stream go when its tab is hidden, but overlooks that while it connects: tell it again.
  setTimeout(() => { if (document.hidden) document.dispatchEvent(new Event("visibilitychange")); });
});
document.addEventListener("htmx:sse:error", () => showConnection(false));
document.addEventListener("htmx:error", (event) => { if (event.target.id === "stream") showConnection(false); });
// A page without a stream knows by its frame, which is asked for every few seconds.
document.addEventListener("htmx:error", (event) => { if (event.target.id === "frame" && !byId("stream")) showConnection(false); });
document.addEventListener("htmx:after:swap", (event) => { if (event.target.id === "frame" && !byId("stream")) showConnection(true); });
setInterval(() => { if (byId("stream") && !document.hidden && Date.now() - lastHeard > SILENT_MS) showConnection(false); }, 5000);
addEventListener("offline", () => { if (byId("stream")) showConnection(false); });

function showConnection(connected) { byId("connection").hidden = connected; }

/** What lies between is gone, or too much: show what the page would show now, and follow the stream from there. */
function readAnew() {
  htmx.ajax("GET", location.href, { target: "#main", select: "#main", swap: "outerMorph" });
}
document.addEventListener("htmx:before:swap", (event) => {
  if (event.detail.ctx.target.id !== "main") return;
  for (const figure of document.querySelectorAll("[data-chart]")) figure.remove(); // else morphing would keep their points
});
document.addEventListener("htmx:after:swap", (event) => {
  const stream = byId("stream");
  if (event.detail.ctx.target.id !== "main" || !stream) return;
  const { searchParams } = new URL(stream.getAttribute("hx-sse:connect"), location);
  lastEventId = Number(searchParams.get("after"));
  connection.lastEventId = String(lastEventId);
  connection.reader?.cancel(); // it connects again from there
});

/** A job's stream has nothing more to say after `finished`; an element that stays would connect again. */
document.addEventListener("finished", (event) => {
  const stream = byId("stream");
  const { job_id } = JSON.parse(event.detail.data);
  if (stream && stream.dataset.endWith === String(job_id)) setTimeout(() => stream.remove());
});

// --- Logged out, here or elsewhere: a page that is read anew leads to the login. ---
document.addEventListener("htmx:sse:error", (event) => { if (event.detail.status === 401) location.reload(); });
document.addEventListener("htmx:response:error", (event) => { if (event.detail.ctx.response.status === 401) location.reload(); });

// --- Failed requests: say so instead of swapping an error page into a region. ---
document.addEventListener("htmx:response:error", (event) => {
  const { ctx } = event.detail;
  if (ctx.response.status === 422 || ctx.response.status === 413 || ["stream", "frame"].includes(ctx.sourceElement.id)) return;
  showRequestError(`The dashboard answered ${ctx.response.status}. Reload the page, or look at the server's log.`);
});
document.addEventListener("htmx:after:swap", (event) => { if (event.target.id !== "frame") byId("request-error").hidden = true; });

function showRequestError(text) {
  const banner = byId("request-error");
  banner.textContent = `⚠ ${text}`;
  banner.hidden = false;
}

// --- A field that differs from the preset or the default says so while it is typed. ---
document.addEventListener("input", (event) => {
  const field = event.target.closest("[data-baseline]");
  if (!field) return;
  field.querySelector(".changed").hidden = event.target.value.trim() === field.dataset.baseline;
  for (const within of [field.closest("details"), field.closest("form")]) {
    const count = within?.querySelector(within.matches("form") ? "[data-changed-all]" : "[data-changed]");
    if (count) count.textContent = within.querySelectorAll(".changed:not([hidden])").length;
  }
});

// --- When the whole form comes again, it holds what the server says: morphing leaves fields as they were typed. ---
document.addEventListener("htmx:after:swap", (event) => {
  const form = event.detail.ctx.target.id === "job-form" && byId("job-form");
  for (const field of form ? form.elements : []) {
    if (field === document.activeElement) continue; // somebody types there
    if (field.matches("select")) for (const option of field.options) option.selected = option.defaultSelected;
    else if (field.matches("input, textarea")) field.value = field.defaultValue;
  }
});

// --- One click mends what a warning is about. ---
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-fill]");
  if (!button) return;
  const fields = [];
  for (const [name, value] of Object.entries(JSON.parse(button.dataset.fill))) {
    const field = byId(`field-${name}`);
    if (!field) continue; // not of the method that is chosen
    field.value = value ?? "";
    fields.push(field);
  }
  for (const field of fields) for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, { bubbles: true }));
  fields[0]?.focus();
});

// --- Copy a command. Browsers keep their clipboard from pages that come over plain HTTP, hence the textarea. ---
async function copyText(text) {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const copied = await copyText(byId(button.dataset.copy).textContent);
  button.focus();
  button.parentElement.querySelector("[role=status]").textContent = copied ? "copied" : "select it, and copy by keyboard";
});

// --- After each swap: titles, times, focus on the first field that is wrong. ---
function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    time.dataset.local = "";
    time.title = time.textContent;
    const moment = new Date(time.dateTime), near = "clock" in time.dataset && moment.toDateString() === new Date().toDateString();
    time.textContent = moment.toLocaleString([], near ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
  }
}

// --- Progress in the title and in the icon: of the page's job, else of the one that runs. ---
const pageTitle = document.title;
const plainIcon = byId("icon").href;

function refreshTitle() {
  const overview = byId("job-overview");
  const { percent } = (overview ?? byId("frame"))?.dataset ?? {}; // whoever is not logged in sees neither
  const title = overview ? `${overview.dataset.title} · Loradeck` : pageTitle;
  document.title = percent === undefined ? title : `${percent} % · ${title}`;
  const icon = percent === undefined ? plainIcon : drawIcon(percent / 100);
  if (byId("icon").href !== icon) byId("icon").href = icon;
}

/** A ring that is filled as far as the job is. */
function drawIcon(share) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 }), context = canvas.getContext("2d");
  for (const [to, colour] of [[1, "#8a93a3"], [share, "#1f7ae0"]]) {
    context.beginPath();
    context.arc(16, 16, 12, -Math.PI / 2, (2 * to - 0.5) * Math.PI);
    context.lineWidth = 7;
    context.strokeStyle = colour;
    context.stroke();
  }
  return canvas.toDataURL("image/png");
}

document.addEventListener("htmx:after:swap", (event) => {
  localTimes(document);
  refreshTitle();
  const source = event.detail?.ctx?.sourceElement;
  const wrong = source?.matches?.("form") && source.querySelector("[aria-invalid=true]");
  if (!wrong) return;
  wrong.closest("details")?.setAttribute("open", "");
  wrong.focus();
});
localTimes(document);
refreshTitle();
