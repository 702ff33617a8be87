"""Facts about interfaces for the doctor: offloads, queues, VLANs on top, sysctls; of this thread's namespace."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lb.dataplane import rtnetlink
from lb.dataplane.hook import describe_program
from lb.dataplane.rtnetlink import Link
from lb.doctor.facts import CardFacts, InterfaceFacts

_SYSCTLS = Path("/proc/sys/net/ipv4/conf")
_GLOBAL_SCOPE = 0
_SIOCETHTOOL = 0x8946
_ETHTOOL_DRIVER = 0x3
_DRIVER_INFORMATION_BYTES = 196
_PUT_ON_ONE = {"vlan", "macvlan", "ipvlan"}
_HAVE_PORTS = {"bond", "team", "bridge"}


@dataclass(frozen=True, slots=True)
class Served:
    """How an interface is served: the mode that was asked for, and the id of our program; None: none is in force."""

    asked_mode: str
    program_id: int | None


def interfaces_as_they_are(
    served: Mapping[str, Served], others: Iterable[str], packets_by_cpu: tuple[int, ...] = ()
) -> tuple[InterfaceFacts, ...]:
    """The interfaces served, and of the others those that are there. OSError if the kernel does not say."""
    links = rtnetlink.links()
    names = [*served, *sorted(set(others) - served.keys() & links.keys())]
    with IPRoute() as route, _ethtool() as tool:
        layers, addresses = _layers(route), _addresses(route)
        found = [
            replace(
                _interface(tool, links[name], served.get(name)),
                kind=layers[links[name].index].kind,
                cards=tuple(_card(tool, card) for card in cards_of(links[name].index, layers)),
                vlans=tuple(vlans_on(links[name].index, layers)),
            )
            if name in links and links[name].index in layers
            else InterfaceFacts(name, there=False)
            for name in names
        ]
    return tuple(
        replace(
            one,
            addresses=tuple(addresses.get(links[one.name].index, [])),
            packets_by_cpu=packets_by_cpu if one.served else (),
        )
        if one.there
        else one
        for one in found
    )


def _interface(tool: Any, link: Link, served: Served | None) -> InterfaceFacts:
    """All but what stands on it, its addresses and counts."""
    name = link.name
    ours = served is not None and served.program_id is not None and link.xdp_program_id == served.program_id
    foreign = None if ours or link.xdp_program_id is None else describe_program(link.xdp_program_id)
    queues, most = _queues(tool, name)
    return InterfaceFacts(
        name,
        up=link.up,
        mtu=link.mtu,
        served=served is not None,
        attached=ours,
        asked_mode=served.asked_mode if served else "auto",
        xdp_mode=link.xdp_mode,
        foreign_program=foreign,
        driver=_driver(name),
        rp_filter=_sysctl(name, "rp_filter"),
        accept_local=None if (accepts := _sysctl(name, "accept_local")) is None else bool(accepts),
        rx_queues=queues,
        rx_queues_most=most,
        cpus=os.cpu_count() or 1,
    )


def addresses_of(interface: str) -> list[str]:
    """The addresses of an interface that others can send to: ADDRESS/LENGTH."""
    with IPRoute() as route:
        found = route.link_lookup(ifname=interface)
        return _addresses(route).get(found[0], []) if found else []


@contextlib.contextmanager
def _ethtool() -> Iterator[Any]:
    from pyroute2.ethtool import Ethtool  # half a second to import

    tool = Ethtool()
    try:
        yield tool
    finally:
        tool.close()


def _features(tool: Any, name: str) -> dict[str, bool]:
    with contextlib.suppress(NetlinkError, OSError):
        return {key: bool(one.enable) for key, one in tool.get_features(name).features.items()}
    return {}


def _card(tool: Any, name: str) -> CardFacts:
    features = _features(tool, name)
    return CardFacts(
        name,
        lro=features.get("rx-lro"),
        hardware_gro=features.get("rx-gro-hw"),
        gro=features.get("rx-gro"),
        rxvlan=features.get("rx-vlan-hw-parse"),
    )


def _queues(tool: Any, name: str) -> tuple[int | None, int | None]:
    """Receive queues now, and at most."""
    with contextlib.suppress(Exception):  # a driver without channels is told in several ways
        found = tool.get_channels(name)
        now = (found.combined_count or 0) + (found.rx_count or 0)
        return now, (found.max_combined or 0) + (found.max_rx or 0)
    return None, None


def _driver(name: str) -> str | None:
    """As `ethtool -i` says."""
    information = ctypes.create_string_buffer(_DRIVER_INFORMATION_BYTES)
    struct.pack_into("I", information, 0, _ETHTOOL_DRIVER)
    request = struct.pack("16sP16x", os.fsencode(name), ctypes.addressof(information))
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCETHTOOL, request)
        return information.raw[4:36].rstrip(b"\0").decode() or None
    return None


def _sysctl(name: str, which: str) -> int | None:
    """The larger of that of "all" and the interface's own, which counts."""
    with contextlib.suppress(OSError, ValueError):
        return max(int((_SYSCTLS / one / which).read_text()) for one in ("all", name))
    return None


@dataclass(frozen=True, slots=True)
class Layer:
    """Where a device stands. below: the index of the one that it is put on; master: of the one that it is a port of."""

    name: str
    kind: str | None = None
    below: int | None = None
    master: int | None = None


def _layers(route: IPRoute) -> dict[int, Layer]:
    """All devices of this namespace, by index."""
    found = {}
    for message in route.get_links():
        info = message.get_attr("IFLA_LINKINFO")
        # An index may be another namespace's.
        is_ours = message.get_attr("IFLA_LINK_NETNSID") is None
        found[message["index"]] = Layer(
            message.get_attr("IFLA_IFNAME"),
            info.get_attr("IFLA_INFO_KIND") if info is not None else None,
            message.get_attr("IFLA_LINK") if is_ours else None,
            message.get_attr("IFLA_MASTER"),
        )
    return found


def cards_of(index: int, layers: Mapping[int, Layer]) -> list[str]:
    """The devices by which what comes in by one has come into this machine: itself, unless it stands on others."""
    layer = layers.get(index)
    if layer is None:
        return []
    if layer.kind in _PUT_ON_ONE and layer.below is not None:
        return cards_of(layer.below, layers)
    if layer.kind in _HAVE_PORTS:
        ports = [port for port, one in layers.items() if one.master == index]
        return [card for port in ports for card in cards_of(port, layers)]
    return [layer.name]


def vlans_on(index: int, layers: Mapping[int, Layer]) -> list[str]:
    """The VLAN devices that are put on one."""
    return sorted(one.name for one in layers.values() if one.kind == "vlan" and one.below == index)


def _addresses(route: IPRoute) -> dict[int, list[str]]:
    """Addresses that others can send to, by the interface's index: ADDRESS/LENGTH."""
    found: dict[int, list[str]] = {}
    for message in route.get_addr():
        if message["scope"] == _GLOBAL_SCOPE:
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.setdefault(message["index"], []).append(f"{address}/{message['prefixlen']}")
    return found
