"""HTTP/1.1 on one connection: tells the app who is at the other end, and waits for nobody for ever."""

import asyncio
import contextlib
import socket
import struct
from typing import Any

import h11

from api.access.identity import CERTIFICATE_KEY, LISTENER_KEY, LOOPBACK, PEER_KEY, TLS, UNIX
from api.protocol import ProblemProtocol

HEAD_SECONDS = 10.0
"""How long a connection may take to send the head of its first request."""
CONNECTIONS_MAX = 2000
"""Concurrent connections over TCP; further ones are closed at once. The unix socket is not counted."""
_SO_PEERGROUPS = 59
_GROUPS_BYTES = 1024  # the most that Python asks for; who is in over 256 groups has none here
_SUBJECT_KINDS = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU"}
_SAN_KINDS = {"DNS": "DNS", "URI": "URI", "email": "email", "IP Address": "IP"}


class PeerProtocol(ProblemProtocol):
    """Leaves in the scope what api/access/identity.py reads. listener: unix, loopback or tls."""

    def __init__(self, *args: Any, listener: str = UNIX, **more: Any) -> None:
        super().__init__(*args, **more)
        self._listener = listener
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Find out who connected; the clock for its first request starts."""
        super().connection_made(transport)
        if self._listener != UNIX and len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.abort)
        added: dict[str, Any] = {LISTENER_KEY: self._listener, PEER_KEY: None}
        if self._listener == UNIX:
            added[PEER_KEY] = _peer(transport.get_extra_info("socket"))
        elif self._listener == TLS:
            added[CERTIFICATE_KEY] = _names(transport.get_extra_info("peercert"))
        app = self.app

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope.update(added)
            await app(scope, receive, send)

        self.app = with_peer

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._heard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Data; the clock runs while it is only a part of a head."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._heard()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _heard(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _peer(connection: Any) -> dict[str, Any]:
    """Who connected: SO_PEERCRED, and the groups it was in."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    packed = b""
    with contextlib.suppress(OSError):
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    return {"pid": pid, "uid": uid, "gid": gid, "groups": struct.unpack(f"{len(packed) // 4}I", packed)}


def _names(certificate: dict[str, Any] | None) -> tuple[str, ...] | None:
    """The names in a certificate that the server has verified, the subject's first; None without one."""
    if not certificate:
        return None
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    found = [f"{_SUBJECT_KINDS[kind]}:{value}" for kind, value in subject if kind in _SUBJECT_KINDS]
    others = certificate.get("subjectAltName", ())
    return (*found, *(f"{_SAN_KINDS[kind]}:{value}" for kind, value in others if kind in _SAN_KINDS))


__all__ = ["LOOPBACK", "TLS", "UNIX", "PeerProtocol"]
