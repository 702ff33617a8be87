"""What all tests have in common.

Each program is compiled once, however many daemons and benches load it. Hypothesis tries the same cases in each run, so
that a gate which is passed here is passed elsewhere: `pytest --hypothesis-profile=default` draws new ones.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("SLUICE_CACHE_DIR", str(Path(__file__).resolve().parents[1] / "build" / "compiled"))
settings.register_profile("gate", derandomize=True)
settings.load_profile("gate")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Workers that were interrupted twice have left what they had: their namespaces and pins go with the run."""
    if os.geteuid() == 0 and config.getoption("numprocesses", None):
        import leftovers

        leftovers.clear()
