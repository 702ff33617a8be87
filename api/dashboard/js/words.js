// How states are shown: a sign, a word and a tone each, so that colour alone never says anything. Pure.

const STATES = {
  active: ["●", "ok"],
  healthy: ["✓", "ok"],
  draining: ["◐", "warn"],
  disabled: ["○", "off"],
  unchecked: ["–", "off"],
  unresolved: ["▲", "bad"],
  unhealthy: ["✕", "bad"],
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
  const failing = backends.filter((b) => b.health === "unhealthy" && b.effective_state === "active").length;
  if (failing) others.push(`${failing} failing`); // and yet not taken out: all of them fail
  const stuck = backends.some((b) => state(b.effective_state).tone === "bad" || b.health === "unhealthy");
  const tone = !backends.length ? "off" : !active ? "bad" : stuck ? "warn" : counts.size ? "off" : "ok";
  return {
    sign: { ok: "●", off: "◐", warn: "▲", bad: "✕" }[tone],
    word: backends.length ? [`${active}/${backends.length} active`, ...others].join(", ") : "no backends",
    tone,
    trouble: tone === "bad" || tone === "warn" || !backends.length,
  };
}

/** What checks say of a backend: in a word, since when, and why the last one failed. held: only the mass failure guard keeps it in. */
export function health(backend) {
  return {
    word: backend.health === "unknown" ? "unchecked" : backend.health,
    since: backend.health_since ?? null,
    error: backend.health_error ?? null,
    held: Boolean(backend.health_held),
  };
}
