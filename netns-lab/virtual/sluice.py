"""The installed Sluice, as its operator has it: by its command and by systemctl."""

import json
import subprocess
from pathlib import Path
from typing import Any

from virtual.network import BACKENDS
from virtual.report import NotSeenError, check, note, within

SERVICE = "web"
VIP = "10.200.1.1"
SERVICE_WORDS = (
    *(SERVICE, "--vip", VIP, "--port", "80", "--protocol", "tcp", "--health-check", "http"),
    *(word for address in BACKENDS.values() for word in ("--backend", address)),
)
"""Of `sluice service add`: mode ipip, with health checks."""
START_SECONDS = 900.0
"""A compiler in an emulated machine is slow."""
_SERVED = "SLUICE_INTERFACE="
ENV = Path("/etc/sluice/sluice.env")
COMPILED = Path("/var/lib/sluice/compiled")
DROP_IN = Path("/etc/systemd/system/sluice.service.d/machine.conf")
UNTIED = ("clock",)
"""Checks of the doctor's that have to warn here: nobody tells the machine the time."""


def run(*words: str, ok: bool = True, feed: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command that has ended. NotSeenError, with its words, unless it ends well (ok) ."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=feed)
    if ok and done.returncode:
        raise NotSeenError(
            f"`{' '.join(words)}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}"
        )
    return done


def ask(*words: str) -> Any:
    """What `sluice … -o json` says."""
    return json.loads(run("sluice", *words, "-o", "json").stdout)


def unit(*properties: str) -> dict[str, str]:
    """What systemd says of the unit."""
    said = run("systemctl", "show", "sluice", *(f"--property={name}" for name in properties)).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def systemctl(verb: str) -> None:
    """NotSeenError with the journal's end."""
    done = run("systemctl", verb, "sluice", ok=False)
    if done.returncode:
        raise NotSeenError(f"systemctl {verb} sluice: {done.stderr.strip()}\n{journal(25)}")


def journal(lines: int, unit: str = "sluice") -> str:
    """A unit's last lines."""
    return run("journalctl", "-u", unit, "-n", str(lines), "--no-pager", "-o", "cat").stdout


def configure(interface: str) -> None:
    """What is served, in the installed file of options."""
    lines = ENV.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(_SERVED)]
    ENV.write_text("\n".join([*kept, f"{_SERVED}{interface}"]) + "\n")


def interface() -> str:
    """What is served, by the installed file of options."""
    (name,) = [line.partition("=")[2] for line in ENV.read_text().splitlines() if line.startswith(_SERVED)]
    return name


def served() -> dict[str, Any]:
    """The interface that is served, as `sluice status` has it."""
    document = ask("status")
    (interface,) = document["interfaces"]
    return dict(interface)


def wait_until_healthy(seconds: float = 180.0) -> None:
    """Return once every backend answers its checks, which go the way of clients' packets."""

    def seen() -> bool:
        (service,) = ask("status")["services"]
        return all(one["health"] == "healthy" for one in service["backends"])

    try:
        within(seconds, "all backends healthy", seen, pause=1.0)
    except NotSeenError:
        note(run("sluice", "backend", "list", SERVICE, ok=False).stdout)
        note(run("sluice", "stats", ok=False).stdout)
        raise


def doctor() -> list[dict[str, Any]]:
    """What the doctor finds that is not as it should be, but for what has to be so here."""
    done = run("sluice", "doctor", "-o", "json", ok=False)
    check(done.returncode in (0, 1) and done.stdout, f"sluice doctor: {done.stderr}")
    found = json.loads(done.stdout)["findings"]
    return [one for one in found if one["severity"] != "ok" and one["check"] not in UNTIED]
