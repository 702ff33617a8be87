#!/usr/bin/env python3
"""The fault campaign: kills, swaps, drains, floods, cut cables, drawn from a seed, under load that checks each answer.

`make chaos DURATION=600 SEED=1` runs it. It ends with figures, and exits 1 if a request failed that no killed backend
accounts for, a flow went elsewhere, or the daemon forgot what it had acknowledged; then it names the seed and the step.
"""

import sys

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import click
import signals
from campaign.run import Campaign

from lb.errors import SluiceError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--duration", default=600.0, show_default=True, help="Seconds.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random faults.")
@click.option(
    "--name", default="chaos", show_default=True, help="Name of the lab; one of that name is replaced."
)
def main(duration: float, seed: int, name: str) -> None:
    """Break everything around a balancer under load, and see that nobody notices."""
    signals.end_by_exit()
    campaign = Campaign(name, seed, lambda text: print(text, flush=True))
    try:
        fine = campaign.run(duration)
    except (SluiceError, OSError) as error:
        click.echo(f"chaos.py: {error}", err=True)
        sys.exit(1)
    print(campaign.verdict())
    sys.exit(not fine)


if __name__ == "__main__":
    main(prog_name="chaos.py")
