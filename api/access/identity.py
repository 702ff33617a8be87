"""Who the caller is: by the unix socket's peer, a token, a client certificate, or as coming from this host."""

import grp
import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lb.errors import AuthenticationError
from lb.model.access import Access, Account, Role
from lb.store.access import AccessStore

PEER_KEY = "sluice.peer"
"""Where in a request's scope the server puts {"uid", "gid", "pid", "groups"} of a unix socket's client."""
LISTENER_KEY = "sluice.listener"
"""Where it puts the listener that the request came by: one of the following."""
CERTIFICATE_KEY = "sluice.certificate"
"""Where it puts the names in a client certificate that was verified, as "CN:alice"; None without one."""
CALLER_KEY = "sluice.caller"
"""Where in scope["state"] the caller is, once it is known."""
UNIX, LOOPBACK, TLS = "unix", "loopback", "tls"

_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]{1,256}=*) *")
REMEDY = 'send a token as Authorization: Bearer TOKEN; an admin creates one with "sluice token create"'


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller. role None: known, but may do nothing. how: unix, token, certificate or loopback.

    is_exempt: no limit holds. expires_at: of the token.
    """

    name: str
    role: Role | None
    how: str
    origin: str
    is_exempt: bool = False
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Identifier:
    """How callers are identified. own_uid: the daemon's; socket_group: its members may use the socket."""

    tokens: AccessStore
    grants: Callable[[], Access]
    own_uid: int
    socket_group: int
    clock: Callable[[], float]

    def identify(self, scope: Mapping[str, Any]) -> Caller:
        """The caller; AuthenticationError if it cannot be identified. A presented token counts before anything else."""
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        origin = origin_of(scope)
        if shown:
            return self._by_token(shown, origin)
        if scope.get(PEER_KEY) is not None:
            return self._by_peer(scope[PEER_KEY], origin)
        names = scope.get(CERTIFICATE_KEY)
        if names is not None:
            return self._by_certificate(names, origin)
        role = self.grants().loopback
        if scope.get(LISTENER_KEY) == LOOPBACK and role is not None:
            return Caller(scope["client"][0], role, LOOPBACK, origin)
        raise AuthenticationError(f"this needs a token: {REMEDY}")

    def _by_token(self, shown: list[bytes], origin: str) -> Caller:
        """Whatever is wrong with it, the same work is done before the answer."""
        found = _BEARER.fullmatch(shown[0]) if len(shown) == 1 else None
        token = self.tokens.match(found[1].decode() if found else "")
        if found is None:
            raise AuthenticationError(
                f"the Authorization header is not a bearer token: {REMEDY}", "invalid_request"
            )
        if token is None:
            raise AuthenticationError(f"there is no such token, or it was revoked: {REMEDY}", "invalid_token")
        if token.is_over(self.clock()):
            raise AuthenticationError(
                f'the token "{token.name}" has expired: an admin creates a new one with "sluice token create"',
                "invalid_token",
            )
        return Caller(f"token {token.name}", token.role, "token", origin, expires_at=token.expires_at)

    def _by_peer(self, peer: Mapping[str, Any], origin: str) -> Caller:
        uid, groups = peer["uid"], {peer["gid"], *peer.get("groups", ())}
        name = f"uid {uid}"
        if uid in (0, self.own_uid):
            return Caller(name, Role.ADMIN, UNIX, origin, is_exempt=True)
        for grant in self.grants().unix:
            is_user = grant.user is not None and _number(grant.user, _uid_of) == uid
            if is_user or (grant.group is not None and _number(grant.group, _gid_of) in groups):
                return Caller(name, grant.role, UNIX, origin)
        return Caller(name, Role.ADMIN if self.socket_group in groups else None, UNIX, origin)

    def _by_certificate(self, names: tuple[str, ...], origin: str) -> Caller:
        shown = names[0] if names else "without a name"
        for grant in self.grants().certificates:
            if grant.name in names:
                return Caller(f"certificate {grant.name}", grant.role, "certificate", origin)
        return Caller(f"certificate {shown}", None, "certificate", origin)


def actor_of(scope: Mapping[str, Any]) -> str:
    """The caller, for the history and the log: "uid 0" on a unix socket, "token ci", else the client's address."""
    caller: Caller | None = scope["state"].get(CALLER_KEY)
    return caller.name if caller else name_of(scope)


def name_of(scope: Mapping[str, Any]) -> str:
    """The caller, where nothing checks what it may do: the unix socket's peer, else the client's address."""
    peer, client = scope.get(PEER_KEY), scope.get("client")
    if peer is not None:
        return f"uid {peer['uid']}"
    return str(client[0]) if client else "local"


def origin_of(scope: Mapping[str, Any]) -> str:
    """Where a request came from, for the audit."""
    peer, client = scope.get(PEER_KEY), scope.get("client")
    if peer is not None:
        return f"unix socket, pid {peer['pid']}"
    if not client:
        return "unknown"
    host = f"[{client[0]}]" if ":" in client[0] else client[0]
    return f"{host}:{client[1]}"


def _number(account: Account, find: Callable[[str], int | None]) -> int | None:
    return account if isinstance(account, int) else find(account)


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
