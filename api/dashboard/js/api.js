// The one place that talks to the daemon: same host only, a time limit on everything, problem documents as errors.

const TIMEOUT_MS = 5000;
let token = readToken();

/** What the daemon refused, or that it did not answer (status 0). */
export class Problem extends Error {
  constructor(status, detail, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }
}

/** One request; the document it is answered with (null: none). body is sent as JSON. Problem: refused, or no answer. */
export async function call(method, path, { body, query, timeout = TIMEOUT_MS, signal } = {}) {
  const limit = AbortSignal.timeout(timeout);
  const answer = await open(method, path, { body, query, signal: signal ? AbortSignal.any([limit, signal]) : limit });
  try {
    const text = await answer.text();
    return text ? JSON.parse(text) : null;
  } catch (error) {
    throw unanswered(error);
  }
}

export const get = (path, options) => call("GET", path, options);

/** A request whose answer is read by the caller, such as one that goes on. Problem as from call. */
export async function open(method, path, { body, query, headers = {}, signal } = {}) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") said.set(name, value);
  }
  const sent = { Accept: "application/json", ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/v1${path}${said.size ? `?${said}` : ""}`, {
      method, signal, headers: sent, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "same-origin", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    throw unanswered(error);
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer;
}

function unanswered(error) {
  if (error.name === "AbortError") return error;
  return new Problem(0, error.name === "TimeoutError" ? "the daemon does not answer in time" : "the daemon cannot be reached");
}

async function problemOf(answer) {
  let said = {};
  try { said = await answer.json(); } catch { /* no document: the status must do */ }
  return new Problem(answer.status, said.detail ?? said.title ?? `the daemon answered ${answer.status}`, said.errors ?? []);
}

/** Keep a token for this tab, or forget it (null). It is sent with each request, and stored nowhere else. */
export function setToken(value) {
  token = value;
  try {
    if (value) sessionStorage.setItem("sluice.token", value);
    else sessionStorage.removeItem("sluice.token");
  } catch { /* kept until the page is left */ }
}

export const hasToken = () => Boolean(token);

function readToken() {
  try { return sessionStorage.getItem("sluice.token"); } catch { return null; }
}

/** One segment of a path. */
export const segment = (text) => encodeURIComponent(text);
