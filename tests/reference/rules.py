"""Which rules match a packet, and in what order they are asked: each field of each rule, one after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from lb.model import Service
from tests.reference.packet import TCP, Packet
from tests.reference.services import NUMBERS

Document = Mapping[str, Any]
Test = Callable[[Packet], bool]

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}


class Rule:
    """One rule. limit: its document, None if it has none."""

    def __init__(self, document: Document, services: Mapping[str, Service]) -> None:
        self.name: str = document["name"]
        self.action: str = document["action"]
        self.count_only: bool = document.get("count_only", False)
        self.priority: int = document.get("priority", 1000)
        self.limit: Document | None = document.get("limit")
        self._tests = tuple(_tests(document, services))

    def matches(self, packet: Packet) -> bool:
        """Whether a packet is as every field says that the rule names."""
        return all(test(packet) for test in self._tests)


class Rules:
    """All rules of a desired state, in their order."""

    def __init__(self, documents: Iterable[Document], services: Mapping[str, Service]) -> None:
        rules = [Rule(document, services) for document in documents]
        self._rules = sorted(rules, key=lambda rule: (_kind(rule), rule.priority, rule.name))

    def matching(self, packet: Packet) -> Iterator[Rule]:
        """Those that match, the first to be asked first."""
        return (rule for rule in self._rules if rule.matches(packet))

    def allowing(self, packet: Packet) -> Rule | None:
        """The first that matches, if that one allows."""
        first = next(self.matching(packet), None)
        return first if first is not None and first.action == "allow" else None


def _kind(rule: Rule) -> int:
    """Rules that allow, then those that drop, then those that let a packet go on."""
    if rule.action == "allow":
        return 0
    return 1 if rule.action == "drop" and not rule.count_only else 2


def _tests(document: Document, services: Mapping[str, Service]) -> Iterator[Test]:
    """A question for each field that is named."""
    if (protocol := document.get("protocol")) is not None:
        number = PROTOCOLS.get(protocol, protocol)
        yield lambda packet: packet.protocol == number
    if source := document.get("source"):
        held = _holds(source)
        yield lambda packet: held(packet.source)
    if destination := document.get("destination"):
        at = _holds(destination)
        yield lambda packet: at(packet.destination)
    if name := document.get("service"):
        yield _to(services[name])
    if source_ports := document.get("source_ports"):
        sent_from = _within(source_ports)
        yield lambda packet: packet.has_ports and sent_from(packet.source_port)
    if ports := document.get("ports"):
        sent_to = _within(ports)
        yield lambda packet: packet.has_ports and sent_to(packet.port)
    if tcp_flags := document.get("tcp_flags"):
        wanted = [name.strip() for name in tcp_flags.split(",")]
        ones = sum(FLAGS[name] for name in wanted if not name.startswith("!"))
        zeros = sum(FLAGS[name[1:]] for name in wanted if name.startswith("!"))
        yield (
            lambda packet: (
                packet.protocol == TCP and not packet.later and packet.flags & (ones | zeros) == ones
            )
        )
    if length := document.get("length"):
        long = _within(length)
        yield lambda packet: long(packet.length)
    if (fragments := document.get("fragments")) in ("only", "none"):
        yield lambda packet: packet.fragment == (fragments == "only")


def _to(service: Service) -> Test:
    """What a service's name stands for: its VIP, port and protocol."""
    at, protocol, ports = (
        _holds(str(service.vip)),
        NUMBERS[service.vip.version, service.protocol],
        service.port,
    )

    def test(packet: Packet) -> bool:
        if packet.protocol != protocol or not at(packet.destination):
            return False
        return ports.is_any or (packet.has_ports and ports.low <= packet.port <= ports.high)

    return test


def _holds(prefix: str) -> Callable[[bytes], bool]:
    """Whether a packed address lies in a prefix, or is the address."""
    network = ip_network(prefix, strict=False)
    size, low = network.max_prefixlen // 8, int(network.network_address)
    high = low + network.num_addresses - 1
    return lambda address: len(address) == size and low <= int.from_bytes(address, "big") <= high


def _within(ranges: str) -> Callable[[int], bool]:
    """Whether a number is in one of these: "53", "1024-65535", "80,443,8000-8080"."""
    pairs = [part.partition("-") for part in str(ranges).split(",")]
    bounds = [(int(low), int(high or low)) for low, _, high in pairs]
    return lambda number: any(low <= number <= high for low, high in bounds)
