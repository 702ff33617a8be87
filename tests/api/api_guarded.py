"""The application with its access control at work, and clients that come by each of the listeners."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from api_stack import Clock
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.access.control import AccessControl, control_of
from api.access.identity import CERTIFICATE_KEY, LISTENER_KEY, LOOPBACK, PEER_KEY, TLS, UNIX
from api.app import create_app
from lb.dataplane.twin import TwinDataPlane
from lb.model.access import Role
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore
from lb.store.access import AccessStore, AuditRecord

SOCKET_GROUP = 900
ADDRESS = "198.51.100.7"


@dataclass(frozen=True)
class Guarded:
    """A daemon that asks who comes."""

    app: FastAPI
    control: AccessControl
    reconciler: Reconciler
    clock: Clock
    steady: Clock

    def _client(self, kind: str, host: str, address: str = ADDRESS, **added: Any) -> TestClient:
        async def by_listener(scope: Any, receive: Any, send: Any) -> None:
            scope.update({LISTENER_KEY: kind, PEER_KEY: None, **added})
            await self.app(scope, receive, send)

        return TestClient(
            by_listener,
            base_url=f"{'https' if kind == TLS else 'http'}://{host}",
            client=(address, 40000),
            raise_server_exceptions=False,
        )

    def unix(self, uid: int = 0, gid: int = 0, *groups: int) -> TestClient:
        """A client of the unix socket."""
        return self._client(
            UNIX, "sluice", **{PEER_KEY: {"pid": 7, "uid": uid, "gid": gid, "groups": groups}}
        )

    def loopback(self, host: str = "localhost:8080", **headers: str) -> TestClient:
        """A client of the loopback listener."""
        client = self._client(LOOPBACK, host, "127.0.0.1")
        client.headers.update(headers)
        return client

    def tls(self, token: str | None = None, *, address: str = ADDRESS, names: Any = None) -> TestClient:
        """A client by TLS, with a token, or with names in a certificate."""
        client = self._client(TLS, "edge.example.net", address, **{CERTIFICATE_KEY: names})
        if token is not None:
            client.headers["Authorization"] = f"Bearer {token}"
        return client

    def token(self, role: str, name: str = "", expires_in: float | None = None) -> str:
        """What the bearer of a fresh token shows."""
        ends = None if expires_in is None else self.clock.now + expires_in
        made = self.control.tokens.create(
            name or role, Role(role), created_by="test", now=self.clock.now, expires_at=ends
        )
        return made[1]

    def allow(self, **access: Any) -> None:
        """Make this the section `access` of the settings."""
        self.unix().put("/v1/config", json={"settings": {"access": access}}).raise_for_status()

    def audit(self) -> list[AuditRecord]:
        """The lines, oldest first."""
        return self.control.tokens.audit(limit=10_000)[::-1]


@contextmanager
def guarded_app() -> Iterator[Guarded]:
    """A started daemon with nothing configured."""
    clock, steady = Clock(), Clock()
    store, tokens = SqliteStore(":memory:"), AccessStore(":memory:")
    reconciler = Reconciler(store, TwinDataPlane(), clock=clock)
    reconciler.start()
    control = control_of(reconciler, tokens, socket_group=SOCKET_GROUP, monotonic=steady)
    yield Guarded(create_app(reconciler, access=control), control, reconciler, clock, steady)
    reconciler.stop()
    store.close()
    tokens.close()
