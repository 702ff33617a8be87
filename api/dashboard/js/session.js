// Who looks, and what they may: GET /v1/whoami. A daemon that has no such path asks nobody, so everything may be tried.

import { call, hasToken, Problem, setToken } from "./api.js";
import { ask, field } from "./dialogs.js";
import { byId, h, say } from "./dom.js";

const RANKS = ["viewer", "operator", "admin"];

export const session = { name: null, role: "admin" };
const listeners = [];
let asking = null;
/** Whether somebody was asked for a token and gave none: they are not asked again until they want to be. */
let declined = false;

/** Call back when it is known who looks, and when that changes. */
export const onSession = (listener) => listeners.push(listener);

/** Whether the caller has this role or a higher one. What the daemon allows is its own matter: it refuses all the same. */
export const may = (role) => RANKS.indexOf(session.role) >= RANKS.indexOf(role);

/** Ask who we are; a token is asked for where the daemon wants one. */
export async function identify() {
  try {
    const said = await call("GET", "/whoami");
    session.name = said?.name ?? null;
    session.role = RANKS.includes(said?.role) ? said.role : "viewer";
  } catch (problem) {
    if (problem.status === 401) return askToken(problem);
    session.name = null;
    session.role = problem.status === 404 ? "admin" : session.role;
    if (problem.status !== 404) return undefined;
  }
  shown();
  return undefined;
}

function shown() {
  const button = byId("identity"), out = declined && !hasToken();
  button.hidden = session.name === null && !hasToken() && !out;
  say(button, out ? "Sign in" : [...new Set([session.name, session.role])].filter(Boolean).join(" · "));
  button.title = hasToken() ? "Sign out" : out ? "The daemon wants a token" : "Who you are to the daemon";
  document.body.dataset.role = session.role;
  for (const element of document.querySelectorAll("[data-operates]")) element.disabled = !may("operator");
  for (const listener of listeners) listener();
}

/** Ask for a token, once at a time. It is tried before it is kept. */
export async function askToken(problem = null) {
  if (asking || declined) return undefined;
  asking = ask({
    title: "Sign in",
    text: problem && hasToken() ? problem.message : "This daemon wants a token: `sluice token create` prints one. It is kept until this tab is closed.",
    fields: [field("Token", h("input", { name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, autofocus: true }))],
    action: "Sign in",
    async work({ token }) {
      setToken(token.trim() || null);
      try {
        await call("GET", "/status");
      } catch (refused) {
        if (refused.status === 401) setToken(null);
        throw refused.status === 401 ? new Problem(401, "this token is not valid, or no longer") : refused;
      }
    },
  });
  await asking;
  asking = null;
  if (hasToken()) return identify();
  declined = true;
  return shown();
}

export function startSession() {
  byId("identity").addEventListener("click", () => {
    if (hasToken()) {
      setToken(null);
      location.reload();
    } else if (declined) {
      declined = false;
      askToken();
    }
  });
  return identify();
}
