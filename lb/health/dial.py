"""Sockets for probes: to a backend's own address, or marked, so that they reach the VIP at that very backend."""

import contextlib
import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lb.errors import NotFoundError, SluiceError
from lb.health.target import Target

PORTS = range(61000, 65000)
"""Source ports of marked probes, above those that Linux gives out by itself. Equal to PROBE_PORT_… in xdp/config.h."""
_SEGMENT = 1200
"""Bytes of TCP in a marked probe's packets, at most: with any outer header they fit every way."""
_SO_MARK = 36
_RESET = struct.pack("ii", 1, 0)
_OURS = frozenset(
    {errno.EACCES, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM}
)
"""What says something of this machine, and nothing of the backend."""


class ProbeFailedError(Exception):
    """The backend did not answer as it should; says what it did."""


class UnableError(Exception):
    """It could not be asked: nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a packet for a VIP gets to one backend: its mark, and the address of ours that answers come to."""

    mark: int
    source: str


class DataPath(Protocol):
    """The way clients' packets take."""

    def way(self, service: str, backend: bytes, family: int) -> Way:
        """To a backend of a service whose VIP is of that family.

        NotFoundError: the backend cannot be reached; other SluiceErrors: there is no way just now.
        """


class Dialer:
    """Makes sockets. One event loop uses it."""

    def __init__(self, path: DataPath | None = None) -> None:
        self._path = path
        self._ports = itertools.cycle(PORTS)

    @contextlib.contextmanager
    def open(self, target: Target, kind: socket.SocketKind) -> Iterator[socket.socket]:
        """A socket that only needs to be connected to target.address. UnableError."""
        family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
        try:
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise UnableError(f"no socket can be opened: {error.strerror}") from error
        with made:
            if kind == socket.SOCK_STREAM:
                # Closed by a reset: thousands of probes would else hold their ports for a minute each.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if not target.is_direct:
                self._lead(made, target)
            yield made

    def _lead(self, made: socket.socket, target: Target) -> None:
        if self._path is None:
            raise UnableError("there is no data path to check through: set via to direct")
        try:
            way = self._path.way(target.service, target.backend.packed, target.vip.version)
        except NotFoundError as error:
            raise ProbeFailedError(str(error)) from error
        except SluiceError as error:
            raise UnableError(str(error)) from error
        try:
            made.setsockopt(socket.SOL_SOCKET, _SO_MARK, way.mark)
        except OSError as error:
            raise UnableError("packets cannot be marked, which needs CAP_NET_ADMIN") from error
        if made.type == socket.SOCK_STREAM:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        for port in itertools.islice(self._ports, len(PORTS)):
            try:
                made.bind((way.source, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise UnableError(f"{way.source} cannot be sent from: {error.strerror}") from error
            else:
                return
        raise UnableError(f"all ports from {PORTS[0]} to {PORTS[-1]} are in use")


def failure_of(error: OSError, target: Target) -> Exception:
    """What a failed call on a probe's socket means."""
    says = os.strerror(error.errno) if error.errno else str(error)  # asyncio writes the address in strerror
    if error.errno in _OURS or (not target.is_direct and error.errno == errno.ENETUNREACH):
        return UnableError(f"it could not be asked: {says}")
    where = f"{target.address} port {target.port}"
    return ProbeFailedError(f"{where}: {says[:1].lower()}{says[1:]}")
