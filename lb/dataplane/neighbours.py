"""The next hop of a backend, from the kernel's route and neighbour tables by netlink, kept fresh by its events.

Routes are read from the main table and matched here, longest prefix and then lowest metric first; policy
routing is not followed. A neighbour that is not known, or has gone stale, is asked for by the kernel itself
(NTF_USE), so that ARP and NDP stay its business; XDP sends behind its back, and it would never ask again alone.
"""

import contextlib
import errno
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pyroute2 import IPRoute

from lb.dataplane import rtnetlink
from lb.dataplane.protocol import NextHop
from lb.dataplane.rtnetlink import Link
from lb.dataplane.settle import Settle

log = logging.getLogger("sluice.neighbours")

_NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # reachable, stale, delay, probe, noarp, permanent
_MAIN_TABLE = 254
_NUD_STALE = 0x04
_NUD_FAILED = 0x20
# RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, as the bits that bind() takes.
_GROUPS = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10
_SO_RCVBUFFORCE = 33
RECEIVE_BYTES = 1 << 22
"""Socket buffer for unread events: if it overflows, some are lost and everything is read again."""
ASK_SECONDS = 1.0
ASK_SHARE = 5
ASKED_AT_ONCE = 256
"""Each time, a fifth of those that do not answer are resolved again, at most this many: the kernel keeps a thousand."""


@dataclass(frozen=True, slots=True)
class _Route:
    network: int
    length: int
    metric: int
    oif: int
    gateway: bytes | None


def _packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


class Neighbours:
    """Answers next-hop questions, and calls back when the answers may have changed."""

    def __init__(self) -> None:
        self._ip = IPRoute()
        self._lock = threading.Lock()
        self._changed: list[Callable[[], None]] = []
        self._is_amiss: Callable[[], bool] = lambda: False
        self._events: socket.socket | None = None
        self._settle: Settle | None = None
        self._known: dict[tuple[int, bytes], bytes] = {}
        self._last: dict[bytes, bytes] = {}
        """Last known MACs by address, from an interface that is gone or from an earlier run."""
        self._missing: dict[tuple[int, bytes], None] = {}
        """Targets, by interface and address, without an answer so far; those asked longest ago first."""
        self._ask_again_at = 0.0

    def links(self) -> dict[str, Link]:
        """All interfaces by name. OSError if the kernel does not say."""
        return rtnetlink.links()

    def remember(self, macs: Mapping[bytes, bytes]) -> None:
        """Set previously valid MACs by packed address: they are used until resolved again."""
        with self._lock:
            self._last.update(macs)

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """The next hop of each packed address that has a route; asks the kernel to resolve unknown ones."""
        wanted = list(addresses)
        if not wanted:
            return {}
        with self._lock:
            links = {link.index: link for link in rtnetlink.links().values()}
            found: dict[bytes, NextHop] = {}
            for size, family in ((4, socket.AF_INET), (16, socket.AF_INET6)):
                some = [a for a in wanted if len(a) == size]
                if some:
                    found.update(self._of_family(some, family, links))
        return found

    def _of_family(
        self, addresses: list[bytes], family: int, links: Mapping[int, Link]
    ) -> dict[bytes, NextHop]:
        routes = self._routes(family)
        states = self._read_neighbours(family)
        found = {}
        to_ask: list[tuple[int, bytes]] = []
        for address in addresses:
            route = _lookup(routes, address)
            link = links.get(route.oif) if route else None
            if route is None or link is None or len(link.mac) != 6 or not link.up:
                continue
            target = route.gateway or address
            key = link.index, target
            if key not in self._known and (
                last := self._last.pop(target, None) or self._last.pop(address, None)
            ):
                self._known[key] = last
            mac = self._known.get(key)
            if mac is None and key not in self._missing:
                self._missing[key] = None
                to_ask.append(key)
            elif mac is not None and states.get(key, _NUD_STALE) & _NUD_STALE:
                to_ask.append(key)
            found[address] = NextHop(
                link.name, link.index, link.mac, mac, link.mtu, route.gateway is not None, route.gateway
            )
        _ask(to_ask[:ASKED_AT_ONCE])
        return found

    def _read_neighbours(self, family: int) -> dict[tuple[int, bytes], int]:
        """States by interface and address. A MAC stays known while the kernel has forgotten it and asks again."""
        states = {}
        for one in rtnetlink.neighbours(family):
            key = one.ifindex, one.address
            states[key] = one.state
            if one.state & _NUD_USABLE and len(one.mac) == 6:
                self._known[key] = one.mac
                self._missing.pop(key, None)
            elif one.state & _NUD_FAILED:
                self._known.pop(key, None)
        return states

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
                network,
                length,
                message.get_attr("RTA_PRIORITY") or 0,
                oif,
                _packed(gateway) if gateway else None,
            )
            old = routes.setdefault(length, {}).get(network)
            if old is None or route.metric < old.metric:
                routes[length][network] = route
        return dict(sorted(routes.items(), reverse=True))

    def watch(self, changed: Callable[[], None], is_amiss: Callable[[], bool] = lambda: False) -> None:
        """Call back, from a thread of its own, after links, addresses, routes or neighbours have changed.

        is_amiss: asked each second without news whether something is to be seen to that the kernel does not tell of.
        """
        self._changed.append(changed)
        self._is_amiss = is_amiss
        if self._events is None:
            self._settle = Settle(self._call)
            self._events = _event_socket()
            words = self._events, self._settle
            threading.Thread(target=self._follow, args=words, name="netlink", daemon=True).start()

    def _follow(self, events: socket.socket, settle: Settle) -> None:
        """After a burst of news, read everything again. Unanswered neighbours are resolved again from here."""
        while self._events is events:
            try:
                data = events.recv(1 << 18)
                if not data:
                    return
                is_news = any([self._is_news(one) for one in rtnetlink.events(data)])  # noqa: C419  # each has effects
            except TimeoutError:
                is_news = self._is_amiss()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    if self._events is events:  # it was not closed by us
                        log.error("changes of interfaces and neighbours are not told any more: %s", error)
                    return
                is_news = True  # an overrun loses messages
            self._ask_again()
            if is_news:
                settle.tell()

    def _ask_again(self) -> None:
        if not self._missing or time.monotonic() < self._ask_again_at:
            return
        self._ask_again_at = time.monotonic() + ASK_SECONDS
        with self._lock:
            count = min(ASKED_AT_ONCE, -(-len(self._missing) // ASK_SHARE))
            some = list(itertools.islice(self._missing, count))
            for key in some:
                self._missing[key] = self._missing.pop(key)
        _ask(some)

    def _is_news(self, one: rtnetlink.Neighbour | None) -> bool:
        """Whether a message may change an answer: that a neighbour is still missed, or the same, does not."""
        if one is None:
            return True
        key = one.ifindex, one.address
        known = self._known.get(key)
        if one.state & _NUD_STALE and known:
            _ask([key])
        if one.state & _NUD_USABLE:
            return one.mac != known and (known is not None or key in self._missing)
        return bool(one.state & _NUD_FAILED) and known is not None

    def _call(self) -> None:
        for changed in self._changed:
            changed()

    def close(self) -> None:
        """End the sockets."""
        events, self._events = self._events, None
        if self._settle is not None:
            self._settle.close()
        if events is not None:
            with contextlib.suppress(OSError):
                events.shutdown(socket.SHUT_RDWR)
            events.close()
        self._ip.close()


def _event_socket() -> socket.socket:
    """The kernel's messages about links, addresses, routes and neighbours."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BYTES)
    events.bind((0, _GROUPS))
    events.settimeout(ASK_SECONDS)
    return events


def _ask(targets: list[tuple[int, bytes]]) -> None:
    """If the kernel cannot be asked they stay unresolved; this is retried."""
    if not targets:
        return
    try:
        rtnetlink.ask(targets)
    except OSError as error:
        log.debug("could not ask for %d neighbours: %s", len(targets), error)


def _lookup(routes: Mapping[int, Mapping[int, _Route]], address: bytes) -> _Route | None:
    number, width = int.from_bytes(address, "big"), len(address) * 8
    for length, networks in routes.items():
        route = networks.get(number >> (width - length))
        if route is not None:
            return route
    return None
