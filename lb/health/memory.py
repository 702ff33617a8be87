"""The results of checks, in a file: a restart begins with them, so that it changes no backend's state."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lb.health.target import Key
from lb.model.standing import Health

log = logging.getLogger("sluice.health")


@dataclass(frozen=True, slots=True)
class Known:
    """Of one backend: its verdict, since when that holds, since when it starts slowly, and whether the guard holds it.

    Times are seconds since the epoch.
    """

    health: Health = Health.UNKNOWN
    since: float | None = None
    returned: float | None = None
    held: bool = False


def load(path: Path) -> dict[Key, Known]:
    """What was saved; nothing, with a line in the log, if it cannot be read: all count as healthy then."""
    try:
        said = json.loads(path.read_bytes())
        return {
            (service, ip_address(address).packed): _known(*words)
            for service, backends in said.items()
            for address, words in backends.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning(
            "%s cannot be read (%s): every backend counts as healthy until it is checked", path, error
        )
        return {}


def save(path: Path, known: Mapping[Key, Known]) -> None:
    """Keep these, all or (where the disk is full) those before; a failure is a line in the log."""
    document: dict[str, dict[str, list[object]]] = {}
    for (service, address), one in known.items():
        said: list[object] = [str(one.health), one.since, one.returned, one.held]
        document.setdefault(service, {})[str(ip_address(address))] = said
    beside = path.with_suffix(".new")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(document, file)
        beside.replace(path)
    except OSError as error:
        log.warning("%s cannot be written (%s): a restart begins with the health before", path, error)


def _known(health: str, since: float | None, returned: float | None = None, held: object = False) -> Known:
    return Known(Health(health), _moment(since), _moment(returned), bool(held))


def _moment(said: float | None) -> float | None:
    return None if said is None else float(said)
