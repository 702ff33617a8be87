// Rates from counter deltas, and the last of them for the small curves. Pure: it is told what was seen, and when.

/** Samples of a small curve: two minutes at one in two seconds. */
export const KEPT = 60;

export class Rates {
  #series = new Map();
  #turn = 0;
  #at = null;

  /** Samples so far. */
  get length() { return this.#turn; }

  /** Counters by key, each [packets, bytes], seen at a time in seconds. Keys that are gone are forgotten. */
  add(seconds, counters) {
    const elapsed = this.#at === null ? 0 : seconds - this.#at;
    this.#at = seconds;
    const place = this.#turn % KEPT;
    this.#turn += 1;
    for (const [key, [packets, bytes]] of counters) {
      let one = this.#series.get(key);
      if (one === undefined) {
        one = { packets, bytes, pps: null, bps: null, kept: new Float32Array(KEPT).fill(NaN), turn: 0 };
        this.#series.set(key, one);
      } else if (elapsed > 0 && one.turn === this.#turn - 1 && packets >= one.packets && bytes >= one.bytes) {
        one.pps = (packets - one.packets) / elapsed;
        one.bps = ((bytes - one.bytes) * 8) / elapsed;
      } else {
        one.pps = one.bps = null; // a counter that begins anew says nothing of the time between
      }
      one.packets = packets;
      one.bytes = bytes;
      one.turn = this.#turn;
      one.kept[place] = one.pps ?? NaN;
    }
    for (const [key, one] of this.#series) if (one.turn !== this.#turn) this.#series.delete(key);
  }

  pps(key) { return this.#series.get(key)?.pps ?? null; }

  bps(key) { return this.#series.get(key)?.bps ?? null; }

  /** The last packet rates, the oldest first; NaN where there is none. */
  curve(key) {
    const one = this.#series.get(key);
    if (one === undefined) return [];
    const start = this.#turn % KEPT;
    return [...one.kept.subarray(start), ...one.kept.subarray(0, start)];
  }
}

/** Several rates over a longer time, for the chart: columns that share one axis of time. */
export class Columns {
  times = [];
  #columns = new Map();

  constructor(most) { this.most = most; }

  add(seconds, rates) {
    this.times.push(seconds);
    for (const [key, value] of rates) {
      if (!this.#columns.has(key)) this.#columns.set(key, new Array(this.times.length - 1).fill(null));
      this.#columns.get(key).push(value);
    }
    for (const column of this.#columns.values()) if (column.length < this.times.length) column.push(null);
    if (this.times.length > this.most) {
      this.times.shift();
      for (const column of this.#columns.values()) column.shift();
    }
  }

  column(key) { return this.#columns.get(key) ?? new Array(this.times.length).fill(null); }

  /** Keys by how much came of them in the time shown, the most first; those of which nothing came are left out. */
  foremost() {
    return [...this.#columns]
      .map(([key, column]) => [key, column.reduce((sum, value) => sum + (value ?? 0), 0)])
      .filter(([, sum]) => sum > 0)
      .sort((a, b) => b[1] - a[1])
      .map(([key]) => key);
  }
}
