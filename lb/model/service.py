"""Services and their backends, as the operator writes them."""

import re
from collections.abc import Iterator
from enum import StrEnum
from ipaddress import IPv6Network
from itertools import chain
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    WithJsonSchema,
    model_validator,
)

from lb.model.address import Address, AnyAddress, Vip
from lb.model.fields import OneLine, Strict, faults
from lb.model.flood import FloodProtection
from lb.model.health import CheckType, HealthCheck, Via
from lb.model.port import LEFT_OUT, NO_PORT, PORT_FORMS, PORT_MAX, ServicePort

WEIGHT_MAX = 65535
QUIC_ID_MAX = 2**32 - 1
BACKENDS_MAX = 4096
"""Backends of one service: a ring of 65537 slots still gives each at least sixteen."""

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
LABEL_PATTERN = "[A-Za-z0-9][A-Za-z0-9._/-]{0,62}"


class Protocol(StrEnum):
    """What a service balances: a transport, or ICMP echo (ICMPv6 where the VIP is IPv6)."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Mode(StrEnum):
    """How a packet is carried to its backend."""

    L2 = "l2"
    IPIP = "ipip"
    GUE = "gue"
    NAT = "nat"


class NatSource(StrEnum):
    """Whom a backend of mode nat sees: an address of the pool, or the client, where the balancer is its gateway."""

    POOL = "pool"
    KEEP = "keep"


class Affinity(StrEnum):
    """What the ring hashes: the flow's five-tuple, the source address alone, or the destination port alone."""

    FLOW = "flow"
    SOURCE = "source"
    DESTINATION_PORT = "destination-port"


class AdminState(StrEnum):
    """What the operator wants of a backend.

    enabled takes new flows; draining keeps the flows it has and takes no new ones; disabled takes nothing.
    """

    ENABLED = "enabled"
    DRAINING = "draining"
    DISABLED = "disabled"


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            'a name is 1 to 63 letters, digits, "-", "_" and ".", and begins with a letter or a digit'
        )
    return text


def _label(text: str) -> str:
    if not re.fullmatch(LABEL_PATTERN, text):
        raise ValueError(
            'the key of a label is 1 to 63 letters, digits, "-", "_", "." and "/", '
            "and begins with a letter or a digit"
        )
    return text


Name = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})
]
LabelKey = Annotated[
    str, AfterValidator(_label), WithJsonSchema({"type": "string", "pattern": f"^{LABEL_PATTERN}$"})
]
LabelValue = Annotated[OneLine, Field(max_length=256)]
Fault = tuple[tuple[int | str, ...], str]
"""Where something is wrong, as a path of keys, and a sentence."""


class Backend(Strict):
    """One server behind a service. weight is relative, 0 takes no new flows."""

    address: Address = Field(description="IPv4 or IPv6 unicast address", examples=["10.0.0.11"])
    weight: int = Field(
        1, ge=0, le=WEIGHT_MAX, strict=True, description="share of new flows, relative; 0 takes none"
    )
    admin_state: AdminState = Field(AdminState.ENABLED, description="what the operator wants of this backend")
    quic_id: int | None = Field(
        None,
        ge=1,
        le=QUIC_ID_MAX,
        strict=True,
        description="the number that its server writes into QUIC connection IDs; only for services with `quic`",
        examples=[None, 7],
    )

    port: int | None = Field(
        None,
        ge=1,
        le=PORT_MAX,
        strict=True,
        description="the port it listens on, if not the service's; only in mode nat",
        examples=[None, 8080],
    )

    @property
    def ring_weight(self) -> int:
        """The weight the ring sees: a backend that takes no new flows has none."""
        return self.weight if self.admin_state is AdminState.ENABLED else 0


class Service(Strict):
    """A VIP, port and protocol, and the backends that answer for it."""

    name: Name = Field(description="unique name", examples=["web"])
    vip: Vip = Field(
        description="the address clients connect to, or an IPv6 prefix of such addresses, of length 64 to 120",
        examples=["192.0.2.10", "2001:db8:5::/64"],
    )
    port: ServicePort = Field(
        NO_PORT,
        description='a port, a range "8000-8010", or "any"; required, except for icmp, which has none',
        examples=[80],
        json_schema_extra={"default": None},
    )
    protocol: Protocol
    mode: Mode = Field(
        Mode.IPIP,
        description="how packets reach the backend: by MAC rewrite, in IP, in UDP, or with their addresses translated",
    )
    nat_source: NatSource = Field(
        NatSource.POOL,
        description="the source that backends see: an address of nat_pools, or (keep) the client; only in mode nat",
    )
    affinity: Affinity = Field(
        Affinity.FLOW, description="what keeps a client on one backend: the fields that the choice depends on"
    )
    udp_migration: bool = Field(
        False,
        strict=True,
        description="flows leave a backend that drains or has weight 0 at once; only for protocol udp",
    )
    quic: bool = Field(
        False,
        strict=True,
        description="packets go to the backend whose quic_id is in their connection ID; only for protocol udp",
    )
    flood_protection: FloodProtection | None = Field(
        None, description="protection against floods of new flows; null: none"
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="any key and value pairs"
    )
    health_check: HealthCheck | None = Field(
        None, description="how its backends are checked; null: not at all, and all count as healthy"
    )
    backends: tuple[Backend, ...] = Field((), max_length=BACKENDS_MAX)

    @model_validator(mode="before")
    @classmethod
    def _need_port(cls, document: Any) -> Any:
        """A port that is missing is told with all else that is wrong, which a default would hide."""
        if (
            isinstance(document, dict)
            and "port" not in document
            and document.get("protocol") != Protocol.ICMP
        ):
            return {**document, "port": LEFT_OUT}
        return document

    @model_validator(mode="after")
    def _check(self) -> "Service":
        found = (
            self._port_faults(),
            self._option_faults(),
            self._nat_faults(),
            self._flood_faults(),
            self._backend_faults(),
            self._quic_id_faults(),
            self._health_faults(),
        )
        faults(chain.from_iterable(found))
        return self

    def _port_faults(self) -> Iterator[Fault]:
        if self.protocol is not Protocol.ICMP:
            if self.port == NO_PORT:
                yield ("port",), PORT_FORMS
            return
        if self.port != NO_PORT:
            yield ("port",), "icmp has no ports: leave it out"
        if self.mode is not Mode.NAT:
            yield (
                ("mode",),
                f"in mode {self.mode} echo requests for a VIP are answered here, not by backends: use mode nat, "
                "or protocol tcp or udp",
            )
        if self.affinity is Affinity.DESTINATION_PORT:
            yield ("affinity",), "icmp has no ports: use flow or source"
        for index, backend in enumerate(self.backends):
            if backend.port is not None:
                yield ("backends", index, "port"), "icmp has no ports: leave it out"

    def _option_faults(self) -> Iterator[Fault]:
        if self.protocol is Protocol.UDP:
            return
        if self.udp_migration:
            name = "a TCP flow" if self.protocol is Protocol.TCP else "an ICMP flow"
            yield (
                ("udp_migration",),
                f"{name} cannot change its backend: leave it out, or use protocol udp",
            )
        if self.quic:
            yield ("quic",), "QUIC is carried by UDP: leave it out, or use protocol udp"

    def _nat_faults(self) -> Iterator[Fault]:
        keep = self.nat_source is NatSource.KEEP
        if self.mode is not Mode.NAT:
            if keep:
                yield (
                    ("nat_source",),
                    f"mode {self.mode} always keeps the source: leave it out, or use mode nat",
                )
            for index, backend in enumerate(self.backends):
                if backend.port is not None:
                    yield (
                        ("backends", index, "port"),
                        f"mode {self.mode} leaves the port as it is: leave it out, or use mode nat",
                    )
            return
        if self.quic:
            yield ("quic",), "connection ids are not read in mode nat: leave it out, or use another mode"
        for index, backend in enumerate(self.backends):
            if keep and backend.address.version != self.vip.version:
                yield (
                    ("backends", index, "address"),
                    f"backend {backend.address} is IPv{backend.address.version} and clients are IPv{self.vip.version}: "
                    "with nat_source keep both are of one family; use pool",
                )

    def _flood_faults(self) -> Iterator[Fault]:
        if self.protocol is not Protocol.TCP and self.flood_protection and self.flood_protection.test_unknown:
            yield (
                ("flood_protection", "test_unknown"),
                "only TCP retransmits what was lost: leave it out, or use protocol tcp",
            )

    def _health_faults(self) -> Iterator[Fault]:
        check = self.health_check
        if check and check.via is Via.DATA_PATH and self.mode is Mode.NAT:
            yield (
                ("health_check", "via"),
                "mode nat is checked at the backends' own addresses: leave via out, or write direct",
            )
        if (
            check
            and check.port is None
            and check.type is not CheckType.COMMAND
            and (self.port.is_any or self.port.low != self.port.high)
        ):
            which = "every port" if self.port.is_any else f"ports {self.port}"
            takes = "has no port" if self.port == NO_PORT else f"takes {which}"
            yield ("health_check", "port"), f"the service {takes}: give the port to check"

    def _backend_faults(self) -> Iterator[Fault]:
        seen: set[AnyAddress] = set()
        for index, backend in enumerate(self.backends):
            address = backend.address
            where = ("backends", index, "address")
            if address in seen:
                yield where, f"backend {address} is listed twice: give each address once"
            if address == self.vip:
                yield where, f"backend {address} is the VIP itself: packets would loop; use its own address"
            if isinstance(self.vip, IPv6Network) and address in self.vip:
                yield (
                    where,
                    f"backend {address} lies in the VIP {self.vip}: packets would loop; "
                    "use an address outside it",
                )
            if self.mode is Mode.L2 and address.version != self.vip.version:
                yield (
                    where,
                    f"backend {address} is IPv{address.version} and the VIP IPv{self.vip.version}: l2 forwards "
                    "the packet unchanged, so use mode ipip or gue, or a backend of the same family",
                )
            seen.add(address)

    def _quic_id_faults(self) -> Iterator[Fault]:
        owners: dict[int, AnyAddress] = {}
        for index, backend in enumerate(self.backends):
            if backend.quic_id is None:
                continue
            where = ("backends", index, "quic_id")
            owner = owners.setdefault(backend.quic_id, backend.address)
            if not self.quic:
                yield where, "the service has no quic: set quic to true, or leave quic_id out"
            elif owner != backend.address:
                yield where, f"backend {owner} also has the quic_id {backend.quic_id}: give each its own"

    @property
    def vip_packed(self) -> bytes:
        """The VIP's 4 or 16 bytes in network order: its address, or the network of its prefix."""
        return (self.vip.network_address if isinstance(self.vip, IPv6Network) else self.vip).packed

    @property
    def vip_length(self) -> int:
        """The length of the VIP's prefix; 0 where it is an address."""
        return self.vip.prefixlen if isinstance(self.vip, IPv6Network) else 0

    def backend(self, address: AnyAddress) -> Backend | None:
        """The backend with that address, or None."""
        return next((b for b in self.backends if b.address == address), None)
