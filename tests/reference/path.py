"""The whole way of a frame, stage by stage, to its verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lb.dataplane.protocol import NextHop
from lb.model import Backend, Config, Mode
from tests.reference import send
from tests.reference.balancer import Balancer, Known
from tests.reference.lists import Rules
from tests.reference.packet import TCP, UDP, Packet, read


@dataclass(frozen=True, slots=True)
class Answer:
    """The name of the verdict, the backend that was chosen if any, and the frame as it leaves."""

    verdict: str
    backend: IPv4Address | IPv6Address | None
    frame: bytes


class Reference:
    """A balancer's one interface (its MAC and index), with the flows that it has seen."""

    def __init__(self, mac: bytes, ifindex: int) -> None:
        self._mac, self._ifindex = mac, ifindex
        self.flows: Known = {}
        self.configure(Config(), {}, 0.0)

    def configure(self, config: Config, hops: Mapping[bytes, NextHop], now: float) -> None:
        """Take a desired state, and the way to each packed backend; the flows are kept.

        A backend whose way is missing cannot be reached. now: seconds since the epoch, for the lists' deadlines.
        """
        self._settings = config.settings
        self._rules, self._balancer = Rules(config, now), Balancer(config, self.flows)
        self._hops = hops

    def run(self, frame: bytes) -> Answer:
        """What becomes of a frame. What is passed or dropped is left as it came."""
        packet = read(frame, self._mac)
        if isinstance(packet, str):
            return Answer(packet, None, frame)
        if self._rules.blocks(packet.source):
            return Answer("DROP_BLOCKLIST", None, frame)
        if packet.fragment:
            vip = self._balancer.is_vip(packet.destination)
            return Answer("DROP_FRAGMENT" if vip else "PASS_FRAGMENT", None, frame)
        if packet.protocol not in (TCP, UDP):
            return Answer("PASS_PROTOCOL", None, frame)
        service = self._balancer.service(packet)
        if service is None:
            return Answer("PASS_NO_SERVICE", None, frame)
        backend = self._balancer.choose(service, packet)
        if backend is None:
            return Answer("DROP_NO_BACKEND", None, frame)
        verdict, out = self._forward(frame, packet, service.mode, backend)
        return Answer(verdict, backend.address, out)

    def _forward(self, frame: bytes, packet: Packet, mode: Mode, backend: Backend) -> tuple[str, bytes]:
        address = backend.address.packed
        hop = self._hops.get(address)
        # By a router's MAC a packet that still says the VIP would come straight back.
        if hop is None or hop.mac is None or (mode is Mode.L2 and hop.gateway):
            return "DROP_NO_NEXT_HOP", frame
        how = "TX" if hop.ifindex == self._ifindex else "REDIRECT"
        if mode is Mode.L2:
            return f"{how}_L2", send.rewrite(frame, hop)
        if hop.mtu and packet.length + send.outer_size(address) > hop.mtu:
            return "DROP_TOO_BIG", frame
        return f"{how}_IPIP", send.encapsulate(frame, packet, address, hop, self._settings)
