"""uvicorn over several sockets at once, each with its own way of identifying callers."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from api.access.identity import TLS
from api.serving.protocol import PeerProtocol
from api.serving.sockets import Listening

if TYPE_CHECKING:
    from api.serving.tls import Certificates

HANDSHAKE_SECONDS = 5.0
HEAD_BYTES = 64 << 10
"""Limit of a request's line and headers, in bytes."""


class ApiServer(uvicorn.Server):
    """Leaves signals to its user. ready is called once all sockets are listening."""

    def __init__(
        self,
        app: ASGIApp,
        opened: Sequence[Listening],
        certificates: "Certificates | None" = None,
        *,
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PeerProtocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=HEAD_BYTES,
                timeout_graceful_shutdown=2,
            )
        )
        self._opened, self._certificates, self._ready = opened, certificates, ready
        # uvicorn's own handlers raise the signal again after shutdown; here it is the normal end.
        self.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on each of the sockets that were opened."""
        loop = asyncio.get_running_loop()
        self.servers = []
        for each in self._opened:
            protocol = partial(
                PeerProtocol,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                listener=each.kind,
            )
            secured = self._certificates.context if self._certificates and each.kind == TLS else None
            self.servers.append(
                await loop.create_server(
                    protocol,
                    sock=each.socket,
                    ssl=secured,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS if secured else None,
                    backlog=self.config.backlog,
                )
            )
        self.started = True
        self._ready()
