"""The way to a backend, from the kernel's route and neighbour tables by netlink, kept fresh by its events.

Routes are read from the main table and matched here, longest prefix and then lowest metric first; policy routing is not
followed. A neighbour that is not known is asked for by the kernel itself (NTF_USE), so that ARP and NDP stay its business.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

from lb.dataplane.protocol import NextHop

log = logging.getLogger("sluice.neighbours")

_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable, stale, delay, probe, noarp, permanent
_NTF_USE = 0x01
_NUD_NONE = 0x00
_MAIN_TABLE = 254
_EVENTS = {
    "RTM_NEWNEIGH",
    "RTM_DELNEIGH",
    "RTM_NEWROUTE",
    "RTM_DELROUTE",
    "RTM_NEWLINK",
    "RTM_DELLINK",
    "RTM_NEWADDR",
    "RTM_DELADDR",
}
_XDP_MODES = {"xdp": "native", "xdpgeneric": "generic", "xdpoffload": "offloaded", "xdpmulti": "several"}
SETTLE_SECONDS = 0.05
"""Events come in bursts: the callback waits until they pause for so long."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. mac is empty where it has none."""

    index: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    xdp_program_id: int | None
    xdp_mode: str


@dataclass(frozen=True, slots=True)
class _Route:
    network: int
    length: int
    metric: int
    oif: int
    gateway: bytes | None


def _packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def read_links(ip: Any) -> dict[str, Link]:
    """All interfaces by name."""
    links = {}
    for message in ip.get_links():
        xdp = message.get_attr("IFLA_XDP")
        mode, program = None, None
        if xdp is not None:
            mode, program = xdp.get_attr("IFLA_XDP_ATTACHED"), xdp.get_attr("IFLA_XDP_PROG_ID")
        mac = message.get_attr("IFLA_ADDRESS") or ""
        name = message.get_attr("IFLA_IFNAME")
        links[name] = Link(
            index=message["index"],
            name=name,
            mac=bytes.fromhex(mac.replace(":", "")) if len(mac) == 17 else b"",
            mtu=message.get_attr("IFLA_MTU") or 0,
            up=bool(message["flags"] & 1),
            xdp_program_id=program,
            xdp_mode=_XDP_MODES.get(mode, "none"),
        )
    return links


class Neighbours:
    """Answers next-hop questions, and calls back when the answers may have changed."""

    def __init__(self) -> None:
        self._ip = IPRoute()
        self._lock = threading.Lock()
        self._changed: list[Callable[[], None]] = []
        self._events: Any = None
        self._thread: threading.Thread | None = None

    def links(self) -> dict[str, Link]:
        """All interfaces by name."""
        with self._lock:
            return read_links(self._ip)

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """The way to each packed address that has a route; asks the kernel to resolve what is unknown."""
        wanted = list(addresses)
        if not wanted:
            return {}
        with self._lock:
            links = {link.index: link for link in read_links(self._ip).values()}
            found: dict[bytes, NextHop] = {}
            for size, family in ((4, socket.AF_INET), (16, socket.AF_INET6)):
                some = [a for a in wanted if len(a) == size]
                if some:
                    found.update(self._of_family(some, family, links))
        return found

    def _of_family(self, addresses: list[bytes], family: int, links: Mapping[int, Link]) -> dict[bytes, NextHop]:
        routes = self._routes(family)
        macs = {
            (m["ifindex"], _packed(m.get_attr("NDA_DST"))): bytes.fromhex(m.get_attr("NDA_LLADDR").replace(":", ""))
            for m in self._ip.get_neighbours(family=family)
            if m["state"] & _NUD_USABLE and m.get_attr("NDA_LLADDR") and m.get_attr("NDA_DST")
        }
        found = {}
        for address in addresses:
            route = _lookup(routes, address)
            link = links.get(route.oif) if route else None
            if route is None or link is None or len(link.mac) != 6 or not link.up:
                continue
            target = route.gateway or address
            mac = macs.get((link.index, target))
            if mac is None:
                self._ask(family, link.index, target)
            found[address] = NextHop(link.name, link.index, link.mac, mac, link.mtu, route.gateway is not None)
        return found

    def _routes(self, family: int) -> dict[int, dict[int, _Route]]:
        """By prefix length and network: the route of lowest metric."""
        width = 32 if family == socket.AF_INET else 128
        routes: dict[int, dict[int, _Route]] = {}
        for message in self._ip.get_routes(family=family, table=_MAIN_TABLE):
            oif, gateway = message.get_attr("RTA_OIF"), message.get_attr("RTA_GATEWAY")
            several = message.get_attr("RTA_MULTIPATH")
            if several:
                oif, gateway = several[0]["oif"], several[0].get_attr("RTA_GATEWAY")
            if oif is None or message["type"] != 1:  # unicast only
                continue
            length = message["dst_len"]
            destination = message.get_attr("RTA_DST")
            network = int.from_bytes(_packed(destination), "big") >> (width - length) if destination else 0
            route = _Route(
                network, length, message.get_attr("RTA_PRIORITY") or 0, oif, _packed(gateway) if gateway else None
            )
            old = routes.setdefault(length, {}).get(network)
            if old is None or route.metric < old.metric:
                routes[length][network] = route
        return dict(sorted(routes.items(), reverse=True))

    def _ask(self, family: int, ifindex: int, address: bytes) -> None:
        try:
            self._ip.neigh(
                "replace",
                family=family,
                ifindex=ifindex,
                dst=socket.inet_ntop(family, address),
                flags=_NTF_USE,
                state=_NUD_NONE,
            )
        except Exception as error:  # pyroute2 raises its own kinds; the address stays unresolved, and is asked for again
            log.debug("could not ask for %s: %s", socket.inet_ntop(family, address), error)

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back, from a thread of its own, after links, routes or neighbours have changed."""
        self._changed.append(changed)
        if self._thread is None:
            self._events = IPRoute()
            self._events.bind()
            self._thread = threading.Thread(target=self._follow, name="netlink", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        timer: threading.Timer | None = None
        while True:
            try:
                messages = list(self._events.get())
            except Exception as error:
                # An overrun (ENOBUFS) loses events: what may have changed is everything. A closed socket ends the thread.
                if self._events is None or isinstance(error, ValueError) or getattr(error, "errno", 0) == 9:
                    return
                messages = [{"event": "RTM_NEWLINK"}]
            if not any(m.get("event") in _EVENTS for m in messages):
                continue
            if timer is None or not timer.is_alive():
                timer = threading.Timer(SETTLE_SECONDS, self._call)
                timer.daemon = True
                timer.start()

    def _call(self) -> None:
        for changed in self._changed:
            changed()

    def close(self) -> None:
        """End the sockets."""
        events, self._events = self._events, None
        if events is not None:
            events.close()
        self._ip.close()


def _lookup(routes: Mapping[int, Mapping[int, _Route]], address: bytes) -> _Route | None:
    number, width = int.from_bytes(address, "big"), len(address) * 8
    for length, networks in routes.items():
        route = networks.get(number >> (width - length))
        if route is not None:
            return route
    return None
