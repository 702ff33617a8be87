"""Known frames of new flows: for services that are guarded, in peace and under attack.

Nothing waits: a budget of none is always spent, and one that is never spent needs an attack that does not end.
"""

from typing import Any

from frames import BACKENDS6, service, tcp, udp
from known_case import case

PEACE, TESTED, REFUSED, PEACE6, TESTED6 = "10.200.2.1", "10.200.2.2", "10.200.2.3", "fc00:2::1", "fc00:2::2"
NEVER_SPENT = 1_000_000_000
ATTACKED = {
    "tested": NEVER_SPENT,
    "tested6": NEVER_SPENT,
    "within": NEVER_SPENT,
    "refused": 0,
    "refused-udp": 0,
}
"""Services under attack, and how many new flows in a second they may have then."""
_KNOWN, _KNOWN6 = "10.0.7.1", "2001:db8:7::1"
_STRANGER, _STRANGER6 = "10.0.7.2", "2001:db8:8::1"
_NEIGHBOUR6 = "2001:db8:7::2"
"""In the /64 of a known source."""


def _guarded(name: str, vip: str, *, test: bool = False, **more: Any) -> dict[str, Any]:
    guard = {"new_flows_per_second": NEVER_SPENT, "test_unknown": test}
    return service(name, vip=vip, flood_protection=guard, **more)


GUARDED = [
    _guarded("peace", PEACE),
    _guarded("peace6", PEACE6, backends=BACKENDS6),
    _guarded("tested", TESTED, test=True),
    _guarded("tested6", TESTED6, test=True, backends=BACKENDS6),
    _guarded("within", TESTED, protocol="udp"),
    _guarded("refused", REFUSED),
    _guarded("refused-udp", REFUSED, protocol="udp"),
]

_V4, _V6 = "VIP4 IPIP GUARD", "VIP6 IPIP GUARD"
GUARD_CASES = [
    case("in peace a SYN of a stranger", "TX_IPIP", tcp(_KNOWN, PEACE), _V4),
    case("in peace that connection goes on", "TX_IPIP", tcp(_KNOWN, PEACE, flags="A"), _V4),
    case("in peace a SYN of a stranger, IPv6", "TX_IPIP", tcp(_KNOWN6, PEACE6), _V6),
    case("in peace that connection goes on, IPv6", "TX_IPIP", tcp(_KNOWN6, PEACE6, flags="A"), _V6),
    case("under attack a SYN is tested", "DROP_SYN_TEST", tcp(_STRANGER, TESTED), _V4),
    case("under attack a SYN is tested, IPv6", "DROP_SYN_TEST", tcp(_STRANGER6, TESTED6), _V6),
    case("under attack no SYN but an ACK", "TX_IPIP", tcp(_STRANGER, TESTED, flags="A"), _V4),
    case("under attack a SYN of a known source", "TX_IPIP", tcp(_KNOWN, TESTED), _V4, remembers=True),
    case("under attack a SYN of a known /64", "TX_IPIP", tcp(_NEIGHBOUR6, TESTED6), _V6, remembers=True),
    case("under attack UDP within the budget", "TX_IPIP", udp(_STRANGER, TESTED), _V4),
    case("over the budget a SYN", "DROP_NEW_FLOW", tcp(_STRANGER, REFUSED), _V4),
    case("over the budget UDP", "DROP_NEW_FLOW", udp(_STRANGER, REFUSED), _V4),
    case("over the budget a SYN of a known source", "TX_IPIP", tcp(_KNOWN, REFUSED), _V4, remembers=True),
]
