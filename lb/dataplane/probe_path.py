"""The path of checks through the data path: marked packets go to `lo`, where xdp/probe.c sends each to its backend.

Three things of this network namespace: for each family a rule for the mark, and a route in a table of its own; and a
filter at lo's way out. `lo` is always there, needs no neighbour's answer, and is where packets for a VIP go anyway
if it is this machine's own. All of it is for marked packets alone, so it harms nobody if the daemon is killed; the
next one replaces it, and `remove` takes it away.
"""

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lb.dataplane import libbpf
from lb.dataplane.build import Build
from lb.dataplane.kept import kept_or_compiled
from lb.dataplane.layout import layout
from lb.dataplane.maps import opened
from lb.errors import CompileError, DataPlaneError, NotYetError, SluiceError
from lb.events import Events

log = logging.getLogger("sluice.probes")

TABLE = 23900
"""Of routes; nobody else's, by its number."""
PRIORITY = 100
"""Of the rules: behind that for this machine's own addresses, before all others."""
FILTER = "sluice_probe"
LOOK_SECONDS, RETRY_SECONDS = 5.0, 30.0
"""How often it is looked whether all of it is still there, and after how long it is tried again."""
_BEING_MADE = "the way of checks through the data path is being made"
_EGRESS, _INGRESS = 0xFFFFFFF3, 0xFFFFFFF2
_FILTER_PRIORITY = 23900
_ETH_P_ALL = 0x0003
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_HOST = 254
"""The scope of what is this machine's own."""

_BEING_MADE = "the way of checks through the data path is being made"

Addresses = Mapping[tuple[int, int], str]
"""Ours, by interface index and family: what answers can be sent to."""


class ProbePath:
    """Keeps it in place while it is wanted, from a thread of its own. Safe to call from several threads."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._wanted: Build | None = None
        self._was_asked = False
        """Once it was, what a killed run has left is taken away, or replaced."""
        self._addresses: Addresses = {}
        self._problem: str | None = _BEING_MADE
        self._wake = threading.Condition()
        self._stopping = self._changed = False
        self._thread: threading.Thread | None = None

    def want(self, build: Build | None) -> None:
        """What the program is to be compiled for; None: it is not needed. Does not wait."""
        with self._wake:
            if build == self._wanted and self._was_asked:
                return
            if self._wanted is None:
                self._problem = _BEING_MADE
            self._was_asked = True
            if self._wanted is None:
                self._problem = _BEING_MADE  # what was there before is gone, or is about to go
            self._wanted, self._changed = build, True
            self._wake.notify()
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._follow, name="probe path", daemon=True)
                self._thread.start()

    def source(self, ifindex: int, family: int) -> str:
        """An address of ours that a backend behind that interface can answer to. DataPlaneError: there is none."""
        if self._problem is _BEING_MADE:
            raise NotYetError(_BEING_MADE)
        if self._problem is not None:
            raise DataPlaneError(self._problem)
        addresses = self._addresses
        found = addresses.get((ifindex, family)) or next(
            (address for (_, other), address in sorted(addresses.items()) if other == family), None
        )
        if found is None:
            raise DataPlaneError(
                f"this machine has no IPv{family} address that a backend could answer to: give it one, or set the "
                "check's via to direct"
            )
        return found

    def close(self) -> None:
        """End the thread; what is in place stays."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread:
            self._thread.join()

    def _follow(self) -> None:
        made: Build | None = None
        while True:
            with self._wake:
                if not (self._changed or self._stopping):
                    self._wake.wait(LOOK_SECONDS if self._problem is None else RETRY_SECONDS)
                if self._stopping:
                    return
                wanted, self._changed = self._wanted, False
            try:
                if wanted is None:
                    remove()
                    made, self._problem = None, _BEING_MADE
                    with self._wake:
                        if self._wanted is None:
                            self._thread = None
                            return
                    continue
                self._keep(wanted, is_new=wanted != made)
                made, self._problem = wanted, None
            except (SluiceError, NetlinkError, OSError) as error:
                made = None
                self._fail(f"checks cannot take the data path: {error}")

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            self._events.publish("failure", problem, level="error")
        self._problem = problem

    def _keep(self, wanted: Build, *, is_new: bool) -> None:
        """Put in place what is not there."""
        with IPRoute() as ip:
            loopback = _loopback(ip)
            if is_new or not _has_filter(ip, loopback):
                with loaded(wanted) as descriptor:
                    _put_filter(ip, loopback, descriptor)
            for family in _FAMILIES.values():
                _put_route(ip, family, loopback)
            self._addresses = _own_addresses(ip)


@contextlib.contextmanager
def loaded(build: Build) -> Iterator[int]:
    """The program's descriptor, which is closed at the end; a filter keeps the program. CompileError; OSError."""
    bytecode = kept_or_compiled("probe.c", ["probe"], build.flags(), build.kept)
    with opened(bytecode, build.pins) as maps:
        code = bytecode.linked("probe", maps, build.late(0))
        try:
            descriptor = libbpf.prog_load(FILTER, code, kind=libbpf.BPF_PROG_TYPE_SCHED_CLS)
        except OSError as error:
            words = error.strerror or ""
            last = words.strip().rpartition("\n")[2]
            raise CompileError(f"the kernel refuses the program of checks: {last}", words) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _loopback(ip: IPRoute) -> int:
    found: int = ip.link_lookup(ifname="lo")[0]
    [link] = ip.get_links(found)
    if not link["flags"] & 1:  # IFF_UP
        raise DataPlaneError("the interface lo is down: ip link set lo up")
    return found


def _has_filter(ip: IPRoute, loopback: int) -> bool:
    return any(message["info"] >> 16 == _FILTER_PRIORITY for message in _filters(ip, loopback, _EGRESS))


def _filters(ip: IPRoute, loopback: int, parent: int) -> list[Any]:
    """Those there are; none where there is no qdisc to hold them."""
    try:
        return list(ip.get_filters(index=loopback, parent=parent))
    except NetlinkError as error:
        if error.code in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
            return []
        raise


def _put_filter(ip: IPRoute, loopback: int, descriptor: int) -> None:
    _unless(errno.EEXIST, lambda: ip.tc("add", "clsact", loopback))
    ip.tc(
        "replace-filter",
        "bpf",
        loopback,
        handle=1,
        fd=descriptor,
        name=FILTER,
        parent=_EGRESS,
        prio=_FILTER_PRIORITY,
        protocol=_ETH_P_ALL,
        classid=1,
        direct_action=True,
    )


def _put_route(ip: IPRoute, family: int, loopback: int) -> None:
    _unless(errno.EEXIST, lambda: ip.route("add", **_route(family, loopback)))
    if not any(rule.get_attr("FRA_TABLE") == TABLE for rule in ip.get_rules(family=family)):
        _unless(errno.EEXIST, lambda: ip.rule("add", **_rule(family)))


def _route(family: int, loopback: int) -> dict[str, Any]:
    """IPv6 has no other kind of route by way of lo; in a table of its own it makes no address this machine's."""
    everywhere = "0.0.0.0/0" if family == socket.AF_INET else "::/0"
    return {
        "dst": everywhere,
        "table": TABLE,
        "oif": loopback,
        "family": family,
        "type": "local",
        "scope": _HOST,
    }


def _rule(family: int) -> dict[str, int]:
    constant = layout().constants
    mark, mask = constant["PROBE_MARK"], constant["PROBE_MARK_MASK"]
    return {"family": family, "table": TABLE, "priority": PRIORITY, "fwmark": mark, "fwmask": mask}


def _own_addresses(ip: IPRoute) -> Addresses:
    """The first of each interface and family that the whole network can answer to."""
    found: dict[tuple[int, int], str] = {}
    for message in ip.get_addr():
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["scope"] == 0 and text is not None:
            found.setdefault((message["index"], ip_address(text).version), text)
    return found


def _unless(code: int, call: Callable[[], object]) -> None:
    try:
        call()
    except NetlinkError as error:
        if error.code != code:
            raise


def remove() -> None:
    """Take all of it away, as far as it is there. DataPlaneError."""
    try:
        _remove()
    except NetlinkError as error:
        raise DataPlaneError(f"the way of checks cannot be taken away ({error}): run it as root") from error


def _remove() -> None:
    with IPRoute() as ip:
        loopback = ip.link_lookup(ifname="lo")[0]
        for family in _FAMILIES.values():
            for rule in list(ip.get_rules(family=family)):
                if rule.get_attr("FRA_TABLE") == TABLE:
                    _unless(errno.ENOENT, partial(ip.rule, "del", **_rule(family)))
            for route in list(ip.get_routes(family=family, table=TABLE)):
                if route.get_attr("RTA_TABLE") == TABLE:
                    _unless(errno.ESRCH, partial(ip.route, "del", **_route(family, loopback)))
        if not _has_filter(ip, loopback):
            return
        ip.tc("del-filter", "bpf", loopback, parent=_EGRESS, prio=_FILTER_PRIORITY, protocol=_ETH_P_ALL)
        others = [each for parent in (_EGRESS, _INGRESS) for each in _filters(ip, loopback, parent)]
        if not others:
            ip.tc("del", "clsact", loopback)
