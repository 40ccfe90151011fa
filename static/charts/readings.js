// Readings of memory and GPU while a job ran, as columns by time.

const OF_DEVICE = ["vram_used_bytes", "process_vram_bytes", "vram_total_bytes", "utilization_percent", "temperature_celsius", "power_watts"];
const OF_HOST = ["ram_used_bytes", "child_rss_bytes", "ram_total_bytes"];
const NAMES = ["time", ...OF_DEVICE, ...OF_HOST];
const MOST_ROWS = 4000;
const SILENT_SECONDS = 5; // readings come once a second

export class Readings {
  constructor() { this.load({}); }

  load(columns) { for (const name of NAMES) this[name] = columns[name] ?? []; }

  get length() { return this.time.length; }

  /** Of several devices, the one that the job's process is on (as app/web/charts.py chooses). */
  put(time, { devices, host }) {
    if (time <= this.time.at(-1)) return;
    const device = devices.find((each) => each.process_vram_bytes != null) ?? devices[0] ?? {};
    for (const name of OF_DEVICE) this[name].push(device[name] ?? null);
    for (const name of OF_HOST) this[name].push(host?.[name] ?? null);
    this.time.push(time);
    if (this.length > MOST_ROWS) this.halve();
  }

  /** Of each two rows the larger values. */
  halve() {
    for (const name of NAMES) {
      const values = this[name];
      this[name] = values.filter((_, row) => row % 2).map((value, row) => {
        const before = values[2 * row];
        return value == null ? before : before == null ? value : Math.max(before, value);
      }).concat(values.length % 2 ? [values.at(-1)] : []);
    }
  }

  has(name) { return this[name].some((value) => value != null); }

  /** [time, …columns], with a gap where nothing was read for long: the job, or the worker, did not run then. */
  columns(names) {
    const steps = this.time.slice(1).map((time, row) => time - this.time[row]).sort((a, b) => a - b);
    const usual = steps[Math.floor(steps.length * 0.9)] ?? 0;
    const silent = Math.max(SILENT_SECONDS, 3 * usual);
    const x = [], columns = names.map(() => []);
    this.time.forEach((time, row) => {
      if (row && time - this.time[row - 1] > silent) {
        x.push(this.time[row - 1] + 0.001);
        for (const column of columns) column.push(null);
      }
      x.push(time);
      names.forEach((name, column) => columns[column].push(this[name][row]));
    });
    return [x, ...columns];
  }
}
