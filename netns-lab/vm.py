#!/usr/bin/env python3
"""A real machine for Sluice: Debian's kernel and systemd in a virtual machine, with bonds, VLANs and `make install`.

`make vm` runs it. It prints a line for each fact that was seen, and exits 1 with the reason if one was not.
"""

import sys
import time

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import click
import signals
from virtual import boot, report
from virtual.boot import Machine, Shape
from virtual.chapters import chosen

from lb.errors import SluiceError

SILENCE_SECONDS = 900.0
"""No step of an emulated machine takes longer; most of that is a compiler's."""
CONSOLE_LINES = 30


def show(began: float, mark: str, text: str) -> None:
    """One line, and when it came."""
    print(f"{time.monotonic() - began:7.1f}  {mark:4}  {text}", flush=True)


def hear(machine: Machine, began: float, seconds: float, *, verbose: bool) -> bool:
    """Show what the machine says; whether it said to its end that all is well."""
    facts, ended = 0, False
    for line in machine.lines(SILENCE_SECONDS, began + seconds):
        kind, _, text = line.partition(" ")
        if kind == report.FACT:
            facts += 1
            show(began, "ok", text)
        elif kind == report.FAILURE:
            show(began, "FAIL", text)
        elif kind == report.END:
            ended = True
        elif verbose:
            show(began, "", text if kind == report.NOTE else line)
    show(began, "", f"{facts} facts seen" if ended else "the machine ended too early")
    return ended


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("chapters", nargs=-1)
@click.option("--cpus", default=2, show_default=True, help="CPUs of the machine.")
@click.option("--memory", default=3072, show_default=True, help="Its memory in MiB.")
@click.option(
    "--duration",
    default=3600.0,
    show_default=True,
    help="Seconds after which it is stopped, whatever it does.",
)
@click.option("--verbose", is_flag=True, help="Also show details, and on failure the console.")
def main(chapters: tuple[str, ...], cpus: int, memory: int, duration: float, verbose: bool) -> None:
    """Boot a virtual machine, install Sluice in it, and see what cannot be seen in a lab of namespaces.

    CHAPTERS of virtual/chapters.py, all unless named; installing and starting come first in any case.
    """
    signals.end_by_exit()
    began = time.monotonic()
    how = (
        "by the processor itself"
        if boot.is_accelerated()
        else "emulated, some ten times slower than a real one"
    )
    show(began, "", f"a machine of {cpus} CPUs and {memory} MiB, {how}")
    try:
        chapters_chosen = " ".join(chosen(list(chapters)))
        with boot.booted(Shape(cpus, memory), chapters_chosen) as machine:
            try:
                fine = hear(machine, began, duration, verbose=verbose)
            except TimeoutError as error:
                show(began, "FAIL", str(error))
                fine = False
            if not fine:
                print(machine.console(CONSOLE_LINES))
    except (SluiceError, ValueError, OSError) as error:
        click.echo(f"vm.py: {error}", err=True)
        sys.exit(1)
    sys.exit(not fine)


if __name__ == "__main__":
    main(prog_name="vm.py")
