"""Addresses that mode nat sends from: backends' answers to them must come back here."""

from lb.doctor.backends import UNPROVEN_TO_TELL
from lb.doctor.facts import PoolFacts
from lb.doctor.finding import Finding, fail, ok, warn

CHECK = "nat-pool"
_REMEMBERED = "Answers came back lately: by what neighbours remember, which ends, or by a proxy of yours."
_LOST = "Backends' answers go nowhere: connections of mode nat do not open."


def examine(facts: PoolFacts, router: str | None) -> Finding:
    """Whether answers find their way here. router: the address of this machine that others are routed to."""
    address, length = facts.address, 128 if ":" in facts.address else 32
    if facts.local is not None and (facts.local_is_served or ":" not in address):
        return ok(CHECK, address, f"{address} is this machine's, and its kernel answers for it")
    if facts.on_link is not None:
        where = f"{address} lies in the network of {facts.on_link}, and nobody answers for it there"
        if facts.local is not None:
            where += f": it is on {facts.local}, and neighbour discovery asks for what is on {facts.on_link} itself"
        found = warn if facts.answered else fail
        return found(
            CHECK,
            address,
            where,
            effect=_REMEMBERED if facts.answered else _LOST,
            command=f"ip address add {address}/{length} dev {facts.on_link}",
        )
    if facts.answered:
        return ok(CHECK, address, f"answers to {address} come back here, of {facts.answered} connections")
    found = fail if facts.unanswered >= UNPROVEN_TO_TELL else warn
    seen = f", of {facts.unanswered} connections" if facts.unanswered else ""
    return found(
        CHECK,
        address,
        f"no answer to {address} has come back{seen}: it may not be routed here",
        effect=_LOST,
        command=f"ip route replace {address}/{length} via {router or 'THIS-MACHINE'}",
        run_on="router",
    )
