"""Expired entries: when to look for them, and the events about them."""

from collections.abc import Mapping
from itertools import chain

from lb.events import Events
from lb.model.prefix import Prefix
from lb.reconcile.lists import ListPlan

GATHER_SECONDS = 0.5
"""A pass waits this long after the first deadline, for the next ones: so there are at most two a second."""
SHOWN = 10
"""Prefixes of each owner that an event names."""


def tell(plans: Mapping[str, ListPlan], now: float, events: Events | None) -> None:
    """An event for each list (by name) and owner with entries that are over by now; plans: with them still in."""
    for name, plan in plans.items() if events else ():
        for owner, part in plan.parts.items() if plan.until <= now else ():
            due = part.layer.due(now)
            count = sum(map(len, due.values()))
            if not count:
                continue
            keys = chain.from_iterable(some[:SHOWN].tolist() for some in due.values())
            first = [str(Prefix.from_key(key)) for key in keys][:SHOWN]
            more = f" and {count - len(first)} more" if count > len(first) else ""
            assert events
            events.publish(
                "entry.expired",
                f"expired from the {name}: {', '.join(first)}{more} ({owner})",
                list=name,
                owner=owner,
                count=count,
                prefixes=first,
            )
