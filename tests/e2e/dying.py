"""The sluice command, killed at a point of its first change: `dying.py POINT -- WORDS`. Not part of the product."""

import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lb.dataplane.hook import Hook
from lb.reconcile import loop
from lb.reconcile.apply import ServiceMemory
from lb.reconcile.apply_lists import ListMemory
from lb.reconcile.keys import KeyTables
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore


def die_after(owner: type | ModuleType, name: str, *, before: bool = False) -> Callable[[], None]:
    """Kill the process as soon as a method, or a function of a module, was called (or right before)."""

    def install() -> None:
        real = getattr(owner, name)

        def call(*words: Any, **how: Any) -> Any:
            if before:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*words, **how)
            os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(owner, name, call)

    return install


POINTS = {
    "before-the-store": die_after(SqliteStore, "commit", before=True),
    "within-the-store": die_after(SqliteStore, "commit"),
    "after-the-store": die_after(loop, "keep"),
    "after-the-lists": die_after(ListMemory, "put"),
    "before-the-keys": die_after(KeyTables, "put", before=True),
    "after-the-services": die_after(ServiceMemory, "put"),
    "before-the-swap": die_after(Hook, "put", before=True),
    "before-the-answer": die_after(Reconciler, "_follow_bans"),
}
"""In the order in which a change meets them."""

if __name__ == "__main__":
    point, _, *words = sys.argv[1:]
    sys.argv = ["sluice", *words]
    from lb.cli.main import main

    # From the first change on: the start itself does all of this too.
    real_change = Reconciler.change

    def change(self: Reconciler, *words: Any, **how: Any) -> Any:
        POINTS[point]()
        return real_change(self, *words, **how)

    Reconciler.change = change  # type: ignore[method-assign]
    main()
