// How the reader wants the charts, kept by the browser where it keeps anything.

const KEY = "charts";
const DEFAULTS = { axis: "step", smoothing: 0.6, log: false, clip: false, follow: true };

/** The stored settings; of what is not there, or not of its kind, the default. */
export function loadSettings() {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
  } catch { /* storage is blocked, or holds something else: the defaults hold */ }
  const settings = { ...DEFAULTS };
  for (const [name, value] of Object.entries(DEFAULTS)) if (typeof stored[name] === typeof value) settings[name] = stored[name];
  if (!["step", "time", "tokens"].includes(settings.axis)) settings.axis = DEFAULTS.axis;
  settings.smoothing = Math.min(Math.max(settings.smoothing, 0), 0.98);
  return settings;
}

export function saveSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch { /* they hold for this page at least */ }
}
