"""Observed state of each feed: last fetch, last error, next refresh. Kept in a file across restarts."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lb.feeds.fetch import NOTHING_HELD, Validators

log = logging.getLogger("sluice.feeds")


@dataclass(frozen=True, slots=True)
class FeedState:
    """One feed as it is; times are seconds since the epoch.

    fingerprint: of the feed it is about. error: why the last attempt failed, None if it did not; failures: how many
    in a row have. etag, last_modified: what the server said of the version held. content, layer: digests of the
    bytes it was read from, and of the blocklist's layer that they made. passed_over: entries that were no bans of
    addresses.
    """

    fingerprint: str = ""
    next_refresh_at: float = 0.0
    last_attempt_at: float | None = None
    last_success_at: float | None = None
    error: str | None = None
    failures: int = 0
    etag: str | None = None
    last_modified: str | None = None
    content: str | None = None
    layer: str | None = None
    passed_over: int = 0

    def held(self, layer: str) -> Validators:
        """What to ask a server by: nothing, unless the layer is the one that its answer made."""
        return Validators(self.etag, self.last_modified) if self.layer == layer else NOTHING_HELD


def load(path: Path) -> dict[str, FeedState]:
    """By name, what was saved; none, with a line in the log, if it cannot be read: all are then fetched anew."""
    try:
        document = json.loads(path.read_bytes())
        return {name: _state(said) for name, said in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s): every feed is fetched anew", path, error)
        return {}


def save(path: Path, states: Mapping[str, FeedState]) -> None:
    """Keep these, all or (where the disk is full) those before; a failure is a line in the log."""
    beside = path.with_suffix(".new")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({name: asdict(state) for name, state in states.items()}, file)
        beside.replace(path)
    except OSError as error:
        log.warning("%s cannot be written (%s): after a restart feeds are fetched anew", path, error)


def _state(said: Mapping[str, object]) -> FeedState:
    state = FeedState(**said)  # type: ignore[arg-type]  # checked below, field by field
    for field in fields(FeedState):
        value = getattr(state, field.name)
        numeric = field.name.endswith("_at") or field.name in ("failures", "passed_over")
        if value is not None and not isinstance(value, (int, float) if numeric else str):
            raise ValueError(f"{field.name} is {value!r}")
    if state.next_refresh_at is None:
        raise ValueError("next_refresh_at is missing")
    return state
