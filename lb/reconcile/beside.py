"""Work that takes seconds (compiling) on a thread of its own, one at a time; the caller does not wait."""

import logging
import threading
from collections.abc import Callable

from lb.dataplane.protocol import ProgramWish
from lb.errors import SluiceError

log = logging.getLogger("sluice.reconcile")


class LacksError(Exception):
    """A change needs what is not compiled yet: nobody should wait for that with the writer's lock held."""

    def __init__(self, wish: ProgramWish) -> None:
        super().__init__(wish)
        self.wish = wish


class Beside:
    """Runs `work` when asked to, unless it is running. failed: is told in a sentence why it could not be done."""

    def __init__(self, work: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._work, self._failed = work, failed
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Start it, if it does not run."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except SluiceError as error:
            self._failed(str(error))
        except Exception:  # it will be asked again
            log.exception("work beside the loop failed")

    def wait(self) -> None:
        """Return when it does not run."""
        if self._thread is not None:
            self._thread.join()
