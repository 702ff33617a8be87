"""Another version of Sluice, whose structs and maps are others: what an upgrade comes from, or leads to."""

import shutil
import subprocess
import sys
from pathlib import Path

from rerun import CHECKOUT

LAYOUT = (
    (
        "xdp/types.h",
        "\t__u32 backends; /* as in struct service */\n\t__u32 room;\n",
        "\t__u32 room;\n\t__u32 backends;\n",
    ),
    (
        "xdp/nat_types.h",
        "\t__u16 service; /* number */\n\t__u16 place;   /* within the service */\n",
        "\t__u16 place;   /* within the service */\n\t__u16 service; /* number */\n",
    ),
    (
        "xdp/maps.h",
        "/* Limits and guards. */",
        'MAP("array", u32, struct budget, spare, MEMORY);',
    ),
    ("lb/dataplane/tables.py", '        "watching": 2,\n', '        "watching": 2,\n        "spare": 8,\n'),
    ("lb/reconcile/apply.py", "plan.start, plan.room\n", "plan.room, plan.start\n"),
)
"""What it has otherwise: file, what stands here, and what stands there."""


def another_version(folder: Path) -> Path:
    """A copy of the sources that has it otherwise."""
    left_out = shutil.ignore_patterns("__pycache__", "output", "results")
    for name in ("lb", "api", "xdp", "tests", "netns-lab"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=left_out)
    for name, ours, theirs in LAYOUT:
        text = (folder / name).read_text()
        assert text.count(ours) == 1, name
        (folder / name).write_text(text.replace(ours, theirs))
    # The known frames' state is bytes of these structs.
    subprocess.run([sys.executable, folder / "tests" / "known_answers.py"], check=True)
    return folder
