"""The access log: every request at debug; refused and slow ones at info, failed ones at warning."""

import logging
from typing import Any

log = logging.getLogger("sluice.access")

SLOW_SECONDS = 1.0
_ASKED_OFTEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by programs that say themselves what they found."""


def level_of(path: str, status: int, seconds: float) -> int:
    """How much a request is worth telling of."""
    if path in _ASKED_OFTEN:
        return logging.DEBUG
    if status >= 500:
        return logging.WARNING
    return logging.INFO if status >= 400 or seconds >= SLOW_SECONDS else logging.DEBUG


def told(actor: str, method: str, path: str, status: int, seconds: float) -> None:
    """Write the line. seconds: until the answer began."""
    level = level_of(path, status, seconds)
    if not log.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "actor": actor,
        "method": method,
        "path": path,
        "status": status,
        "seconds": round(seconds, 6),
    }
    shown = path if path.isprintable() else ascii(path)
    log.log(
        level,
        "%s %s %d in %.1f ms by %s",
        method,
        shown,
        status,
        seconds * 1000,
        actor,
        extra={"fields": fields},
    )
