"""Explains frames: runs them through the traced program, and says what became of each, with names for numbers."""

from collections.abc import Iterable, Sequence

from lb.dataplane.layout import Verdict
from lb.dataplane.protocol import DataPlane, InterfaceState
from lb.dataplane.tables import Tables
from lb.dataplane.trace import NONE, Trace
from lb.errors import ConflictError, DataPlaneError, InvalidError, NotFoundError
from lb.model import Config, Entry, Prefix, PrefixList
from lb.model.prefix import BITS
from lb.reconcile import observe
from lb.reconcile.explained import Explained, FlowEntry, ListEntry, MetRule, View, Way
from lb.reconcile.lists import ListPlan, rules_of
from lb.reconcile.maps import Plans
from lb.reconcile.rule_tables import RulePlan
from lb.reconcile.rule_words import rule_of
from lb.reconcile.steps import entry_of, steps_of

BATCH = 256
"""Frames that run under one hold of the writer's lock: some milliseconds, which changes wait."""
_LEAVES = ("tx", "redirect")
_RULE_VERDICTS = ("DROP_RULE", "DROP_LIMIT")


def interface_of(states: Sequence[InterfaceState], name: str | None) -> InterfaceState:
    """The interface that frames come in by: the one that is named, or the only one.

    InvalidError: there are several, and none is named. NotFoundError: that one is not served. DataPlaneError: it is
    away.
    """
    names = ", ".join(state.name for state in states)
    if name is None and len(states) > 1:
        raise InvalidError.one("", f"there are several interfaces: give `interface` as one of {names}")
    state = states[0] if name is None else next((s for s in states if s.name == name), None)
    if state is None:
        raise NotFoundError(f'interface "{name}" is not served: there are {names}')
    if not state.attached or state.mac is None:
        raise DataPlaneError(f"the data plane is not attached to {state.name}: see /readyz")
    return state


def look(
    dataplane: DataPlane,
    interface: InterfaceState,
    traces: Sequence[Trace],
    *,
    config: Config,
    plans: Plans,
    now: float,
) -> View:
    """What the numbers in these traces mean; to be called under the lock that they ran under."""
    tables = dataplane.tables
    names = {state.index: state.name for state in dataplane.interfaces()}
    rows = tables.arrays.backends
    ways = {
        place: Way(int(rows[place]["mtu"]), names.get(int(rows[place]["ifindex"]), "another interface"))
        for place in {trace.place for trace in traces} - {NONE}
    }
    entries: dict[tuple[bool, int, bytes], ListEntry] = {}
    for allow, held, plan in ((False, config.blocklist, plans.deny), (True, config.allowlist, plans.allow)):
        for rule, source in {(t.allow_entry if allow else t.deny_entry, t.parsed.source) for t in traces}:
            if rule:
                entry = find_entry(held, plan, rule, source)
                entries[allow, rule, source] = _listed(
                    entry, plan, tables, clock_s=dataplane.clock_seconds(), now=now, allow=allow
                )
    return View(
        config=config,
        verdicts={v.number: v for v in dataplane.verdicts},
        services={plan.number: plan for plan in plans.services.by_name.values()},
        ways=ways,
        entries=entries,
        rules=_met_rules(dataplane, traces, plans.rules, now),
        mac=bytes.fromhex((interface.mac or "").replace(":", "")),
    )


def _met_rules(
    dataplane: DataPlane, traces: Sequence[Trace], rules: RulePlan, now: float
) -> dict[int, MetRule]:
    """Those that decided, by number."""
    wanted = {trace.rule for trace in traces} - {NONE}
    if not wanted:
        return {}
    tallies = observe.rules(dataplane, rules, now)
    return {
        number: MetRule(rule, tallies[rule.name])
        for rule in rules.order
        if (number := rules.numbers[rule.name]) in wanted
    }


def find_entry(held: PrefixList, plan: ListPlan, rule: int, source: bytes) -> Entry:
    """The longest entry that holds an address and has this rule number; ConflictError if it has gone."""
    family = 4 if len(source) == 4 else 6
    address, bits = int.from_bytes(source, "big"), BITS[family]
    covering = [Prefix(family, address >> bits - n << bits - n, n) for n in range(bits, -1, -1)]
    for prefix, number in zip(covering, rules_of(plan, family, [p.key for p in covering]), strict=True):
        # The maps hold an entry until the loop has seen its time run out: so does this.
        if number == rule and (entry := held.get(prefix, 0.0)) is not None:
            return entry
    raise ConflictError("a list entry was removed while the frames ran: ask again")


def _listed(
    entry: Entry, plan: ListPlan, tables: Tables, *, clock_s: int, now: float, allow: bool
) -> ListEntry:
    said = entry.attributes
    counters = tables.allow_counters if allow else tables.deny_counters
    return ListEntry(
        allow=allow,
        entry=entry,
        age_seconds=max(0.0, now - said.created_at),
        ttl_left_seconds=None if said.expires_at is None else max(0.0, said.expires_at - now),
        hits=observe.hits(plan, counters, [entry.prefix], lambda: now - clock_s)[0],
    )


def explained(
    frames: Iterable[bytes], outs: Iterable[bytes], traces: Iterable[Trace], view: View
) -> list[Explained]:
    """What became of each frame; ConflictError if a service, backend or entry it met is not in the view."""
    return [_explained(*each, view) for each in zip(frames, outs, traces, strict=True)]


def _explained(frame: bytes, out: bytes, trace: Trace, view: View) -> Explained:
    verdict = view.verdicts[trace.verdict]
    plan = view.plan(trace.service) if trace.service != NONE else None
    return Explained(
        verdict=verdict,
        service=plan.service.name if plan else None,
        backend=view.address(plan, trace.place - plan.start) if plan and trace.place != NONE else None,
        via=trace.via,
        entry=_deciding(trace, verdict, view),
        frame_out=out if verdict.action in _LEAVES else None,
        steps=tuple(steps_of(frame, out, trace, view)),
    )


def _deciding(trace: Trace, verdict: Verdict, view: View) -> FlowEntry | ListEntry | MetRule | None:
    """The entry that had the last word: what drops, then the flow's, then what let the packet in."""
    rule = rule_of(trace, view)
    if rule is not None and verdict.name in _RULE_VERDICTS:
        return rule
    denied, allowed = entry_of(trace, view, allow=False), entry_of(trace, view, allow=True)
    if verdict.name == "DROP_BLOCKLIST":
        return denied
    if trace.via == "flow" and trace.slot is not None:
        return FlowEntry(trace.slot.age_s, trace.slot.established)
    return rule or allowed or denied
