// Server-sent events by fetch: a browser's own EventSource can send no token. Takes up where it broke off.

import { open } from "./api.js";

const AGAIN_MS = [1000, 2000, 5000, 10000];
/** The daemon says something every 15 s; a line that is silent for longer is dead. */
const SILENCE_MS = 40000;

/** Read /v1/events until stop(): onEvent(event), onLost(number or null), onState(connected). */
export class Stream {
  #last = null;
  #abort = null;
  #failures = 0;
  #timer = null;

  constructor(handlers) { this.handlers = handlers; }

  /** Events after this one are wanted. */
  set last(id) { this.#last = id; }

  get isRunning() { return this.#abort !== null; }

  start() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.#read(this.#abort);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  async #read(abort) {
    let watchdog = null;
    try {
      const headers = { Accept: "text/event-stream" };
      if (this.#last !== null) headers["Last-Event-ID"] = String(this.#last);
      const answer = await open("GET", "/events", { headers, signal: abort.signal });
      this.#failures = 0;
      this.handlers.onState(true);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => reader.cancel(), SILENCE_MS);
        const { value, done } = await reader.read();
        if (done) break;
        const messages = (rest + value).split("\n\n");
        rest = messages.pop();
        for (const message of messages) this.#take(message);
      }
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error.status >= 0) && error.name !== "TypeError") console.error(error);
    } finally {
      clearTimeout(watchdog);
    }
    if (abort.signal.aborted) return;
    this.handlers.onState(false);
    this.#timer = setTimeout(() => this.#read(abort), AGAIN_MS[Math.min(this.#failures, AGAIN_MS.length - 1)]);
    this.#failures += 1;
  }

  #take(message) {
    let name = "message", data = "";
    for (const line of message.split("\n")) {
      const at = line.indexOf(":"), field = line.slice(0, at), value = line.slice(at + 1).trimStart();
      if (field === "id") this.#last = value;
      else if (field === "event") name = value;
      else if (field === "data") data += value;
    }
    if (!data) return;
    if (name === "lost") this.handlers.onLost(JSON.parse(data).lost);
    else this.handlers.onEvent(JSON.parse(data));
  }
}
