"""A packet's path in words: from the trace of one frame to a step for each stage it reached. Pure."""

from collections.abc import Callable, Iterator
from ipaddress import IPv6Network, ip_address

from lb.dataplane.layout import Verdict
from lb.dataplane.trace import NONE, STAGES, Trace, TracedFlow
from lb.model import AdminState, Service
from lb.model.address import AnyAddress
from lb.model.port import NO_PORT
from lb.model.rule import RuleAction
from lb.reconcile.explained import ListEntry, Step, View, address_text
from lb.reconcile.nat_words import NOT_WALKED, nat_words
from lb.reconcile.rule_words import guard_words, over_limit, rule_name, rule_of
from lb.reconcile.services import ServicePlan

CONTINUE = "continue"
_ETHERNET, _TAG = 14, 4
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_PROTOCOLS = {
    _ICMP: "ICMP",
    2: "IGMP",
    4: "IPv4 in IP",
    _TCP: "TCP",
    _UDP: "UDP",
    41: "IPv6 in IP",
    47: "GRE",
    50: "ESP",
    51: "AH",
    _ICMPV6: "ICMPv6",
    89: "OSPF",
    132: "SCTP",
}
_FLAGS = ((0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"))
_WRONG = {
    "DROP_TRUNCATED": "a header or the packet is longer than the frame",
    "DROP_BAD_IPV4": "the IPv4 header contradicts itself",
    "DROP_BAD_IPV6": "the IPv6 header contradicts itself",
    "DROP_BAD_TCP": "the TCP header's length cannot be right",
    "DROP_VLAN_DEPTH": "there are more VLAN tags than are parsed",
    "DROP_IPV6_CHAIN": "there are more IPv6 extension headers than are parsed",
}
_SHOWN = 4
"""Services named where a port has none."""


def steps_of(frame: bytes, frame_out: bytes, trace: Trace, view: View) -> Iterator[Step]:
    """A step for each stage that had to do with the frame; ConflictError if a name is gone."""
    verdict = view.verdicts[trace.verdict]
    for stage in STAGES.values():
        last = stage == trace.stage
        if not last and stage in NOT_WALKED.get(trace.nat_way, ()):
            continue
        if stage != "icmp" or last or trace.parsed.protocol in (_ICMP, _ICMPV6):
            say: Callable[[_Packet], str] = _WORDS[stage]
            packet = _Packet(frame, frame_out, trace, view, verdict if last else None)
            yield Step(stage, verdict.name if last else CONTINUE, say(packet))
        if last:
            return


class _Packet:
    """What a stage's words are made of. end: the verdict, if the way ended in that stage."""

    __slots__ = ("end", "frame", "out", "trace", "view")

    def __init__(self, frame: bytes, out: bytes, trace: Trace, view: View, end: Verdict | None) -> None:
        self.frame, self.out, self.trace, self.view, self.end = frame, out, trace, view, end

    @property
    def ended(self) -> str:
        """The name of the verdict that the stage gave, or ""."""
        return self.end.name if self.end else ""

    @property
    def plan(self) -> ServicePlan:
        return self.view.plan(self.trace.service)

    @property
    def backend(self) -> str:
        return self.view.address(self.plan, self.trace.place - self.plan.start)


def _parse(p: _Packet) -> str:
    size = len(p.frame)
    if p.ended == "PASS_NOT_OUR_MAC":
        return f"the frame is for {p.frame[:6].hex(':')}, and this interface is {p.view.mac.hex(':')}"
    if p.ended == "PASS_NOT_IP":
        at = max(p.trace.ip_offset, _ETHERNET)
        return f"ethertype 0x{p.frame[at - 2 : at].hex()} is neither IPv4 nor IPv6"
    if not p.trace.parsed.family:
        return f"{_WRONG.get(p.ended, 'it cannot be read')}; the frame has {size} bytes{_tags(p.trace)}"
    words = f"{_named(p.trace.parsed, p.trace.ip_length)}{_tags(p.trace)}, in a frame of {size} bytes"
    return f"{words}: {_WRONG.get(p.ended, 'it cannot be read')}" if p.ended else words


def _tags(trace: Trace) -> str:
    number = (trace.ip_offset - _ETHERNET) // _TAG
    return f", behind {number} VLAN tag{'s' if number > 1 else ''}" if number > 0 else ""


def _named(flow: TracedFlow, length: int) -> str:
    """A packet as a person would name it."""
    text = f"IPv{flow.family} {_protocol(flow.protocol)} {_ends(flow)}"
    if flow.is_fragment:
        text += ", a fragment"
    if flow.protocol == _TCP and flow.has_ports:
        text += f", {'+'.join(name for bit, name in _FLAGS if flow.tcp_flags & bit) or 'no flags'}"
    return f"{text}, {length} bytes"


def _protocol(number: int) -> str:
    return _PROTOCOLS.get(number, f"protocol {number}")


def _ends(flow: TracedFlow) -> str:
    if not flow.has_ports or flow.protocol not in (_TCP, _UDP):
        return f"{address_text(flow.source)} → {address_text(flow.destination)}"
    return f"{_end(flow.source, flow.source_port)} → {_end(flow.destination, flow.port)}"


def _end(address: bytes, port: int) -> str:
    text = address_text(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _admit(p: _Packet) -> str:
    source = address_text(p.trace.parsed.source)
    denied, allowed = entry_of(p.trace, p.view, allow=False), entry_of(p.trace, p.view, allow=True)
    rule = rule_of(p.trace, p.view)
    if rule is not None and rule.rule.action is RuleAction.ALLOW:
        held = f"blocklist entry {_entry(denied)}" if denied else "no blocklist entry"
        return f"{held} holds {source}, and rule {rule_name(rule)} allows it"
    if denied is None:
        words = f"no blocklist entry holds {source}"
        if allowed is not None:
            words += f", and allowlist entry {_entry(allowed)} lets it skip all rules"
    elif allowed is not None:
        words = f"blocklist entry {_entry(denied)} holds {source}, and allowlist entry {_entry(allowed)} lets it in"
    elif p.ended == "DROP_BLOCKLIST":
        words = f"blocklist entry {_entry(denied)} drops what {source} sends"
    else:
        words = f"blocklist entry {_entry(denied)} holds {source}, and only counts"
    if p.ended == "DROP_SPOOFED":
        return f"{words}, but no client has this address: it is this host's, loopback, multicast or a VIP"
    if p.ended == "DROP_LIMIT":
        return f"{words}; {over_limit(rule)}"
    return (
        f"{words}; rule {rule_name(rule)} drops it" if rule is not None and p.ended == "DROP_RULE" else words
    )


def entry_of(trace: Trace, view: View, *, allow: bool) -> ListEntry | None:
    """The entry of a list that a packet met."""
    rule = trace.allow_entry if allow else trace.deny_entry
    return view.entries[allow, rule, trace.parsed.source] if rule else None


def _entry(met: ListEntry) -> str:
    reason = met.entry.attributes.reason
    return f"{met.entry.prefix} ({met.entry.owners[0]}{f': {reason}' if reason else ''})"


def _icmp(p: _Packet) -> str:
    if p.ended == "TX_ECHO":
        return f"an echo request for VIP {address_text(p.trace.parsed.destination)}, answered here"
    if p.ended == "DROP_TRUNCATED":
        return "the packet ends within its ICMP header"
    if p.ended:
        return "an error for a VIP, which quotes no packet that one of its services could have sent"
    if p.trace.wanted.is_quoted:
        flow = p.trace.wanted
        return f"an error about {_protocol(flow.protocol)} {_ends(flow)}: it goes where that flow goes"
    if p.trace.wanted.has_ports:
        return f"an echo request, identifier {p.trace.wanted.source_port}"
    return "not answered here, and not an error about a flow"


def _service(p: _Packet) -> str:
    flow = p.trace.wanted
    vip = address_text(flow.destination)
    is_kept = p.trace.nat_way == "kept"  # no service takes it, and it may be a reply of NAT's
    if not p.ended and not is_kept:
        service = p.plan.service
        at = "" if service.port == NO_PORT else f" port {service.port}"
        return f'service "{service.name}" takes {service.protocol} {service.vip}{at}'
    if p.ended == "DROP_FRAGMENT":
        what = "VIP" if _at(p, vip) else "pool address"
        return f"a fragment for {what} {vip}: ports are not in every fragment, so none is balanced"
    if p.ended == "PASS_FRAGMENT":
        return f"a fragment, and {vip} is not a VIP"
    if p.ended == "PASS_PROTOCOL" or (is_kept and flow.protocol not in (_TCP, _UDP)):
        return f"{_protocol(flow.protocol)} is neither TCP nor UDP"
    return f"no service has {_protocol(flow.protocol)} {vip} port {flow.port}{_others(p, vip)}"


def _at(p: _Packet, vip: str) -> list[Service]:
    """The services of a VIP."""
    address = ip_address(vip)
    return [s for s in p.view.config.services.values() if _is_vip(address, s)]


def _others(p: _Packet, vip: str) -> str:
    there = _at(p, vip)
    if not there:
        return f", and {vip} is not a VIP"
    named = ", ".join(f'"{s.name}" has {s.protocol} {s.port}'.removesuffix(" none") for s in there[:_SHOWN])
    return f"; of this VIP {named}{' and more' if len(there) > _SHOWN else ''}"


def _is_vip(address: AnyAddress, service: Service) -> bool:
    vip = service.vip
    return address in vip if isinstance(vip, IPv6Network) else address == vip


def _select(p: _Packet) -> str:
    unknown = ""
    if p.trace.quic_id and p.trace.via != "quic-cid":
        unknown = f"QUIC connection id {p.trace.quic_id} names no backend that accepts packets; "
    if p.ended == "DROP_LIMIT":
        return f"{unknown}{_why_not_flow(p)}, and {over_limit(rule_of(p.trace, p.view))}"
    if p.ended in ("DROP_SYN_TEST", "DROP_NEW_FLOW"):
        return f"{unknown}{_why_not_flow(p)}, and {guard_words(p.plan.service.name, p.trace.guard)}"
    if p.ended == "DROP_NO_BACKEND":
        return f'{unknown}{_why_not_flow(p)}, and "{p.plan.service.name}" has {_none_enabled(p.plan.service)}'
    if p.trace.place == NONE or p.trace.via is None:
        return f"{unknown}the tables contradict each other"
    if p.trace.via == "quic-cid":
        return f"QUIC connection id {p.trace.quic_id} names backend {p.backend}"
    if p.trace.via == "flow" and p.trace.slot:
        kind = "an established flow" if p.trace.slot.established else "a new flow"
        return (
            f"{unknown}the flow table has it as {kind} of backend {p.backend}, last seen "
            f"{_seconds(p.trace.slot.age_s)} ago"
        )
    guarded = f"; {guard_words(p.plan.service.name, p.trace.guard)}" if p.trace.guard else ""
    return f"{unknown}{_why_not_flow(p)}: the ring names backend {p.backend}{guarded}"


def _none_enabled(service: Service) -> str:
    states = [b.admin_state for b in service.backends]
    if not states:
        return "no backends"
    parts = [(sum(s is state for s in states), str(state)) for state in AdminState]
    return f"no backend that takes new flows ({', '.join(f'{n} {name}' for n, name in parts if n)})"


def _why_not_flow(p: _Packet) -> str:
    """Why the flow table did not decide. The last reason is the one that is left."""
    slot, flow = p.trace.slot, p.trace.wanted
    if slot is None:
        return "the flow table does not have it"
    if slot.service != p.trace.service:
        return "the flow table has it for another service"
    if flow.protocol == _TCP and not flow.is_quoted and flow.tcp_flags & 0x12 == 0x02:
        return "a SYN opens a new connection, whatever the flow table has"
    settings = p.view.config.settings
    if slot.age_s > (settings.udp_idle_seconds if slot.udp else settings.tcp_idle_seconds):
        return f"the flow table's entry is {_seconds(slot.age_s)} old, which is too old"
    return "the flow table's backend no longer takes its packets"


def _seconds(number: int) -> str:
    return f"{number} second{'' if number == 1 else 's'}"


def _forward(p: _Packet) -> str:
    way = p.view.ways[p.trace.place]
    if p.ended == "DROP_NO_NEXT_HOP":
        return f"no MAC is known for the next hop to {p.backend}: look at the route and the neighbour table"
    if p.ended in ("TX_TOO_BIG", "DROP_TOO_BIG"):
        told = "the client is told" if p.ended == "TX_TOO_BIG" else "the client is not told"
        return (
            f"{p.trace.ip_length} bytes and the outer header exceed the {way.mtu} bytes that the way to {p.backend} "
            f"takes; {told}"
        )
    if p.end is None or p.end.action not in ("tx", "redirect"):
        return f"the frame could not be prepared for {p.backend}"
    return f"to {p.backend} by {way.interface}, next hop {p.out[:6].hex(':')}, {len(p.out)} bytes"


def _nat(p: _Packet) -> str:
    return nat_words(p.trace, p.ended, p.out)


_WORDS: dict[str, Callable[[_Packet], str]] = {
    "parse": _parse,
    "admit": _admit,
    "icmp": _icmp,
    "service": _service,
    "select": _select,
    "forward": _forward,
    "nat": _nat,
}
