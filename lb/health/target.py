"""One backend of one service as checks see it: where a probe goes, and what it sends."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network

from lb.model import AdminState, Service
from lb.model.address import AnyAddress
from lb.model.health import HealthCheck

Key = tuple[str, bytes]
"""A service's name and a backend's packed address."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked. vip: the address that clients use; of a VIP that is a prefix, its first."""

    service: str
    backend: AnyAddress
    vip: AnyAddress
    port: int
    check: HealthCheck
    mode: str

    @property
    def key(self) -> Key:
        """What it is remembered by."""
        return self.service, self.backend.packed

    @property
    def is_direct(self) -> bool:
        """Whether it goes to the backend's own address."""
        return self.check.is_direct(self.mode)

    @property
    def address(self) -> AnyAddress:
        """Whom a probe connects to."""
        return self.backend if self.is_direct else self.vip


def targets(services: Iterable[Service]) -> Iterator[Target]:
    """All that is to be checked: what is disabled is left alone."""
    for service in services:
        check = service.health_check
        if check is None:
            continue
        vip = service.vip[1] if isinstance(service.vip, IPv6Network) else service.vip
        for backend in service.backends:
            if backend.admin_state is not AdminState.DISABLED:
                port = check.port or backend.port or service.port.low
                yield Target(service.name, backend.address, vip, port, check, str(service.mode))
