"""The role that an operation needs. Pure; decided by the same path that the router uses, so the two cannot diverge."""

import re

from lb.model.access import Role

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = re.compile(r"/healthz|/|/dashboard/.*", re.DOTALL)
"""May be read by everyone: whether the process lives, and the page, which is the same for all and holds no data."""

_READ_BY = (
    (re.compile(r"/v1/(tokens|audit)(/.*)?", re.DOTALL), Role.ADMIN),
    (re.compile(r"/v1/capture"), Role.OPERATOR),  # it shows what clients send
)
_WRITTEN_BY = (
    (re.compile(r"/v1/explain"), Role.VIEWER),  # it changes nothing
    (re.compile(r"/v1/(blocklist|allowlist|rules)(/.*)?", re.DOTALL), Role.OPERATOR),
    (re.compile(r"/v1/services/[^/]+/(backends|drains?)(/.*)?", re.DOTALL), Role.OPERATOR),
    (re.compile(r"/v1/feeds/[^/]+/refresh"), Role.OPERATOR),
)


def is_open(method: str, path: str) -> bool:
    """Whether no identification is needed."""
    return method in SAFE_METHODS and OPEN.fullmatch(path) is not None


def needed(method: str, path: str) -> Role:
    """The lowest role that may do it. For paths in no table: viewers read, admins write."""
    is_read = method in SAFE_METHODS
    for pattern, role in _READ_BY if is_read else _WRITTEN_BY:
        if pattern.fullmatch(path):
            return role
    return Role.VIEWER if is_read else Role.ADMIN
