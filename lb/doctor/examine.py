"""All checks, in the order in which a packet would meet their subjects."""

from collections.abc import Iterator

from lb.doctor import backends, host, interfaces, pools, tables, traffic
from lb.doctor.facts import DaemonFacts, Facts
from lb.doctor.finding import Finding, Report, fail, report, warn


def examine(facts: Facts) -> Report:
    """What the facts say."""
    return report(_findings(facts))


def _findings(facts: Facts) -> Iterator[Finding]:
    if facts.host is not None:
        yield from host.examine(facts.host)
    yield from daemon(facts.daemon)
    for interface in facts.interfaces:
        yield from interfaces.examine(interface)
    for table in facts.tables:
        yield tables.examine(table, facts.daemon)
    yield from backends.examine(facts.backends)
    for vip in facts.vips:
        yield traffic.examine_vip(vip, _router_target(facts, vip.vip))
    for pool in facts.pools:
        yield pools.examine(pool, _router_target(facts, pool.address))
    if facts.traffic is not None:
        yield from traffic.examine(facts.traffic, facts.vips)


def daemon(facts: DaemonFacts) -> Iterator[Finding]:
    """Whether it answers, and is in step."""
    if facts.unreachable is not None:
        found = fail if facts.expected else warn
        yield found(
            "daemon",
            "daemon",
            f"the daemon does not answer: {facts.unreachable}",
            effect="The attached program goes on forwarding, but follows no change of next hops, and no entry expires."
            if facts.expected
            else "Nothing is attached yet; only the machine was checked.",
            command="systemctl start sluice" if facts.expected else "sluice serve --interface IF",
        )
        return
    for reason in facts.reasons:
        yield fail(
            "daemon",
            "daemon",
            reason,
            effect="The packet path differs from the desired state; the previous state stays in force.",
            command="sluice events --since 10m",
        )


def _router_target(facts: Facts, vip: str) -> str | None:
    """The address of a served interface that a router would send packets for a VIP to."""
    family = ":" in vip
    served = [one for one in facts.interfaces if one.served]
    addresses = (address.partition("/")[0] for one in served for address in one.addresses)
    pools = {pool.address for pool in facts.pools}
    found = sorted((one for one in addresses if (":" in one) is family), key=lambda one: one in pools)
    return found[0] if found else None
