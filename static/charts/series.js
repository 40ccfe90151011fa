// One series as columns, by ascending step. A row is a point, or a bucket of neighbouring points:
// their mean, min, max and last value, how many there were and how many of them were not finite.

const COLUMNS = ["x", "step", "time", "mean", "min", "max", "last", "points", "missing"];

export class Series {
  constructor(columns = {}) {
    for (const name of COLUMNS) this[name] = columns[name] ?? [];
  }

  get length() { return this.step.length; }

  /** How many points the rows stand for. */
  get total() { return this.points.reduce((sum, count, row) => sum + count + this.missing[row], 0); }

  /** Whether every row is a single point, so that zooming in could show no more. */
  get exact() { return this.total === this.length; }

  /** Add a point, or replace the point of its step. What an older bucket holds already stays as it is. */
  put({ x, step, time, value }) {
    let row = this.length;
    while (row > 0 && this.step[row - 1] > step) row -= 1;
    const known = row > 0 && this.step[row - 1] === step;
    if (known ? !this.single(row - 1) : row < this.length) return;
    const finite = Number.isFinite(value);
    const held = finite ? value : null;
    this.write(known ? row - 1 : row, [x, step, time, held, held, held, held, finite ? 1 : 0, finite ? 0 : 1]);
  }

  single(row) { return this.points[row] + this.missing[row] === 1; }

  write(row, values) { COLUMNS.forEach((name, column) => { this[name][row] = values[column]; }); }

  /** Join neighbours until there are at most `most` rows: a page that stays open for days keeps its size. */
  compact(most) {
    while (this.length > most) {
      const half = Math.ceil(this.length / 2);
      for (let row = 0; row < half; row += 1) this.join(row, 2 * row, Math.min(2 * row + 1, this.length - 1));
      for (const name of COLUMNS) this[name].length = half;
    }
  }

  /** Write the rows `first` and `last` as one. */
  join(row, first, last) {
    const rows = first === last ? [first] : [first, last];
    const finite = rows.filter((each) => this.points[each] > 0);
    const points = finite.reduce((sum, each) => sum + this.points[each], 0);
    const of = (name, pick) => (finite.length ? pick(finite.map((each) => this[name][each])) : null);
    this.write(row, [
      this.x[last], this.step[last], this.time[last],
      points ? finite.reduce((sum, each) => sum + this.mean[each] * this.points[each], 0) / points : null,
      of("min", (values) => Math.min(...values)), of("max", (values) => Math.max(...values)),
      this.last[last], points, rows.reduce((sum, each) => sum + this.missing[each], 0),
    ]);
  }
}

/** The row of an ascending column whose value is nearest to a place; -1 where there is none. */
export function nearest(column, place) {
  let low = 0, high = column.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (column[middle] <= place) low = middle; else high = middle;
  }
  return place - column[low] <= column[high] - place ? low : high;
}

/** What stands at a place between the rows of two ascending columns, at its share of the way; beyond them their ends. */
export function between(from, to, place) {
  const last = from.length - 1;
  if (last < 0) return null;
  if (place <= from[0]) return to[0];
  if (place >= from[last]) return to[last];
  let low = nearest(from, place);
  if (from[low] > place) low -= 1;
  const share = (place - from[low]) / (from[low + 1] - from[low] || 1);
  return to[low] + share * (to[low + 1] - to[low]);
}
