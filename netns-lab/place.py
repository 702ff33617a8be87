"""A lab's files, and its record (lab.json), by which it is found again however it ended."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import Process
from topology import CONFIGURATIONS, Configuration, Names, Role, namespaces

from lb.errors import NotFoundError

RUN_ROOT = Path("/run/sluice-lab")
DATA_ROOT = Path("/var/lib/sluice-lab")


@dataclass(frozen=True, slots=True)
class Started:
    """One process of a lab: what it is, and where it was started."""

    what: str
    role: Role
    number: int
    process: Process


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab by its name and its configuration's; it need not be up. ValueError if the name is no name."""

    name: str
    config: str = "default"

    def __post_init__(self) -> None:
        Names(self.name)

    @property
    def names(self) -> Names:
        """How its namespaces and interfaces are called."""
        return Names(self.name)

    @property
    def configuration(self) -> Configuration:
        """Its topology; NotFoundError if there is no configuration of that name."""
        try:
            return CONFIGURATIONS[self.config]
        except KeyError:
            known = ", ".join(CONFIGURATIONS)
            raise NotFoundError(f'there is no configuration "{self.config}": choose from {known}') from None

    @property
    def run(self) -> Path:
        """The record and the socket."""
        return RUN_ROOT / self.name

    @property
    def data(self) -> Path:
        """What may grow: the servers' files, the daemon's state, logs."""
        return DATA_ROOT / self.name

    @property
    def socket(self) -> Path:
        """The daemon's unix socket."""
        return self.run / "sluice.sock"

    @property
    def state_dir(self) -> Path:
        """The daemon's state directory."""
        return self.data / "state"

    @property
    def daemon_log(self) -> Path:
        """What the daemon writes to stdout and stderr."""
        return self.data / "daemon.log"

    def namespace(self, role: str, number: int = 1) -> str:
        """The namespace of a host or of the switch; NotFoundError names those there are."""
        there = list(namespaces(self.names, self.configuration))
        for known, at, namespace in there:
            if (known, at) == (role, number):
                return namespace
        listed = ", ".join(f"{known} {at}" for known, at, _ in there)
        raise NotFoundError(f'lab "{self.name}" has no {role} {number}: it has {listed}')


def find(name: str) -> Lab:
    """The lab of that name; NotFoundError if it is not up. ValueError for the name."""
    return Lab(name, _read(Lab(name))["config"])


def started(lab: Lab) -> list[Started]:
    """The processes on record; they may have ended. NotFoundError if the lab is not up."""
    return [
        Started(p["what"], Role(p["role"]), p["number"], Process(p["pid"], p["started"]))
        for p in _read(lab)["processes"]
    ]


def record(lab: Lab, processes: list[Started]) -> None:
    """Write the record, whole or not at all."""
    listed = [{"what": p.what, "role": p.role, "number": p.number, **asdict(p.process)} for p in processes]
    new = lab.run / "lab.json.new"
    new.write_text(json.dumps({"config": lab.config, "processes": listed}, indent=2))
    new.replace(lab.run / "lab.json")


def _read(lab: Lab) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((lab.run / "lab.json").read_text())
    except FileNotFoundError:
        raise NotFoundError(
            f'lab "{lab.name}" is not up: start it with `netns-lab/lab.py up --name {lab.name}`'
        ) from None
    return state


@contextlib.contextmanager
def held(lab: Lab) -> Iterator[None]:
    """Hold a lab for oneself: two `up` or `down` of one name take turns. Makes its run folder."""
    while True:
        try:
            lab.run.mkdir(mode=0o750, parents=True, exist_ok=True)
            descriptor = os.open(lab.run, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # removed in between by another `down`
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if lab.run.exists() and lab.run.stat().st_ino == os.fstat(descriptor).st_ino:
                yield
                return
        finally:
            os.close(descriptor)


def empty(lab: Lab) -> None:
    """Remove its files. The run folder stays: it is what `held` holds."""
    shutil.rmtree(lab.data, ignore_errors=True)
    for entry in lab.run.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def leave(lab: Lab) -> None:
    """Remove its empty run folder, and the folders of all labs if this was the last."""
    for folder in (lab.run, RUN_ROOT, DATA_ROOT):
        with contextlib.suppress(OSError):  # not empty: other labs are up
            folder.rmdir()
