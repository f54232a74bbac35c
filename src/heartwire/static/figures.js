/* Numbers for people, and what the last five minutes were. */

export const WINDOW_MS = 300_000;
const GAP_MS = 5_000; // nothing was heard for so long: the lines are broken there

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const fixed = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (n) => (n < 1_000_000 ? whole : compact).format(n);
export const short = (n) => (n < 10_000 ? tenths : compact).format(n);
export const rate = (n) => (n === null ? "–" : n >= 1_000_000 ? compact.format(n) : (n && n < 9.95 ? fixed : whole).format(n));

export function bytes(n) {
  if (n === null) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 999.5 || unit === "GB") return `${unit === "B" || n >= 9.95 ? whole.format(n) : tenths.format(n)} ${unit}`;
    n /= 1000;
  }
}

export function milliseconds(ms) {
  if (ms < 9.95) return `${tenths.format(ms)} ms`;
  return ms < 999.5 ? `${whole.format(ms)} ms` : `${tenths.format(ms / 1000)} s`;
}

/** Two units at most: "5 s", "3 min", "2 h 13 min", "4 d 2 h". */
export function age(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Over how many snapshots, and so seconds: what is rare would be all spikes otherwise.
const RATES = { opened: 5, closed: 5, messages_in: 1, messages_out: 1, bytes_in: 1, bytes_out: 1 };

/** Makes rates of the totals, and keeps what is shown of the past. */
export class History {
  samples = []; // {at, clients, and for each of RATES a number per second, or null}
  #snapshots = [];

  /** at: milliseconds of the page's clock, which a restart of the server does not change. */
  add(snapshot, at = performance.now()) {
    const newest = this.samples.at(-1);
    if (this.#snapshots.at(-1)?.run !== snapshot.run) this.#snapshots = []; // another process: all began at 0
    const sample = { at, clients: snapshot.clients };
    for (const [key, back] of Object.entries(RATES)) {
      const before = this.#snapshots.at(-back) ?? this.#snapshots[0];
      const seconds = (snapshot.at_ms - before?.at_ms) / 1000;
      sample[key] = seconds > 0 ? (snapshot.totals[key] - before.totals[key]) / seconds : null;
    }
    if (newest && at - newest.at > GAP_MS) this.samples.push({ at: newest.at + 1, clients: null });
    this.samples.push(sample);
    this.#snapshots.push(snapshot);
    while (this.samples[0].at < at - WINDOW_MS) this.samples.shift();
    while (this.#snapshots[0].at_ms < snapshot.at_ms - WINDOW_MS) this.#snapshots.shift();
    return sample;
  }

  /** How far back it goes, in words. */
  get span() {
    const ms = this.#snapshots.at(-1).at_ms - this.#snapshots[0].at_ms;
    return age(ms < 55_000 ? ms : ms + 5_000); // 4:58 are five minutes here
  }

  /** By how much a count, read by `pick` from a snapshot, grew in this time. */
  grown(pick) {
    return (pick(this.#snapshots.at(-1)) ?? 0) - (pick(this.#snapshots[0]) ?? 0);
  }
}
