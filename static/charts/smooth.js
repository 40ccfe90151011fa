// Smoothing: an exponential moving average over the means of all rows, before anything is left out for drawing.

const FINEST = 1000; // a run is smoothed as if it had at most so many points: a longer one looks alike, not rougher

/**
 * Weighted by the distance between rows, and freed of its start's bias.
 * `factor` is what is kept from a point to the next: 0 keeps nothing. Rows without a finite value stay gaps.
 */
export function smooth(x, means, factor) {
  const finite = means.reduce((count, value) => count + (value == null ? 0 : 1), 0);
  const unit = (x.at(-1) - x[0]) / Math.min(Math.max(finite - 1, 1), FINEST) || 1;
  let mean = 0, weight = 0, last = null;
  return means.map((value, row) => {
    if (value == null) return null;
    const kept = last === null ? factor : factor ** Math.max((x[row] - last) / unit, 1e-6);
    mean = mean * kept + value * (1 - kept);
    weight = weight * kept + (1 - kept);
    last = x[row];
    return weight > 0 ? mean / weight : value;
  });
}
