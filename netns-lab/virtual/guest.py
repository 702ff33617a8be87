#!/usr/bin/env python3
"""Runs inside the machine, as a unit of its systemd, at each boot: sees what there is to see, and says so."""

import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from virtual import chapters, report
from virtual.network import FILES

DONE = FILES / "done"
"""The chapters that are over, by the line."""


def main(wanted: list[str]) -> None:
    """Go through the chapters that are left, until one of them boots the machine, or all are over."""
    FILES.mkdir(parents=True, exist_ok=True)
    done = DONE.read_text().split() if DONE.exists() else []
    for name in chapters.chosen(wanted):
        if name in done:
            continue
        with DONE.open("a") as file:
            file.write(f"{name}\n")
        began = time.monotonic()
        if chapters.CHAPTERS[name]() == chapters.REBOOTING:
            return
        report.note(f"{name} took {time.monotonic() - began:.0f} s")
    report.end()
    power_off()


def power_off() -> None:
    """And with it qemu, and whoever waits for it."""
    subprocess.run(["systemctl", "poweroff", "--force"], check=False)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BaseException as error:
        if not isinstance(error, report.NotSeenError):
            report.note(traceback.format_exc())
        report.failure(str(error) or repr(error))
        power_off()
