"""The whole way of a frame, stage by stage, to its verdict."""

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from lb.dataplane.protocol import NextHop
from lb.model import Backend, Config, Mode
from tests.reference import icmp, send, too_big
from tests.reference.balancer import Balancer, Known
from tests.reference.lists import Rules
from tests.reference.packet import TCP, UDP, Flow, Packet, read
from tests.reference.services import Services
from tests.reference.sources import is_nobodys


class Answer(NamedTuple):
    """The name of the verdict, the frame as it leaves, and the backend that was chosen if any."""

    verdict: str
    frame: bytes
    backend: IPv4Address | IPv6Address | None = None


class Reference:
    """A balancer's one interface (its MAC and index), with the flows that it has seen."""

    def __init__(self, mac: bytes, ifindex: int) -> None:
        self._mac, self._ifindex = mac, ifindex
        self._balancer = Balancer()
        self.configure(Config(), {}, 0.0)

    @property
    def flows(self) -> Known:
        """The flow table."""
        return self._balancer.flows

    @property
    def quic(self) -> Counter[str]:
        """How many packets of QUIC services went by_id, with an unknown id or without."""
        return self._balancer.quic

    def configure(self, config: Config, hops: Mapping[bytes, NextHop], now: float) -> None:
        """Take a desired state, and the way to each packed backend; the flows are kept.

        A backend whose way is missing cannot be reached. now: seconds since the epoch, for the lists' deadlines.
        Answers of "too big" have no limit here but none at all.
        """
        self._settings = config.settings
        self._rules, self._services = Rules(config, now), Services(config)
        self._hops = hops

    def run(self, frame: bytes) -> Answer:
        """What becomes of a frame. What is passed or dropped is left as it came."""
        packet = read(frame, self._mac)
        if isinstance(packet, str):
            return Answer(packet, frame)
        if self._rules.blocks(packet.source):
            return Answer("DROP_BLOCKLIST", frame)
        if self._settings.drop_spoofed and self._is_spoofed(packet.source):
            return Answer("DROP_SPOOFED", frame)
        is_vip = self._services.is_vip(packet.destination)
        if packet.fragment:
            return Answer("DROP_FRAGMENT" if is_vip else "PASS_FRAGMENT", frame)
        if is_vip and icmp.is_icmp(packet):
            return self._answer_icmp(frame, packet)
        if packet.protocol not in (TCP, UDP):
            return Answer("PASS_PROTOCOL", frame)
        return self._balance(frame, packet)

    def _is_spoofed(self, source: bytes) -> bool:
        return is_nobodys(source) or self._services.is_vip(source)

    def _answer_icmp(self, frame: bytes, packet: Packet) -> Answer:
        quoted = icmp.read(frame, packet)
        if quoted == "TX_ECHO":
            if not self._settings.answer_echo:
                return Answer("PASS_PROTOCOL", frame)
            return Answer("TX_ECHO", icmp.echo_reply(frame, packet))
        if isinstance(quoted, str):
            return Answer(quoted, frame)
        service = self._services.find(quoted.vip, quoted.port, quoted.protocol)
        if service is None:
            return Answer("PASS_ICMP_ERROR", frame)
        backend = self._balancer.choose_for_quoted(service, quoted)
        return self._forward(frame, packet, quoted, service.mode, backend)

    def _balance(self, frame: bytes, packet: Packet) -> Answer:
        flow = packet.flow
        service = self._services.find(flow.vip, flow.port, flow.protocol)
        if service is None:
            return Answer("PASS_NO_SERVICE", frame)
        datagram = frame[packet.transport + 8 : packet.start + packet.length]
        backend = self._balancer.choose(service, flow, packet.flags, datagram)
        return self._forward(frame, packet, flow, service.mode, backend)

    def _forward(
        self, frame: bytes, packet: Packet, flow: Flow, mode: Mode, backend: Backend | None
    ) -> Answer:
        """Send a packet to its backend; flow: its own, or the one that it quotes as an ICMP error."""
        if backend is None:
            return Answer("DROP_NO_BACKEND", frame)
        hop = self._hops.get(backend.address.packed)
        # By a router's MAC a packet that still says the VIP would come straight back.
        if hop is None or hop.mac is None or (mode is Mode.L2 and hop.gateway):
            return Answer("DROP_NO_NEXT_HOP", frame, backend.address)
        verdict = f"{'TX' if hop.ifindex == self._ifindex else 'REDIRECT'}_{mode.upper()}"
        if mode is Mode.L2:
            return Answer(verdict, send.rewrite(frame, hop), backend.address)
        fits = hop.mtu - send.overhead(backend.address.packed, mode)
        if hop.mtu and packet.length > fits:
            told = self._settings.too_big_replies_per_second and not icmp.is_icmp(packet)
            if told and too_big.is_answered(packet):
                return Answer("TX_TOO_BIG", too_big.answer(frame, packet, fits), backend.address)
            return Answer("DROP_TOO_BIG", frame, backend.address)
        to = backend.address
        out = send.encapsulate(
            frame, packet, flow, hop, backend=to.packed, mode=mode, settings=self._settings
        )
        return Answer(verdict, out, to)
