"""Which service takes the packets to an address and port."""

from ipaddress import ip_address, ip_network

from lb.model import Config, Service
from tests.reference.packet import TCP, UDP

NUMBERS = {
    (4, "tcp"): TCP,
    (6, "tcp"): TCP,
    (4, "udp"): UDP,
    (6, "udp"): UDP,
    (4, "icmp"): 1,
    (6, "icmp"): 58,
}
"""By IP version and protocol."""
Ports = dict[tuple[int, int | None], Service]
"""By protocol and port, None for any port."""


class Services:
    """The services of one desired state, by VIP. An address is a prefix that holds itself alone."""

    def __init__(self, config: Config) -> None:
        vips: dict[str, Ports] = {}
        for service in config.services.values():
            ports = vips.setdefault(str(service.vip), {})
            protocol = NUMBERS[service.vip.version, service.protocol]
            if service.port.is_any:
                ports[protocol, None] = service
                continue
            for port in range(service.port.low, service.port.high + 1):
                ports[protocol, port] = service
        networks = [(ip_network(vip), ports) for vip, ports in vips.items()]
        self._networks = sorted(networks, key=lambda item: item[0].prefixlen, reverse=True)
        self._seen: dict[bytes, list[Ports]] = {}

    def is_vip(self, address: bytes) -> bool:
        """Whether an address is some service's, or in the prefix of one."""
        return bool(self._vips(address))

    def find(self, address: bytes, port: int, protocol: int) -> Service | None:
        """The longest VIP around the address decides that has a service for the port, or else for any port."""
        for ports in self._vips(address):
            service = ports.get((protocol, port)) or ports.get((protocol, None))
            if service is not None:
                return service
        return None

    def _vips(self, address: bytes) -> list[Ports]:
        """What is served at each VIP that holds an address, the longest first; what was asked before is kept."""
        if address not in self._seen:
            number = ip_address(address)
            self._seen[address] = [ports for network, ports in self._networks if number in network]
        return self._seen[address]
