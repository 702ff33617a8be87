"""Keeps pages of other sites from using what a browser on this host may do without a token."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from lb.errors import ForbiddenError

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:@/\s]+)(?::[0-9]{1,5})?")


def check(scope: Mapping[str, Any], *, names: Iterable[str] | None) -> None:
    """ForbiddenError, if the request may come from a page of another site.

    names: by which this host may be asked for beside loopback's, so that a name that was bound to our address anew
    (DNS rebinding) is none of ours; None: by any, for TLS has proven the name.
    """
    hosts, origins = ([v for n, v in scope["headers"] if n == name] for name in (b"host", b"origin"))
    host = hosts[0].decode("latin-1").lower() if hosts else ""
    found = _HOST.fullmatch(host)
    if names is not None and (found is None or not _is_ours(found["name"], names)):
        raise ForbiddenError(
            f"{_shown(host)} is not a name of this listener: ask for localhost or its address, or add the name to "
            "settings.access.hosts"
        )
    for origin in origins:
        text = origin.decode("latin-1").lower()
        if urlsplit(text).netloc != host:
            raise ForbiddenError(
                f"the request comes from a page of {_shown(text)}, which is another site: use a token"
            )


def _is_ours(name: str, names: Iterable[str]) -> bool:
    if name == "localhost" or name in names:
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _shown(text: str) -> str:
    return f'"{text[:60]}"' if text.isprintable() and text else "what is given"
