"""The audit: a line for every write and every refusal, kept before its answer is sent."""

import logging
from collections.abc import Callable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from api.access.limits import Buckets
from lb.errors import StoreError
from lb.store.access import AccessStore, AuditRecord

REFUSALS_PER_SECOND = 20.0
REFUSALS_AT_ONCE = 500.0
"""Limit of refusal lines: those of a flood are only counted, and the next line has their number."""
TEXT_MAX = 500
log = logging.getLogger("sluice.audit")


class Audit:
    """Writes lines. failed is called when one could not be stored."""

    def __init__(
        self,
        store: AccessStore,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        failed: Callable[[str], None],
    ) -> None:
        self._store, self._clock, self._failed = store, clock, failed
        self._buckets = Buckets(monotonic)
        self._left_out = 0
        self._is_failing = False

    async def line(self, **said: object) -> None:
        """Write a line with the present time; a refusal in a flood of them is only counted."""
        status = int(str(said["status"]))
        is_refusal = status >= 400
        if is_refusal and self._buckets.take("refusals", REFUSALS_PER_SECOND, REFUSALS_AT_ONCE):
            self._left_out += 1
            return
        texts = {name: one_line(value) if isinstance(value, str) else value for name, value in said.items()}
        if self._left_out and is_refusal:
            texts["detail"] = (
                f"{texts.get('detail') or ''} (and {self._left_out} refusals before, left out)".strip()
            )
            self._left_out = 0
        await run_in_threadpool(self._keep, AuditRecord(time=self._clock(), **texts))  # type: ignore[arg-type]

    def _keep(self, record: AuditRecord) -> None:
        try:
            self._store.record(record)
            self._is_failing = False
        except StoreError as error:
            if not self._is_failing:
                self._failed(f"the audit cannot be written, and the API goes on: {error}")
            self._is_failing = True

    def close(self) -> None:
        """Write how many were left out last."""
        if self._left_out:
            with suppress(StoreError):
                self._store.record(
                    AuditRecord(
                        *(self._clock(), "sluice", None, "daemon", "-", "-", 429),
                        detail=f"{self._left_out} refusals before, left out",
                    )
                )


def one_line(text: str) -> str:
    """Safe to print, and not too long."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= TEXT_MAX else shown[: TEXT_MAX - 1] + "…"
