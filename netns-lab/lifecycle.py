"""A lab from `up` to `down`: the order in which it is built, and how it is removed whatever happened."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import backends
import balancer
import build
import place
import processes
from place import Lab, Started
from pyroute2.netlink.exceptions import NetlinkError
from signals import undisturbed
from topology import Role

from lb.errors import NotFoundError, SetupError

TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "ethtool": "ethtool", "nginx": "nginx"}
"""Commands that the lab starts, and the Debian package of each."""


def up(
    name: str,
    config: str = "default",
    *,
    daemon: bool = True,
    document: bool = True,
    daemon_options: Sequence[str] = (),
) -> Lab:
    """Make a lab, in place of any of that name, and return when it answers.

    daemon: start `sluice serve`; document: give it the configuration's services. If this fails or is
    interrupted, nothing is left. SluiceError; ValueError for the name.
    """
    lab = Lab(name, config)
    configuration = lab.configuration
    _check_machine()
    with place.held(lab):
        try:
            _clear(lab)
            lab.data.mkdir(parents=True)
            place.record(lab, [])
            _build(lab)
            if daemon:
                start_daemon(lab, *daemon_options)
            for host, what, words, log in backends.commands(configuration, lab.data):
                start_process(lab, what, (host.role, host.number), words, log)
            backends.wait_until_ready(lab.names, configuration)
            if daemon:
                wait_for_daemon(lab)
            if daemon and document:
                balancer.apply(lab.socket, configuration.document)
        except BaseException:
            with undisturbed():
                _clear(lab)
                place.leave(lab)
            raise
    return lab


def down(name: str) -> None:
    """Remove a lab and whatever a killed run of it left, if anything. ValueError for the name."""
    lab = Lab(name)
    with place.held(lab), undisturbed():
        _clear(lab)
        place.leave(lab)


def restart(name: str, daemon_options: Sequence[str] = ()) -> Lab:
    """End the daemon, start it with these options and no others, and return when it answers.

    What is attached goes on. SluiceError; NotFoundError if the lab is not up.
    """
    lab = place.find(name)
    with place.held(lab):
        if (daemon := find_daemon(lab)) is not None:
            processes.end([daemon])
        start_daemon(lab, *daemon_options)
        wait_for_daemon(lab)
    return lab


def start_daemon(lab: Lab, *more: str) -> processes.Process:
    """Start the daemon, first or again, with more options; does not wait for it. SetupError if it is not installed."""
    words = balancer.command(lab.names, lab.socket, lab.state_dir, more)
    return start_process(lab, "daemon", (Role.BALANCER, 1), words, lab.daemon_log)


def _build(lab: Lab) -> None:
    try:
        build.build(lab.names, lab.configuration)
    except (NetlinkError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"this machine refuses a part of the lab, which needs veth and bridge: {error}"
        ) from error


def start_process(
    lab: Lab, what: str, where: tuple[Role, int], words: Sequence[str], log: Path
) -> processes.Process:
    """Start a process and put it on record, in place of one that did the same job there."""
    with undisturbed():
        process = processes.start(lab.namespace(*where), words, log)
        others = [
            entry for entry in place.started(lab) if (entry.what, entry.role, entry.number) != (what, *where)
        ]
        place.record(lab, [*others, Started(what, *where, process)])
    return process


def find_daemon(lab: Lab) -> processes.Process | None:
    """The daemon that was started last; it may have ended."""
    return next((entry.process for entry in place.started(lab) if entry.what == "daemon"), None)


def wait_for_daemon(lab: Lab) -> None:
    """Return when the daemon that was started last forwards. SetupError with its log's end if it does not."""
    daemon = find_daemon(lab)
    if daemon is None:
        raise SetupError(f'lab "{lab.name}" was started without a daemon: run `up` again')
    balancer.wait_until_ready(daemon, lab.socket, lab.daemon_log)


def _clear(lab: Lab) -> None:
    """End and remove all that bears the lab's name."""
    with contextlib.suppress(NotFoundError):
        processes.end([entry.process for entry in place.started(lab)])
    build.unbuild(lab.names)
    place.empty(lab)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise SetupError("namespaces and BPF need root: run this as root")
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        raise SetupError(f"the lab needs more of the system: run `apt-get install {' '.join(missing)}`")
