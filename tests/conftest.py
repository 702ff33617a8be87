"""What all tests have in common: each program is compiled once, however many daemons and benches load it."""

import os
from pathlib import Path

os.environ.setdefault("SLUICE_CACHE_DIR", str(Path(__file__).resolve().parents[1] / "build" / "compiled"))
