"""The whole way of a frame, stage by stage, to its verdict."""

from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from lb.dataplane.protocol import NextHop
from lb.model import Backend, Config, Mode, Service
from lb.model.health import CheckType, Via
from tests.reference import icmp, send, too_big
from tests.reference.admission import Admission
from tests.reference.balancer import Balancer
from tests.reference.guards import Guards
from tests.reference.limits import Limits
from tests.reference.lists import Lists
from tests.reference.nat_path import NatPath
from tests.reference.packet import TCP, UDP, Flow, Packet, read
from tests.reference.rules import Document, Rule, Rules
from tests.reference.services import Services
from tests.reference.sources import is_nobodys

PROBE_PORTS = range(61000, 65000)
FOR_NO_SERVICE = ("PASS_PROTOCOL", "PASS_NO_SERVICE")
"""Verdicts on what may still be the reply of a backend that sees its clients."""


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
        self.nat = NatPath(mac, ifindex)
        self.limits, self.guards = Limits(), Guards()
        self.admission = Admission(self.limits)
        self.configure(Config(), {}, 0.0)

    @property
    def quic(self) -> Counter[str]:
        """How many packets of QUIC services went by_id, with an unknown id or without."""
        return self._balancer.quic

    def clear_counts(self) -> None:
        """Nothing was counted: of QUIC, of rules, of guards."""
        self.quic.clear()
        self.admission.counted.clear()
        self.guards.counted.clear()

    def forget(self) -> None:
        """No packet was ever seen."""
        self._balancer.forget()
        self.nat.nat.forget()
        self.limits.clear()
        self.guards.forget()

    def configure(
        self, config: Config, hops: Mapping[bytes, NextHop], now: float, rules: Iterable[Document] = ()
    ) -> None:
        """Take a desired state, and the way to each packed backend; the flows are kept.

        A backend whose way is missing cannot be reached. now: seconds since the epoch, for the lists' deadlines.
        Answers of "too big" have no limit here but none at all. rules: as documents, read here once more.
        """
        self._settings = config.settings
        self._services = Services(config)
        self.admission.lists, self.admission.rules = Lists(config, now), Rules(rules, config.services)
        self.guards.configure(list(config.services.values()))
        self._hops = self.nat.hops = hops
        self.nat.nat.configure(config)
        self.nat.told = bool(config.settings.too_big_replies_per_second)
        checks = [s.health_check for s in config.services.values() if s.health_check]
        self._probes = any(
            check.type is not CheckType.COMMAND and check.via is not Via.DIRECT for check in checks
        )

    def run(self, frame: bytes) -> Answer:
        """What becomes of a frame. What is passed or dropped is left as it came."""
        packet = read(frame, self._mac)
        if isinstance(packet, str):
            return Answer(packet, frame)
        to_pool = self.nat.nat.is_pool(packet.destination)
        ports = icmp.reply_ports(frame, packet)
        if to_pool and (entry := self.nat.nat.of_reply(packet, ports)):
            return Answer(*self.nat.reply(frame, packet, entry))
        spoofed = self._settings.drop_spoofed and self._is_spoofed(packet)
        verdict, later = self.admission.ask(packet, len(frame), spoofed=spoofed)
        if verdict:
            return Answer(verdict, frame)
        is_vip = self._services.is_vip(packet.destination)
        if packet.fragment:
            return Answer("DROP_FRAGMENT" if is_vip or to_pool else "PASS_FRAGMENT", frame)
        if to_pool and icmp.is_icmp(packet):
            return Answer(*(self.nat.error_for_pool(frame, packet) or ("PASS_PROTOCOL", frame)))
        answer = self._serve(frame, packet, later, is_vip=is_vip)
        if answer.verdict in FOR_NO_SERVICE and (entry := self.nat.nat.of_kept(packet, ports)):
            return Answer(*self.nat.reply(frame, packet, entry))
        told = self.nat.error_for_client(frame, packet) if answer.verdict == "PASS_PROTOCOL" else None
        return Answer(*told) if told else answer

    def _serve(self, frame: bytes, packet: Packet, later: Iterable[Rule], *, is_vip: bool) -> Answer:
        """What becomes of a packet that was let in, if it is no reply."""
        if is_vip and icmp.is_icmp(packet):
            return self._answer_icmp(frame, packet, later)
        if packet.protocol not in (TCP, UDP):
            return Answer("PASS_PROTOCOL", frame)
        service = self._services.find(packet.destination, packet.port, packet.protocol)
        if service is None:
            return Answer("PASS_NO_SERVICE", frame)
        if service.mode is Mode.NAT:
            return self._translate(service, frame, packet, packet.flow, later)
        backend = self._choose(service, frame, packet, later)
        if isinstance(backend, str):
            return Answer(backend, frame)
        return self._forward(frame, packet, packet.flow, service.mode, backend)

    def _is_spoofed(self, packet: Packet) -> bool:
        """A backend's answer to a check of ours has a VIP as its source by right."""
        if is_nobodys(packet.source) or not self._services.is_vip(packet.source):
            return is_nobodys(packet.source)
        to_probe = packet.has_ports and packet.port in PROBE_PORTS
        return not (self._probes and to_probe and not self._services.is_vip(packet.destination))

    def _answer_icmp(self, frame: bytes, packet: Packet, later: Iterable[Rule]) -> Answer:
        identifier = icmp.echo_of(frame, packet, icmp.REQUEST)
        service = self._services.find(packet.destination, 0, packet.protocol)
        if identifier is not None and service is not None:
            flow = Flow(packet.source, identifier, packet.destination, 0, packet.protocol)
            return self._translate(service, frame, packet, flow, later)
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
        if service.mode is Mode.NAT:
            return Answer(*self.nat.error_for_vip(frame, packet, quoted, service))
        backend = self._balancer.choose_for_quoted(service, quoted)
        return self._forward(frame, packet, quoted, service.mode, backend)

    def _translate(
        self, service: Service, frame: bytes, packet: Packet, flow: Flow, later: Iterable[Rule]
    ) -> Answer:
        """A client's packet for a service of mode nat; later: as in _choose."""

        def choose() -> Backend | str | None:
            if self.admission.is_over(later, packet, len(frame)):
                return "DROP_LIMIT"
            sequence = frame[packet.transport + 4 : packet.transport + 8]
            verdict, _ = self.guards.ask(service, packet, sequence)
            if verdict:
                return verdict
            return self._balancer.by_ring_alone(service, flow)

        def learn() -> None:
            self.guards.learn(service, packet.source)

        out, entry = self.nat.request(frame, packet, flow, service, choose=choose, learn=learn)
        return Answer(*out, None if entry is None else entry.backend)

    def _choose(
        self, service: Service, frame: bytes, packet: Packet, later: Iterable[Rule]
    ) -> Backend | str | None:
        """The backend: by connection id, else by flow, else by the ring, where a new flow may meet its end.

        later: limits of new flows that are asked if this UDP packet begins one.
        """
        data = frame[packet.transport : packet.start + packet.length]
        if service.quic and (named := self._balancer.by_id(service, packet, data[8:])) is not None:
            return named
        remember = True
        if self._balancer.is_known(service, packet):
            if (held := self._balancer.held(service, packet)) is not None:
                if self._balancer.goes_on(packet):
                    self.guards.learn(service, packet.source)
                return held
        elif self.admission.is_over(later, packet, len(frame)):
            return "DROP_LIMIT"
        elif packet.protocol == UDP or packet.opens:
            verdict, remember = self.guards.ask(service, packet, data[4:8])
            if verdict:
                return verdict
        else:
            remember = not self.guards.is_attacked(service)
        return self._balancer.by_ring(service, packet, remember=remember)

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
