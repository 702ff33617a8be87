"""The lab that all tests of a run share. Its name holds the pid: two runs do not meet, and a killed one is found."""

import os
from collections.abc import Callable
from typing import Any

import leftovers

NAME = f"{leftovers.LAB}{os.getpid()}"
"""Names of further labs of the run begin with it."""
AddService = Callable[..., dict[str, Any]]
"""What the fixture `add_service` gives."""
