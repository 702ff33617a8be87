"""Runs a module in a separate process: those that touch the kernel are not imported by the command itself."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Where the packages lie: an installed command has them where Python does not look by itself."""


def run_module(module: str, *words: str, captured: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Its exit code, and what it printed if that is captured."""
    return subprocess.run(
        [sys.executable, "-P", "-m", module, *words],
        stdout=subprocess.PIPE if captured else None,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
