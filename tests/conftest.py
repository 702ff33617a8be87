"""What all tests have in common.

Each program is compiled once, however many daemons and benches load it. Hypothesis tries the same cases in each run, so
that a gate which is passed here is passed elsewhere: `pytest --hypothesis-profile=default` draws new ones.
"""

import os
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("SLUICE_CACHE_DIR", str(Path(__file__).resolve().parents[1] / "build" / "compiled"))
settings.register_profile("gate", derandomize=True)
settings.load_profile("gate")
