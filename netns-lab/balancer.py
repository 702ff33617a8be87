"""The daemon: how it is started, when it forwards, and how to talk to it over its socket."""

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import processes
from rerun import CHECKOUT
from topology import Names

from lb.errors import SetupError, SluiceError

SLUICE = CHECKOUT / ".venv" / "bin" / "sluice"
READY_SECONDS = 60.0
"""Compiling takes a few seconds; on a busy machine more."""
POLL_SECONDS = 0.05


def command(names: Names, path: Path, state_dir: Path, more: Sequence[str] = ()) -> list[str]:
    """The command line of the daemon on the balancer's interface, with more options. SetupError if not installed."""
    if not SLUICE.exists():
        raise SetupError("there is no sluice command in .venv yet: run `make setup` in the checkout")
    places = ["--socket", str(path), "--state-dir", str(state_dir)]
    return [str(SLUICE), "serve", "--interface", names.balancer_interface, *places, *more]


def client(path: Path, **more: Any) -> httpx.Client:
    """An HTTP client for the daemon's REST interface; paths begin at the root, as in "/v1/services"."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://sluice", **more)


def wait_until_ready(daemon: processes.Process, path: Path, log: Path) -> None:
    """Return when /readyz says yes. SetupError with the log's end if the daemon ends or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    reasons = "it has not opened its socket"
    with client(path, timeout=READY_SECONDS) as http:
        while daemon.is_running() and time.monotonic() < deadline:
            if is_listening(path):
                try:
                    answer = http.get("/readyz")
                except httpx.TransportError as error:  # it was a former daemon's, which is ending
                    reasons = str(error)
                else:
                    if answer.is_success:
                        return
                    reasons = answer.text
            time.sleep(POLL_SECONDS)
    fault = (
        f"is not ready after {READY_SECONDS:.0f} s ({reasons})"
        if daemon.is_running()
        else "ended while it started"
    )
    raise SetupError(f"the daemon {fault}; its log ends:\n{tail(log)}")


def is_listening(path: Path) -> bool:
    """Asked of the socket itself: httpx leaves one open each time that it cannot connect."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def apply(path: Path, document: Mapping[str, Any]) -> None:
    """Make a document the desired state. SluiceError with the daemon's words if it refuses."""
    with client(path, timeout=READY_SECONDS) as http:
        answer = http.put("/v1/config", json=dict(document))
    if not answer.is_success:
        raise SluiceError(f"the daemon refuses the configuration ({answer.status_code}): {answer.text}")


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
