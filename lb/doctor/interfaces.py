"""The interfaces that packets arrive on, and leave by to backends."""

from collections.abc import Iterator

from lb.doctor.facts import CardFacts, InterfaceFacts
from lb.doctor.finding import Finding, fail, ok, warn

CROWDED = 0.9
"""A CPU that does more than this share of the work does it alone."""
PACKETS_TO_TELL = 100_000
"""So many packets say how they spread."""
STRICT = 1
NEVER_NATIVE = ("vlan", "bridge", "macvlan", "ipvlan", "vxlan")
"""Kinds of devices that have no hook of their own for XDP."""


def examine(facts: InterfaceFacts) -> Iterator[Finding]:
    """A finding for each check of an interface; of one that is not served, those alone that matter to what leaves."""
    if not facts.there:
        yield fail(
            "interface",
            facts.name,
            f"there is no interface {facts.name}",
            effect="Nothing is forwarded until it is back; then the program is attached automatically.",
            command="ip link show",
        )
        return
    if not facts.up:
        yield fail(
            "interface",
            facts.name,
            f"{facts.name} is down",
            effect="No packet comes in or leaves by it.",
            command=f"ip link set dev {facts.name} up",
        )
    yield from attachment(facts)
    if facts.served:
        yield from merging(facts)
        yield from tags(facts)
        yield reverse_path(facts)
        yield spread(facts)


def attachment(facts: InterfaceFacts) -> Iterator[Finding]:
    """Whose program is attached, and how."""
    if facts.foreign_program is not None:
        found = fail if facts.served else warn
        yield found(
            "foreign-program",
            facts.name,
            f"{facts.name} has an XDP program that is not Sluice's: {facts.foreign_program}",
            effect="It sees every packet, and Sluice sees none."
            if facts.served
            else "Sluice could not be attached there; what it sends out of there passes that program unseen.",
            command=f"ip link set dev {facts.name} xdp off",
        )
    elif facts.served and not facts.attached:
        yield fail(
            "xdp-mode",
            facts.name,
            f"no program of Sluice is attached to {facts.name}",
            effect="All its packets go to the kernel: nothing is dropped, and nothing forwarded.",
            command="systemctl restart sluice",
        )
    elif facts.served:
        yield mode(facts)


def mode(facts: InterfaceFacts) -> Finding:
    """Native or generic, and why."""
    driver = f"driver {facts.driver}" if facts.driver else "its driver"
    if facts.xdp_mode != "generic":
        return ok(
            "xdp-mode", facts.name, f"{facts.name} runs the program in {facts.xdp_mode} mode ({driver})"
        )
    slow = "Each packet costs several times as much: the kernel has made it a socket buffer first."
    if facts.asked_mode == "generic":
        return warn(
            "xdp-mode",
            facts.name,
            f"{facts.name} runs the program in generic mode, because of --xdp-mode generic",
            effect=slow,
            command=f"sluice detach --interface {facts.name} && "
            f"sluice serve --interface {facts.name} --xdp-mode native",
        )
    if facts.kind in NEVER_NATIVE:
        return warn(
            "xdp-mode",
            facts.name,
            f"{facts.name} runs the program in generic mode: devices of kind {facts.kind} support no other",
            effect=slow,
            command=None,
        )
    if facts.kind == "bond":
        return warn(
            "xdp-mode",
            facts.name,
            f"{facts.name} runs the program in generic mode: a bond supports native mode only as balance-rr, "
            "active-backup, balance-xor or 802.3ad, if every port's driver does",
            effect=slow,
            command=f"cat /proc/net/bonding/{facts.name}",
        )
    return warn(
        "xdp-mode",
        facts.name,
        f"{facts.name} runs the program in generic mode, because {driver} does not support it "
        f"(no XDP, too few queues, or XDP not possible with an MTU of {facts.mtu})",
        effect=slow,
        command=f"sluice detach --interface {facts.name} && ip link set dev {facts.name} mtu 1500 && "
        f"sluice serve --interface {facts.name} --xdp-mode native",
    )


def merging(facts: InterfaceFacts) -> Iterator[Finding]:
    """LRO and its kin merge packets into some that are larger than what leaves may be."""
    merges = {card.name: list(_merges(card, facts.xdp_mode)) for card in facts.cards}
    if not any(merges.values()):
        yield ok("merging", facts.name, f"no packets are merged before the program on {facts.name} sees them")
    for card, names in merges.items():
        if names:
            yield fail(
                "merging",
                facts.name,
                f"{card} merges packets before the program {_on(facts, card)}sees them ({', '.join(names)} on)",
                effect="Merged packets are too long for any path to a backend: uploads crawl, or stop.",
                command=f"ethtool -K {card} {' '.join(f'{name} off' for name in names)}",
            )


def _merges(card: CardFacts, mode: str) -> Iterator[str]:
    """What merges, as ethtool names it; a native program comes before the kernel's own GRO."""
    features = {"lro": card.lro, "rx-gro-hw": card.hardware_gro, "gro": card.gro and mode == "generic"}
    return (name for name, state in features.items() if state)


def _on(facts: InterfaceFacts, card: str) -> str:
    return "" if card == facts.name else f"on {facts.name} "


def tags(facts: InterfaceFacts) -> Iterator[Finding]:
    """A card that takes VLAN tags off hides them from the program."""
    # What comes in by a VLAN device has had its tag taken off in any case.
    hide = [card.name for card in facts.cards if card.rxvlan and facts.vlans and facts.kind != "vlan"]
    if not hide:
        yield ok("rxvlan", facts.name, f"no VLAN tag is hidden from the program on {facts.name}")
    for card in hide:
        yield warn(
            "rxvlan",
            facts.name,
            f"{card} strips VLAN tags before the program {_on(facts, card)}sees them, "
            f"and {facts.name} carries {', '.join(facts.vlans)}",
            effect="A tagged packet for a VIP leaves without its tag, in the wrong network.",
            command=f"ethtool -K {card} rxvlan off",
        )


def reverse_path(facts: InterfaceFacts) -> Finding:
    """The kernel's check of sources."""
    if facts.rp_filter != STRICT:
        return ok("rp-filter", facts.name, f"the kernel does not check sources strictly on {facts.name}")
    return warn(
        "rp-filter",
        facts.name,
        f"the kernel drops packets on {facts.name} whose source it would not reach by it (rp_filter=1)",
        effect="Backends' answers to this machine, which have a VIP as source, are lost: "
        "health checks through the data path fail.",
        command=f"sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{facts.name.replace('.', '/')}.rp_filter=0",
    )


def spread(facts: InterfaceFacts) -> Finding:
    """Whether the CPUs share the work."""
    total, busiest = sum(facts.packets_by_cpu), max(facts.packets_by_cpu, default=0)
    used = sum(count > 0 for count in facts.packets_by_cpu)
    queues = f"{facts.rx_queues or '?'} receive queues, {facts.cpus} CPUs"
    if facts.cpus == 1 or total < PACKETS_TO_TELL or busiest <= CROWDED * total:
        return ok("rss", facts.name, f"{facts.name} has {queues}; {used} have taken packets")
    most = min(facts.cpus, facts.rx_queues_most or 1)
    if facts.rx_queues is not None and facts.rx_queues < most:
        command = f"ethtool -L {facts.name} combined {most}"
    elif (facts.rx_queues or 1) > 1:
        command = f"ethtool -X {facts.name} equal {facts.rx_queues}"
    else:
        return ok("rss", facts.name, f"{facts.name} has one receive queue, and can have no more")
    return warn(
        "rss",
        facts.name,
        f"one CPU has taken {busiest / total:.0%} of all packets on {facts.name} ({queues})",
        effect="The other CPUs are idle while that one drops what it cannot handle.",
        command=command,
    )
