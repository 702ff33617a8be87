"""Services and their backends, as the operator writes them."""

import re
from collections.abc import Iterator
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from lb.model.fields import OneLine, faults

PORT_MAX = 65535
WEIGHT_MAX = 65535
BACKENDS_MAX = 4096
"""Backends of one service: a ring of 65537 slots still gives each at least sixteen."""

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
LABEL_PATTERN = "[A-Za-z0-9][A-Za-z0-9._/-]{0,62}"


class Protocol(StrEnum):
    """The transport that a service balances."""

    TCP = "tcp"
    UDP = "udp"


class Mode(StrEnum):
    """How a packet is carried to its backend."""

    L2 = "l2"
    IPIP = "ipip"


class Affinity(StrEnum):
    """What the ring hashes: the flow's five-tuple, or the source address alone."""

    FLOW = "flow"
    SOURCE = "source"


class AdminState(StrEnum):
    """What the operator wants of a backend.

    enabled takes new flows; draining keeps the flows it has and takes no new ones; disabled takes nothing.
    """

    ENABLED = "enabled"
    DRAINING = "draining"
    DISABLED = "disabled"


class Port(BaseModel):
    """A port, a closed range of ports, or any: low and high are host-order numbers, any is 0 to 65535."""

    model_config = ConfigDict(frozen=True)

    low: int
    high: int

    @property
    def is_any(self) -> bool:
        """Whether the service takes every port."""
        return self.low == 0

    def __str__(self) -> str:
        """The form the API and the CLI use: "any", "80" or "8000-8010"."""
        if self.is_any:
            return "any"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    @classmethod
    def parse(cls, value: object) -> "Port":
        """Read 80, "80", "8000-8010" or "any"; ValueError says what is wrong."""
        if isinstance(value, Port):
            return value
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError('a port is a number, a range such as "8000-8010", or "any"')
        text = str(value).strip()
        if text == "any":
            return cls(low=0, high=PORT_MAX)
        match = re.fullmatch(r"(-?[0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        if not match:
            raise ValueError(f'"{text}" is no port: write a number, a range such as "8000-8010", or "any"')
        low, high = int(match[1]), int(match[2] or match[1])
        for port in (low, high):
            if not 1 <= port <= PORT_MAX:
                raise ValueError(f"port {port} is out of range: 1 to {PORT_MAX}")
        if low > high:
            raise ValueError(f"the range {text} is backwards: write {high}-{low}")
        return cls(low=low, high=high)

    def to_json(self) -> int | str:
        """A number where it is one port, else the text form."""
        return self.low if self.low == self.high else str(self)


def _address(value: object) -> IPv4Address | IPv6Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str):
        raise ValueError("an address is a string such as 192.0.2.1 or 2001:db8::1")
    for kind in (IPv4Address, IPv6Address):
        try:
            address = kind(value)
        except ValueError:
            continue
        if isinstance(address, IPv6Address) and address.scope_id:
            raise ValueError(f"{value} has a zone; write the address without %{address.scope_id}")
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            raise ValueError(f"{value} is an IPv4-mapped address; write {address.ipv4_mapped}")
        return address
    hint = "; leave the prefix length out" if "/" in value else ""
    raise ValueError(f'"{value}" is no IPv4 or IPv6 address{hint}')


def _unicast(value: object) -> IPv4Address | IPv6Address:
    address = _address(value)
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError(f"{address} is not an address that packets can be sent to: use a unicast address")
    if isinstance(address, IPv4Address) and (address.packed[0] == 0 or address.packed[0] >= 240):
        raise ValueError(f"{address} is in a reserved range: use a unicast address")
    return address


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


Address = Annotated[
    IPv4Address | IPv6Address,
    BeforeValidator(_unicast, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]
Name = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})
]
LabelKey = Annotated[
    str, AfterValidator(_label), WithJsonSchema({"type": "string", "pattern": f"^{LABEL_PATTERN}$"})
]
LabelValue = Annotated[OneLine, Field(max_length=256)]
PortField = Annotated[
    Port,
    BeforeValidator(Port.parse, json_schema_input_type=int | str),
    PlainSerializer(Port.to_json, return_type=int | str),
]


class Backend(BaseModel):
    """One server behind a service. weight is relative, 0 takes no new flows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = Field(description="IPv4 or IPv6 unicast address", examples=["10.0.0.11"])
    weight: int = Field(
        1, ge=0, le=WEIGHT_MAX, strict=True, description="share of new flows, relative; 0 takes none"
    )
    admin_state: AdminState = Field(AdminState.ENABLED, description="what the operator wants of this backend")

    @property
    def ring_weight(self) -> int:
        """The weight the ring sees: a backend that takes no new flows has none."""
        return self.weight if self.admin_state is AdminState.ENABLED else 0


class Service(BaseModel):
    """A VIP, port and protocol, and the backends that answer for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="unique name", examples=["web"])
    vip: Address = Field(description="the address clients connect to", examples=["192.0.2.10"])
    port: PortField = Field(description='a port, a range "8000-8010", or "any"', examples=[80])
    protocol: Protocol
    mode: Mode = Field(Mode.IPIP, description="how packets reach the backend")
    affinity: Affinity = Field(Affinity.FLOW, description="what keeps a client on one backend")
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="free key and value pairs"
    )
    health_check: None = Field(None, description="none in this version: every backend counts as healthy")
    backends: tuple[Backend, ...] = Field((), max_length=BACKENDS_MAX)

    @model_validator(mode="after")
    def _check_backends(self) -> "Service":
        faults(self._backend_faults())
        return self

    def _backend_faults(self) -> Iterator[tuple[tuple[int | str, ...], str]]:
        seen: set[IPv4Address | IPv6Address] = set()
        for index, backend in enumerate(self.backends):
            address = backend.address
            where = ("backends", index, "address")
            if address in seen:
                yield where, f"backend {address} is listed twice: give each address once"
            if address == self.vip:
                yield where, f"backend {address} is the VIP itself: packets would loop; use its own address"
            if self.mode is Mode.L2 and address.version != self.vip.version:
                yield (
                    where,
                    f"backend {address} is IPv{address.version} and the VIP IPv{self.vip.version}: l2 "
                    "forwards the packet unchanged, so use mode ipip or a backend of the same family",
                )
            seen.add(address)

    def backend(self, address: IPv4Address | IPv6Address) -> Backend | None:
        """The backend with that address, or None."""
        return next((b for b in self.backends if b.address == address), None)
