"""What NAT did with a packet, in words. Pure."""

from collections.abc import Mapping

from lb.dataplane.layout import layout
from lb.dataplane.trace import Trace
from lb.reconcile.explained import address_text

_C = layout().constants
_SYN, _ACK, _FIN, _RST = (_C[f"NAT_{name}"] for name in ("SYN", "ACK", "FIN", "RST"))
_AFTER_SERVICE = ("select", "forward")
NOT_WALKED: Mapping[str | None, tuple[str, ...]] = {
    "request": _AFTER_SERVICE,
    "reply": ("admit", "icmp", "service", *_AFTER_SERVICE),
    "icmp": ("icmp", "service", *_AFTER_SERVICE),
    "kept": _AFTER_SERVICE,
}
"""Stages that a packet of NAT's does not come to."""
_REASONS = {
    "DROP_NAT_NO_FLOW": "no flow is known for it, and it opens none",
    "DROP_NAT_PORTS": "it would be a new flow, but none of the ports tried is free: add addresses to nat_pools",
    "DROP_NAT_CLASH": "another flow of this client has the same way to the same backend",
    "DROP_NAT_UNTRANSLATABLE": "it has no counterpart in the other family",
    "DROP_TTL": "its TTL ends here",
    "DROP_NO_BACKEND": "it would be a new flow, but no backend takes new flows",
    "DROP_NO_NEXT_HOP": "no MAC is known for the backend's next hop: look at the route and the neighbour table",
    "TX_TOO_BIG": "it would leave larger than the path's MTU; the sender is told",
    "DROP_TOO_BIG": "it would leave larger than the path's MTU; the sender is not told",
    "PASS_ICMP_ERROR": "what it quotes is not a flow of NAT",
    "PASS_PROTOCOL": "it is not a reply of a NAT flow",
    "PASS_NO_SERVICE": "it is not a reply of a NAT flow",
}
_TCP = 6
_ECHO = {1: (8, 0), 58: (128, 129)}
"""Types of echo requests and replies."""
_ERRORS = {1: (3, 11, 12), 58: (1, 2, 3, 4)}
"""Types of errors that quote a packet."""
_ICMP_HEADER = 8


def nat_words(trace: Trace, ended: str, out: bytes) -> str:
    """ended: the verdict's name; out: the frame as it leaves."""
    reason = _REASONS.get(ended)
    if reason is not None:
        return reason
    if "NAT" not in ended:
        return "it would be a new flow, and is not admitted"
    about = _quoted_protocol(out, trace.ip_offset)
    if about is not None:
        flow = f"an ICMP error about a known flow, {_state(trace, about)}"
    elif trace.nat_states == (0, 0):
        flow = "a new flow"
    else:
        flow = f"its flow is known, {_state(trace, trace.wanted.protocol)}"
    return f"{flow}; leaves as {_ends(out, trace.ip_offset)}"


def _state(trace: Trace, protocol: int) -> str:
    forward, reply = (state & 0xFFFFFFFF for state in trace.nat_states)
    if protocol != _TCP:
        return "with replies" if reply & _SYN else "without a reply so far"
    if (forward | reply) & _RST or forward & reply & _FIN:
        return "closing"
    return "open" if forward & _ACK and reply & _SYN else "opening"


def _transport(frame: bytes, at: int) -> tuple[int, int]:
    """The protocol of an IP packet, and where its transport header starts; what NAT sends has no other headers."""
    return (frame[at + 9], at + (frame[at] & 15) * 4) if frame[at] >> 4 == 4 else (frame[at + 6], at + 40)


def _quoted_protocol(frame: bytes, at: int) -> int | None:
    """The protocol of what an ICMP error quotes; None: the packet is none."""
    protocol, icmp = _transport(frame, at)
    is_error = frame[icmp] in _ERRORS.get(protocol, ())
    return _transport(frame, icmp + _ICMP_HEADER)[0] if is_error else None


def _ends(frame: bytes, at: int) -> str:
    """Addresses, and ports if there are any, of a frame's packet."""
    protocol, ports = _transport(frame, at)
    first, size = (at + 12, 4) if frame[at] >> 4 == 4 else (at + 8, 16)
    source, destination = frame[first : first + size], frame[first + size : first + 2 * size]
    if protocol not in (_TCP, 17):
        plain = f"{address_text(source)} → {address_text(destination)}"
        if frame[ports] not in _ECHO.get(protocol, ()):
            return plain
        return f"{plain}, identifier {int.from_bytes(frame[ports + 4 : ports + 6], 'big')}"
    numbers = [int.from_bytes(frame[where : where + 2], "big") for where in (ports, ports + 2)]
    return " → ".join(_end(address_text(a), n) for a, n in zip((source, destination), numbers, strict=True))


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
