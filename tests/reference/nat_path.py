"""What becomes of packets of mode nat, both ways: requests, replies, and errors that quote either."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lb.dataplane.protocol import NextHop
from lb.model import Backend, Service
from tests.reference import nat_errors, too_big
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
        entry = self._entry(frame, packet, flow, service, choose)
        if isinstance(entry, str):
            return Out(entry, frame), None
        if packet.protocol == TCP and not packet.flags & SYN and not entry.sent & ACK:
            learn()
        entry.sent |= seen_flags(packet)
        entry.client_mac = frame[6:12]
        hop = self.hops.get(entry.backend.packed)
        if hop is None or hop.mac is None:
            return Out("DROP_NO_NEXT_HOP", frame), entry
        ends = Ends(*entry.source, entry.backend.packed, entry.backend_port)
        return self._sent(frame, packet, ends, entry.slot[1], self._there(hop)), entry

    def _entry(
        self, frame: bytes, packet: Packet, flow: Flow, service: Service, choose: Choose
    ) -> Entry | str:
        entry = self.nat.find(flow)
        may_open = packet.opens or packet.protocol != TCP
        if entry is not None and entry.service == service.name and (backend := self.nat.backend(entry)):
            again = packet.opens and entry.is_closing
            if not again:
                return entry
            if backend.ring_weight:
                entry.sent = entry.answered = 0
                return entry
        if not may_open:
            return "DROP_NAT_NO_FLOW"
        chosen = choose()
        if isinstance(chosen, str):
            return chosen
        if chosen is None:
            return "DROP_NO_BACKEND"
        return self.nat.open(service, flow, chosen, frame[6:12])

    def reply(self, frame: bytes, packet: Packet, entry: Entry) -> Out:
        """A backend's packet for an entry's client."""
        entry.answered |= seen_flags(packet)
        flow = entry.flow
        ends = Ends(flow.vip, flow.port, flow.client, flow.client_port)
        return self._sent(frame, packet, ends, flow.client_port, self._back(entry))

    def error_for_vip(self, frame: bytes, packet: Packet, quoted: Flow, service: Service) -> Out:
        """An error from a client's side that quotes what a VIP sent."""
        entry = self.nat.find(quoted)
        if entry is None or entry.service != service.name or self.nat.backend(entry) is None:
            return Out("PASS_ICMP_ERROR", frame)
        hop = self.hops.get(entry.backend.packed)
        if hop is None or hop.mac is None:
            return Out("DROP_NO_NEXT_HOP", frame)
        made = nat_errors.to_backend(frame, packet, entry)
        return self._finished(frame, packet, made, self._there(hop))

    def error_for_pool(self, frame: bytes, packet: Packet) -> Out | None:
        """An error from a backend's side for a pool address; None if it is no error."""
        message = frame[packet.transport : packet.start + packet.length]
        if not nat_errors.is_error(packet, message):
            return None
        quote = nat_errors.read_quote(frame, packet)
        if quote is None or quote.source != packet.destination:
            return Out("PASS_ICMP_ERROR", frame)
        entry = self.nat.entries.get((quote.source, quote.source_port))
        if entry is None or entry.reply != (
            quote.destination,
            quote.port,
            quote.source,
            quote.source_port,
            quote.protocol,
        ):
            return Out("PASS_ICMP_ERROR", frame)
        made = nat_errors.to_client(frame, packet, entry)
        return self._finished(frame, packet, made, self._back(entry))

    def _there(self, hop: NextHop) -> Way:
        assert hop.mac is not None
        verdict = f"{'TX' if hop.ifindex == self._ifindex else 'REDIRECT'}_NAT"
        return Way(hop.mtu, hop.mac + hop.source_mac, verdict)

    def _back(self, entry: Entry) -> Way:
        return Way(self.mtu, entry.client_mac + self._mac, "TX_NAT_REPLY")

    def _sent(self, frame: bytes, packet: Packet, ends: Ends, number: int, way: Way) -> Out:
        """A translated packet on its way; number: the id of an echo."""
        if _ttl(frame, packet) <= 1:
            return Out("DROP_TTL", frame)
        grows = translated_length(packet, ends) - packet.length
        if way.mtu and packet.length + grows > way.mtu:
            if self.told and too_big.is_answered(packet):
                return Out("TX_TOO_BIG", too_big.answer(frame, packet, way.mtu - grows))
            return Out("DROP_TOO_BIG", frame)
        made = translate(frame, packet, ends, echo_id=number)
        return Out(made, frame) if isinstance(made, str) else Out(way.verdict, way.macs + made)

    def _finished(self, frame: bytes, packet: Packet, made: bytes | str, way: Way) -> Out:
        """An error on its way: it gets no answer."""
        if _ttl(frame, packet) <= 1:
            return Out("DROP_TTL", frame)
        if isinstance(made, str):
            return Out(made, frame)
        length = packet.length + len(way.macs) + len(made) - len(frame)
        too_long = way.mtu and length > way.mtu
        return Out("DROP_TOO_BIG", frame) if too_long else Out(way.verdict, way.macs + made)


def _ttl(frame: bytes, packet: Packet) -> int:
    return frame[packet.start + (8 if len(packet.source) == 4 else 7)]
