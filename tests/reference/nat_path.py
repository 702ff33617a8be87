"""What becomes of packets of mode nat, both ways: requests, replies, and errors that quote either."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lb.dataplane.protocol import NextHop
from lb.model import Backend, Service
from tests.reference import nat_errors, too_big
from tests.reference.icmp import HEADER, is_icmp
from tests.reference.nat import Entry, Nat, seen_flags
from tests.reference.packet import ACK, SYN, TCP, Flow, Packet
from tests.reference.translate import Ends, translate, translated_length

Choose = Callable[[], Backend | str | None]
"""Asks what is asked of a new flow, then the ring: a backend, a verdict, or None if no backend takes new flows."""


class Out(NamedTuple):
    """A verdict and the frame that leaves."""

    verdict: str
    frame: bytes


class Way(NamedTuple):
    """How a packet would leave: the MTU there (0: unknown), both MACs, and the verdict."""

    mtu: int
    macs: bytes
    verdict: str


class NatPath:
    """One interface: its MAC, index and MTU. told: whether who sends too big a packet is told."""

    def __init__(self, mac: bytes, ifindex: int) -> None:
        self._mac, self._ifindex, self.mtu = mac, ifindex, 1500
        self.nat = Nat()
        self.hops: Mapping[bytes, NextHop] = {}
        self.told = True

    def request(
        self,
        frame: bytes,
        packet: Packet,
        flow: Flow,
        service: Service,
        *,
        choose: Choose,
        learn: Callable[[], None],
    ) -> tuple[Out, Entry | None]:
        """A client's packet for a service, and the entry that it is of; learn: its source is one whose flow went on."""
        found = self._found(packet, flow, service, choose)
        if isinstance(found, str):
            return Out(found, frame), None
        known = found if isinstance(found, Entry) else None
        backend = found.backend if isinstance(found, Entry) else found.address
        hop = self.hops.get(backend.packed)
        if hop is None or hop.mac is None:
            return Out("DROP_NO_NEXT_HOP", frame), known
        entry = known or self.nat.open(service, flow, found, frame[6:12])
        if isinstance(entry, str):
            return Out(entry, frame), None
        if packet.protocol == TCP and not packet.flags & SYN and not entry.sent & ACK:
            learn()
        if packet.opens and entry.is_closing:
            entry.sent = entry.answered = 0
        entry.sent |= seen_flags(packet)
        entry.client_mac = frame[6:12]
        ends = Ends(*entry.source, entry.backend.packed, entry.backend_port)
        way = self._there(hop)
        if (stopped := self._stopped(frame, packet, len(backend.packed), way)) is not None:
            return stopped, entry
        return _translated(frame, packet, ends, way), entry

    def _found(self, packet: Packet, flow: Flow, service: Service, choose: Choose) -> Entry | Backend | str:
        """The entry of a packet, or the backend for a new one, or a verdict."""
        entry = self.nat.find(flow)
        backend = None if entry is None or entry.service != service.name else self.nat.backend(entry)
        if entry is not None and backend is not None:
            again = packet.opens and entry.is_closing
            if not again or backend.ring_weight:
                return entry
        self.nat.leave(flow)
        if packet.protocol == TCP and not packet.opens:
            return "DROP_NAT_NO_FLOW"
        chosen = choose()
        return "DROP_NO_BACKEND" if chosen is None else chosen

    def reply(self, frame: bytes, packet: Packet, entry: Entry) -> Out:
        """A backend's packet for an entry's client."""
        entry.answered |= seen_flags(packet)
        flow = entry.flow
        way = self._back(entry)
        ends = Ends(flow.vip, flow.port, flow.client, flow.client_port)
        stopped = self._stopped(frame, packet, len(flow.client), way)
        return stopped or _translated(frame, packet, ends, way)

    def error_for_vip(self, frame: bytes, packet: Packet, quoted: Flow, service: Service) -> Out:
        """An error from a client's side that quotes what a VIP sent."""
        entry = self.nat.find(quoted)
        if entry is None or entry.service != service.name or self.nat.backend(entry) is None:
            return Out("PASS_ICMP_ERROR", frame)
        hop = self.hops.get(entry.backend.packed)
        if hop is None or hop.mac is None:
            return Out("DROP_NO_NEXT_HOP", frame)
        way = self._there(hop)
        stopped = _error_stopped(frame, packet, len(entry.backend.packed), way)
        return stopped or _finished(frame, nat_errors.to_backend(frame, packet, entry), way)

    def error_for_pool(self, frame: bytes, packet: Packet) -> Out | None:
        """An error from a backend's side for a pool address; None if it is no error."""
        message = frame[packet.transport : packet.start + packet.length]
        if is_icmp(packet) and len(message) < HEADER:
            return Out("DROP_TRUNCATED", frame)
        if not nat_errors.is_error(packet, message):
            return None
        quote = _quote_of_request(frame, packet)
        entry = quote and self.nat.entries.get((quote.source, quote.source_port))
        if quote is None or entry is None or entry.reply != quote.answer:
            return Out("PASS_ICMP_ERROR", frame)
        return self._told_client(frame, packet, entry)

    def error_for_client(self, frame: bytes, packet: Packet) -> Out | None:
        """The same for a client that backends see; None if it is nothing of NAT's."""
        quote = _quote_of_request(frame, packet)
        entry = quote and self.nat.kept(quote.answer)
        return self._told_client(frame, packet, entry) if entry else None

    def _told_client(self, frame: bytes, packet: Packet, entry: Entry) -> Out:
        way = self._back(entry)
        stopped = _error_stopped(frame, packet, len(entry.flow.client), way)
        return stopped or _finished(frame, nat_errors.to_client(frame, packet, entry), way)

    def _there(self, hop: NextHop) -> Way:
        assert hop.mac is not None
        verdict = f"{'TX' if hop.ifindex == self._ifindex else 'REDIRECT'}_NAT"
        return Way(hop.mtu, hop.mac + hop.source_mac, verdict)

    def _back(self, entry: Entry) -> Way:
        return Way(self.mtu, entry.client_mac + self._mac, "TX_NAT_REPLY")

    def _stopped(self, frame: bytes, packet: Packet, size: int, way: Way) -> Out | None:
        """Why a packet cannot leave in packets of that address size; None if it can."""
        if _ttl(frame, packet) <= 1:
            return Out("DROP_TTL", frame)
        grows = translated_length(packet, size) - packet.length
        if not way.mtu or packet.length + grows <= way.mtu:
            return None
        if self.told and too_big.is_answered(packet):
            return Out("TX_TOO_BIG", too_big.answer(frame, packet, way.mtu - grows))
        return Out("DROP_TOO_BIG", frame)


def _translated(frame: bytes, packet: Packet, ends: Ends, way: Way) -> Out:
    """A packet on its way."""
    made = translate(frame, packet, ends)
    return Out(made, frame) if isinstance(made, str) else Out(way.verdict, way.macs + made)


def _quote_of_request(frame: bytes, packet: Packet) -> nat_errors.Quote | None:
    """What an error quotes, if that was sent by whom the error is for."""
    quote = nat_errors.read_quote(frame, packet, of_reply=False)
    return quote if quote and quote.source == packet.destination else None


def _error_stopped(frame: bytes, packet: Packet, size: int, way: Way) -> Out | None:
    """Why an error cannot leave in packets of that address size. It gets no answer, and its quote grows as it does."""
    if _ttl(frame, packet) <= 1:
        return Out("DROP_TTL", frame)
    length = translated_length(packet, size) + 20 * ((size == 16) - (len(packet.source) == 16))
    return Out("DROP_TOO_BIG", frame) if way.mtu and length > way.mtu else None


def _finished(frame: bytes, made: bytes | str, way: Way) -> Out:
    return Out(made, frame) if isinstance(made, str) else Out(way.verdict, way.macs + made)


def _ttl(frame: bytes, packet: Packet) -> int:
    return frame[packet.start + (8 if len(packet.source) == 4 else 7)]
