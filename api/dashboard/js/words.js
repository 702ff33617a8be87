// How states are shown: a sign, a word and a tone each, so that colour alone never says anything. Pure.

const STATES = {
  active: ["●", "ok"],
  up: ["●", "ok"],
  draining: ["◐", "warn"],
  degraded: ["◐", "warn"],
  disabled: ["○", "off"],
  unknown: ["·", "off"],
  unresolved: ["▲", "bad"],
  down: ["✕", "bad"],
};

/** {sign, word, tone} of a state; one that this page does not know is shown as it is called. */
export function state(word) {
  const [sign, tone] = STATES[word] ?? ["◆", "warn"];
  return { sign, word, tone };
}

/** What a service's backends come to: "3/4 active, 1 draining". trouble: an enabled backend takes no flows, or none does. */
export function summary(backends) {
  const counts = new Map();
  for (const backend of backends) counts.set(backend.effective_state, (counts.get(backend.effective_state) ?? 0) + 1);
  const active = counts.get("active") ?? 0;
  counts.delete("active");
  const others = [...counts].map(([word, number]) => `${number} ${word}`);
  const stuck = backends.some((b) => state(b.effective_state).tone === "bad" || b.health === "down");
  const tone = !backends.length ? "off" : !active ? "bad" : stuck ? "warn" : counts.size ? "off" : "ok";
  return {
    sign: { ok: "●", off: "◐", warn: "▲", bad: "✕" }[tone],
    word: backends.length ? [`${active}/${backends.length} active`, ...others].join(", ") : "no backends",
    tone,
    trouble: tone === "bad" || tone === "warn" || !backends.length,
  };
}

/** The facts of a backend's health: its state, since when, and what went wrong last. */
export function health(backend) {
  return {
    word: backend.health ?? "unknown",
    since: backend.health_since ?? backend.health_changed_at ?? null,
    error: backend.last_error ?? backend.health_error ?? null,
  };
}
