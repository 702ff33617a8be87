"""Which features the program needs for a desired state, so that nothing else is compiled in."""

from lb.dataplane.protocol import ProgramWish
from lb.model import Affinity, Config, Mode, NatSource, Protocol, Service, Settings
from lb.model.port import NO_PORT
from lb.reconcile.lists import ListPlan


def program_wish(
    config: Config, deny: ListPlan, allow: ListPlan, *, redirects: bool, rules: frozenset[str] = frozenset()
) -> ProgramWish:
    """The features that this state needs, and the constants it sets.

    redirects: a next hop may be behind another interface than the one a packet came in by. rules: what rules need.
    """
    # Thousands of services come in a few kinds, and this is asked at every change: one of each kind is looked at.
    services = list({_kind(service): service for service in config.services.values()}.values())
    settings = config.settings
    features = {
        "HAVE_DENY4": len(deny.ipv4) > 0,
        "HAVE_DENY6": len(deny.ipv6) > 0,
        "HAVE_ALLOW": len(allow.ipv4) + len(allow.ipv6) > 0,
        "HAVE_VIP4": any(s.vip.version == 4 for s in services),
        "HAVE_VIP6": any(s.vip.version == 6 for s in services),
        "HAVE_ANY_PORT": any(_any_port(s) for s in services),
        "HAVE_VIP_PREFIX": any(s.vip_length for s in services),
        "HAVE_SOURCE_AFFINITY": any(s.affinity is Affinity.SOURCE for s in services),
        "HAVE_PORT_AFFINITY": any(s.affinity is Affinity.DESTINATION_PORT for s in services),
        "HAVE_UDP_MIGRATION": any(s.udp_migration for s in services),
        "HAVE_QUIC": any(s.quic for s in services),
        "HAVE_PROBES": any(s.health_check and not s.health_check.is_direct(s.mode) for s in services),
        "HAVE_PASSIVE": any(s.health_check and s.health_check.passive for s in services),
        "HAVE_GUARD": any(s.flood_protection for s in services),
        "HAVE_L2": any(s.mode is Mode.L2 for s in services),
        "HAVE_IPIP": any(s.mode is Mode.IPIP for s in services),
        "HAVE_GUE": any(s.mode is Mode.GUE for s in services),
        "HAVE_SPOOF": settings.drop_spoofed,
        "HAVE_ECHO": settings.answer_echo,
        "HAVE_TOO_BIG": settings.too_big_replies_per_second > 0
        and any(s.mode is not Mode.L2 for s in services),
        "HAVE_NAT": any(s.mode is Mode.NAT for s in services),
        "HAVE_NAT_KEEP": any(s.nat_source is NatSource.KEEP for s in services),
        "HAVE_NAT_CROSS": any(s.mode is Mode.NAT and _crosses(s) for s in services),
        "HAVE_NAT_ICMP": any(s.protocol is Protocol.ICMP for s in services),
        "HAVE_REDIRECT": redirects,
    }
    needed = frozenset(name for name, is_needed in features.items() if is_needed)
    return ProgramWish(needed | rules, _constants(settings))


def _any_port(s: Service) -> bool:
    """Whether it takes every port; a protocol without ports is looked for as it is."""
    return s.port.is_any and s.port != NO_PORT


def _crosses(s: Service) -> bool:
    """Whether a backend is of another family than the VIP."""
    return any(b.address.version != s.vip.version for b in s.backends)


def _kind(s: Service) -> tuple[object, ...]:
    """All of a service that features depend on."""
    address = s.vip.version, s.port.is_any, bool(s.vip_length), s.protocol is Protocol.ICMP
    check = s.health_check
    checked = check is not None and (check.is_direct(s.mode), check.passive is not None)
    nat = s.nat_source, s.mode is Mode.NAT and _crosses(s)
    guard = s.flood_protection is not None
    return *address, checked, s.affinity, s.udp_migration, bool(s.quic), s.mode, guard, *nat


def _constants(settings: Settings) -> tuple[tuple[str, int], ...]:
    source4, source6 = settings.encap_source_ipv4, settings.encap_source_ipv6.network_address.packed
    words = [int.from_bytes(source6[at : at + 4], "little") for at in (0, 4, 8)]
    return (
        ("ENCAP_SOURCE4", int(source4.network_address)),
        ("ENCAP_SOURCE4_HOSTS", int(source4.hostmask) & 0xFFFF),
        *((f"ENCAP_SOURCE6_{n}", word) for n, word in enumerate(words)),
        ("GUE_PORT", settings.gue_port),
        ("TOO_BIG_PER_SECOND", settings.too_big_replies_per_second),
        ("UDP_IDLE_S", settings.udp_idle_seconds),
        ("TCP_IDLE_S", settings.tcp_idle_seconds),
        ("NAT_OPENING_S", settings.nat_opening_seconds),
        ("NAT_CLOSING_S", settings.nat_closing_seconds),
        ("NAT_TCP_IDLE_S", settings.nat_tcp_idle_seconds),
        ("NAT_UDP_IDLE_S", settings.nat_udp_idle_seconds),
        ("NAT_ICMP_IDLE_S", settings.nat_icmp_idle_seconds),
    )
