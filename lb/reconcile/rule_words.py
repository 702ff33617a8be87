"""What explain says of rules, limits and guards. Pure."""

from lb.dataplane.trace import NONE, Trace
from lb.model.rule import LimitPer
from lb.reconcile.explained import MetRule, View

_UNKNOWN = "nothing is known of this source"
_GUARDED = {
    "known": "this source is known from an earlier flow that continued, and is admitted",
    "proven": "this SYN was repeated as a client does, and is admitted",
    "tested": f"{_UNKNOWN}, which is admitted when it repeats its SYN",
    "within": f"{_UNKNOWN}, and this second's budget of new flows is not spent",
    "refused": f"{_UNKNOWN}, and this second's budget of new flows is spent",
}


def rule_of(trace: Trace, view: View) -> MetRule | None:
    """The rule that decided; ConflictError if it has gone."""
    return None if trace.rule == NONE else view.rule(trace.rule)


def rule_name(met: MetRule) -> str:
    """A rule as a person would name it."""
    return f'"{met.rule.name}"{f" ({met.rule.reason})" if met.rule.reason else ""}'


def over_limit(met: MetRule | None) -> str:
    """Why a limit drops a packet."""
    if met is None or met.rule.limit is None:
        return "it is over the limit of a rule"
    limit = met.rule.limit
    whose = "its source is" if limit.per is LimitPer.SOURCE else "all packets that it matches are"
    return f"{whose} over the limit of rule {rule_name(met)}: {limit.rate} {limit.unit} a second"


def guard_words(service: str, guard: str | None) -> str:
    """How a service that is protected against floods of new flows took one; guard: as in Trace."""
    if guard == "peace":
        return f'"{service}" is guarded, and not under attack'
    return f'"{service}" is under attack: {_GUARDED.get(guard or "", "it is not let in")}'
