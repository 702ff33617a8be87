// One look at the daemon every two seconds, none while the page is hidden, and how old the last one is.

import { get } from "./api.js";

const EVERY_MS = 2000;
/** A look takes at most this part of the time, however large the installation. */
const SHARE = 10;
const MOST_MS = 10000;
const REFUSED_MS = 5000;
const STALE_AFTER_S = 6;

export class Poll extends EventTarget {
  /** The last error, or null. */
  problem = null;
  /** When the daemon was last seen, by performance.now(); null: never yet. */
  #seen = null;
  #timer = null;
  #interval = EVERY_MS;
  #running = false;

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(this.#timer) : this.now()));
    setInterval(() => document.hidden || this.dispatchEvent(new Event("tick")), 1000);
    this.now();
  }

  /** Look at once: after a change, or when somebody comes back. */
  async now() {
    clearTimeout(this.#timer);
    if (this.#running) return;
    this.#running = true;
    const began = performance.now();
    try {
      const [status, stats] = await Promise.all([get("/status"), get("/stats")]);
      const ended = performance.now();
      this.#seen = ended;
      this.#interval = Math.min(MOST_MS, Math.max(EVERY_MS, (ended - began) * SHARE));
      this.problem = null;
      this.dispatchEvent(new CustomEvent("sample", { detail: { status, stats, seconds: (began + ended) / 2000 } }));
    } catch (error) {
      this.problem = error;
      this.#interval = error.status === 401 ? REFUSED_MS : EVERY_MS;
      if (!(error.status >= 0)) console.error(error); // a fault of this page, not of the daemon
      this.dispatchEvent(new Event("failure"));
    } finally {
      this.#running = false;
      if (!document.hidden) this.#timer = setTimeout(() => this.now(), this.#interval);
    }
  }

  /** How old the data are, in seconds; null if there are none. */
  get age() { return this.#seen === null ? null : (performance.now() - this.#seen) / 1000; }

  /** Whether the next look should have been had by now. */
  get isLate() { return this.age !== null && this.age > (2 * this.#interval) / 1000; }

  get isStale() {
    return this.problem !== null || (this.age !== null && this.age > STALE_AFTER_S + this.#interval / 1000);
  }
}
