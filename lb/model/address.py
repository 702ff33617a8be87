"""Addresses that packets can be sent to, and the VIP: an address, or an IPv6 prefix of them."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from lb.model.prefix import Prefix

VIP_SHORTEST, VIP_LONGEST = 64, 120
"""Lengths of a prefix that is a VIP: from a whole subnet to what is no more than a few addresses."""

_NO_CLIENTS = tuple(IPv6Network(text) for text in ("::/127", "::ffff:0:0/96", "ff00::/8"))
"""Unspecified and loopback, IPv4-mapped, multicast: nothing in there is the destination of a client's packet."""


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
    hint = ""
    if "/" in value:
        hint = "; leave the prefix length out"
    elif value.startswith("[") or (value.count(":") == 1 and "." in value):
        hint = "; leave the port out, which is a field of its own"
    raise ValueError(f'"{value}" is not an IPv4 or IPv6 address{hint}')


def _unicast(value: object) -> IPv4Address | IPv6Address:
    return _unicast_text(value) if isinstance(value, str) else checked_unicast(value)


@lru_cache(maxsize=1 << 15)
def _unicast_text(text: str) -> IPv4Address | IPv6Address:
    """One object an address: the same few thousand are read in many services, and again at every change of one."""
    return checked_unicast(text)


def checked_unicast(value: object) -> IPv4Address | IPv6Address:
    """The address, if packets can be sent to it; ValueError."""
    address = _address(value)
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError(f"{address} is not an address that packets can be sent to: use a unicast address")
    if isinstance(address, IPv4Address) and (address.packed[0] == 0 or address.packed[0] >= 240):
        raise ValueError(f"{address} is in a reserved range: use a unicast address")
    return address


def _vip(value: object) -> IPv4Address | IPv6Address | IPv6Network:
    if isinstance(value, IPv6Network):
        value = str(value)
    if not isinstance(value, str) or "/" not in value or ":" not in value:
        return _unicast(value)
    prefix = Prefix.parse(value)
    if prefix.length == 128:
        return _unicast(IPv6Address(prefix.network))
    if not VIP_SHORTEST <= prefix.length <= VIP_LONGEST:
        raise ValueError(
            f"{prefix} is not a VIP: a VIP is an address, or an IPv6 prefix of length "
            f"{VIP_SHORTEST} to {VIP_LONGEST}"
        )
    network = IPv6Network((prefix.network, prefix.length))
    if any(network.overlaps(other) for other in _NO_CLIENTS):
        raise ValueError(f"{prefix} holds addresses that no packet can be sent to: use a unicast prefix")
    return network


AnyAddress = IPv4Address | IPv6Address
AnyVip = IPv4Address | IPv6Address | IPv6Network

Address = Annotated[
    AnyAddress,
    BeforeValidator(_unicast, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]
Vip = Annotated[
    AnyVip,
    BeforeValidator(_vip, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]
