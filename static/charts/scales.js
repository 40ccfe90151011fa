// Ranges, ticks and words of the axes.

export const GIB = 2 ** 30;
const CLIPPED = 0.02; // at either end

/** A number in four figures; a small one by its power of ten, so that no axis cuts it. */
export function short(value) {
  if (value == null) return "n/a";
  const rounded = Number(value.toPrecision(4));
  return rounded && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : String(rounded);
}
export const gib = (value) => (value == null ? "n/a" : `${value.toFixed(2)} GiB`);
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });

/** How places on x are told, by what stands there. */
export const AXES = {
  step: { label: "step", text: (x) => `step ${x.toLocaleString("en")}`, tick: (x) => (Number.isInteger(x) ? (x < 1e5 ? x.toLocaleString("en") : compact.format(x)) : "") },
  tokens: { label: "tokens", text: (x) => `${x.toLocaleString("en")} tokens`, tick: (x) => compact.format(x) },
  time: { label: "time", text: (x) => new Date(x * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" }), tick: clock },
  elapsed: { label: "time since the start", text: elapsed, tick: elapsed },
};
export const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800];

function clock(seconds, step = 0) {
  const at = new Date(seconds * 1000);
  if (step >= 86400) return at.toLocaleDateString([], { month: "short", day: "numeric" });
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}), hour12: false });
  return step >= 7200 ? `${at.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}` : time;
}

function elapsed(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), two = (number) => String(Math.floor(number)).padStart(2, "0");
  return hours ? `${hours}h ${two(minutes % 60)}m` : `${minutes}m ${two(seconds % 60)}s`;
}

/** A range with room around it; one value, or several that differ by rounding alone, lie in its middle. */
export function pad(low, high) {
  if (low == null || high == null) return [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high));
  const spread = high - low > 1e-9 * size ? high - low : size || 1;
  return [low - 0.08 * spread, high + 0.08 * spread];
}

/** Where the middle 96 % of some values lie; null without any. */
export function middle(values) {
  const sorted = values.filter((value) => value != null).sort((a, b) => a - b);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return sorted.length ? [at(CLIPPED), at(1 - CLIPPED)] : null;
}

/** log10 of each value; what has none is a gap. The chart draws these on an even scale: uPlot's own log scale can hang. */
export const logarithms = (values) => values.map((value) => (value === undefined ? undefined : value > 0 ? Math.log10(value) : null));

/** Ticks of an axis of logarithms: 1, 2, 5, 10, … and within less than a decade even ones. */
export function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const digit of [1, 2, 5]) ticks.push(Math.log10(digit) + power);
  }
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  if (inside.length > 12) return inside.filter((tick) => Number.isInteger(tick));
  if (inside.length >= 3) return inside;
  const from = 10 ** low, to = 10 ** high, rough = (to - from) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= rough);
  const even = [];
  for (let value = Math.ceil(from / step) * step; value <= to; value += step) even.push(Math.log10(value));
  return even;
}
