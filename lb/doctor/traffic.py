"""Why is nothing forwarded? What came, and what became of it."""

from collections.abc import Iterator, Mapping, Sequence

from lb.doctor.facts import TrafficFacts, VerdictFacts, VipFacts
from lb.doctor.finding import Finding, fail, ok, warn

ANSWERED = frozenset({"TX_ECHO", "TX_TOO_BIG"})
"""What leaves by the program, but not to a backend."""
OURS = frozenset(
    {
        *("DROP_NO_BACKEND", "DROP_NO_NEXT_HOP", "DROP_TOO_BIG", "DROP_NO_HEADROOM", "DROP_INTERNAL"),
        *("DROP_FRAGMENT", "DROP_SPOOFED", "DROP_NAT_PORTS", "DROP_NAT_CLASH"),
    }
)
"""Drops of packets that were to be forwarded."""
MEANT = frozenset({"DROP_BLOCKLIST", "DROP_RULE", "DROP_LIMIT", "DROP_SYN_TEST", "DROP_NEW_FLOW"})
"""Drops that somebody asked for."""
REMEDIES: Mapping[str, tuple[str, str]] = {
    "DROP_NO_BACKEND": ("Their service has no backend that takes new flows.", "sluice service list"),
    "DROP_NO_NEXT_HOP": ("The next hop's MAC of their backend is not known.", "sluice doctor --all"),
    "DROP_TOO_BIG": (
        "With the outer header they exceed the MTU of the path to their backend.",
        "sluice doctor --all",
    ),
    "DROP_SPOOFED": (
        "Their source is a VIP or this host's: backends' answers are routed through here.",
        "sluice capture --verdict DROP_SPOOFED -c 5",
    ),
    "DROP_NAT_PORTS": (
        "Mode nat has no port left: give nat_pools more addresses.",
        "sluice export > sluice.yaml && sluice apply -f sluice.yaml",
    ),
    "PASS_NOT_OUR_MAC": (
        "They are sent to another machine's MAC: the router has another next hop for them.",
        "sluice capture --verdict PASS_NOT_OUR_MAC -c 5",
    ),
}


def examine(facts: TrafficFacts, vips: Sequence[VipFacts]) -> Iterator[Finding]:
    """What came lately, or, where nothing did, since the attach."""
    lately = {one.name: one.lately for one in facts.verdicts}
    total = {one.name: one.total for one in facts.verdicts}
    during = f"in the last {facts.seconds:.0f} s" if facts.seconds >= 1 else "just now"
    counts, when = (lately, during) if any(lately.values()) else (total, "since the program was attached")
    yield _fate(facts.verdicts, counts, when, vips)


def is_forwarded(verdict: VerdictFacts) -> bool:
    """Whether it means that a packet went to a backend, or from one to a client."""
    return verdict.action in ("tx", "redirect") and verdict.name not in ANSWERED


def _fate(
    verdicts: Sequence[VerdictFacts], counts: Mapping[str, int], when: str, vips: Sequence[VipFacts]
) -> Finding:
    forwarded = sum(counts[one.name] for one in verdicts if is_forwarded(one))
    lost = {one: counts[one.name] for one in verdicts if one.name in OURS and counts[one.name]}
    meant = sum(counts[name] for name in MEANT if name in counts)
    if not forwarded and lost:
        worst = max(lost, key=lambda one: lost[one])
        number = sum(lost.values())
        all_ = "all of them" if len(lost) == 1 else f"{lost[worst]} of them"
        effect, command = REMEDIES.get(
            worst.name, (worst.sentence, f"sluice capture --verdict {worst.name} -c 5")
        )
        return fail(
            "traffic",
            "packets",
            f"{number} packets for VIPs came {when} and none was forwarded: {all_} ended as {worst.name}",
            effect=effect,
            command=command,
        )
    came = forwarded + sum(lost.values()) + meant
    if came:
        dropped = f", {meant} dropped as you asked" if meant else ""
        broken = f", {sum(lost.values())} lost ({', '.join(one.name for one in lost)})" if lost else ""
        return ok("traffic", "packets", f"{forwarded} packets were forwarded {when}{dropped}{broken}")
    if not vips:
        return ok("traffic", "packets", "there are no services yet")
    strangers = counts.get("PASS_NOT_OUR_MAC", 0)
    seen = f"; {strangers} came for other machines" if strangers else ""
    return ok("traffic", "packets", f"no packet for any VIP came {when}{seen}")


def examine_vip(facts: VipFacts, router: str | None) -> Finding:
    """Whether clients' packets for a VIP find their way here. router: the address that VIPs are routed to."""
    if facts.answered_by:
        return fail(
            "vip",
            facts.vip,
            f"{facts.vip} is also answered for by {', '.join(facts.answered_by)}: a backend claims the VIP",
            effect="Clients and routers of this network send packets there that should come here.",
            command="sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
            run_on=f"the machine with MAC {facts.answered_by[0]}",
        )
    if facts.deaf:
        return warn(
            "vip",
            facts.vip,
            f"{facts.vip} is an address of this machine, and the kernel drops answers that have it as source",
            effect="Clients are served; but health checks through the data path get no answers, nor does this doctor.",
            command=_listen(facts),
        )
    if facts.packets:
        ago = facts.last_seen_seconds
        seen = "" if ago is None else f", the last {ago:.0f} s ago"
        return ok("vip", facts.vip, f"packets for {facts.vip} come here: {facts.packets} so far{seen}")
    nothing = f"no packet for {facts.vip} has come since the program was attached"
    length = "" if "/" in facts.vip else ("/128" if ":" in facts.vip else "/32")
    if facts.on_link is not None and not facts.local:
        return warn(
            "vip",
            facts.vip,
            f"{nothing}; it lies in the network of {facts.on_link}, and nobody answers for it there",
            effect="Clients and routers of that network ask who has it, and get no answer.",
            command=f"ip address add {facts.vip}{length} dev {facts.on_link} && {_listen(facts)}",
        )
    return warn(
        "vip",
        facts.vip,
        f"{nothing}: it may not be routed here",
        effect="Clients get no answer from it.",
        command=f"ip route replace {facts.vip}{length} via {router or 'THIS-MACHINE'}",
        run_on="router",
    )


def _listen(facts: VipFacts) -> str:
    """Lets in what has an address of ours as source; IPv6 asks for nothing."""
    return f"sysctl -w net/ipv4/conf/{facts.on_link}/accept_local=1"
