"""Runs a script again under the checkout's own Python, so that it can be called outside the venv."""

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def in_venv() -> None:
    """Return at once in the venv; else start over in it. SystemExit if it is not there yet."""
    venv = CHECKOUT / ".venv"
    if Path(sys.prefix).resolve() == venv.resolve():
        return
    python = venv / "bin" / "python"
    if not python.exists():
        raise SystemExit("There is no .venv yet: run `make setup` in the checkout first.")
    os.execv(python, [str(python), *sys.argv])
