#!/usr/bin/env python3
"""How fast is it? Measures programs, whole paths and the control plane beside their peers; `make bench`.

Writes bench.json, table.md and plots to netns-lab/results/, and prints the table.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import click
import httpx
import signals
from benchmarks import effort, plots, report, run, snapshot, world

from lb.errors import SluiceError

RESULTS = Path(__file__).resolve().parent / "results"
EFFORTS = {"tiny": effort.TINY, "quick": effort.QUICK, "full": effort.FULL}


_BEGIN = time.monotonic()


def say(text: str) -> None:
    """A line about what is going on, and after how many seconds; results go to stdout."""
    click.echo(f"{time.monotonic() - _BEGIN:4.0f} s  {text}", err=True)


def measure(name: str, wanted: frozenset[str]) -> report.Report:
    """Run it. SluiceError; what it made is gone whatever happens."""
    found = report.Report(name)
    with world.data_folder() as folder:
        run.Run(folder, EFFORTS[name], wanted, found, say).all()
    return found


@click.command()
@click.option("--effort", "how_much", type=click.Choice(list(EFFORTS)), default="quick", show_default=True)
@click.option(
    "--case",
    "names",
    multiple=True,
    type=click.Choice(run.NAMES),
    metavar="NAME",
    help="Measure only this case; repeat for more.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Where to write results."
)
@click.option(
    "--snapshot", "keep", is_flag=True, help="Measure nothing: put the last results into the README."
)
def main(how_much: str, names: tuple[str, ...], out: Path, keep: bool) -> None:
    """Measure Sluice beside its peers on this machine."""
    try:
        if keep:
            for path in snapshot.take(out):
                click.echo(path)
            return
        world.enter()
        signals.end_by_exit()
        found = measure(how_much, frozenset(names or run.NAMES))
    except (SluiceError, OSError, subprocess.CalledProcessError, httpx.HTTPError) as error:
        click.echo(f"bench.py: {error}", err=True)
        sys.exit(1)
    document = report.document(found, report.machine())
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "table.md").write_text(report.markdown(document))
    plots.draw(document, out)
    click.echo(report.table(document), nl=False)
    click.echo(f"\nAll of it in {found.seconds:.0f} s; results in {out}")


if __name__ == "__main__":
    main(prog_name="bench.py")
