"""The pinned ring buffer `samples`, read record by record through libbpf; and the twin's queue in its place."""

import ctypes
import os
import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.layout import layout
from lb.dataplane.tables import Array

PIN = "samples"
QUEUE_BYTES = 1 << 20
READ_MOST = 4096
"""Records of one read: more than the queue holds."""
RECORD = layout().structs["sample"]
"""The dtype of struct sample."""


class SampleQueue(Protocol):
    """What packets hand to the control plane. One reader."""

    def read(self, seconds: float) -> Array:
        """The records that are there, shape (N,), struct sample; if there are none, wait for so long at most."""

    def close(self) -> None:
        """Let go; what is in the queue stays there."""


class RingBuffer:
    """A SampleQueue over a pinned ring buffer. OSError if it is not there, or cannot be mapped."""

    def __init__(self, path: Path) -> None:
        self._records: list[bytes] = []
        self._callback = libbpf.RING_CALLBACK(self._take)
        self._fd = libbpf.obj_get(path)
        try:
            self._ring = libbpf.ring_open(self._fd, self._callback)
        except OSError:
            os.close(self._fd)
            raise

    def _take(self, _context: int | None, address: int, size: int) -> int:
        if size >= RECORD.itemsize:
            self._records.append(ctypes.string_at(address, RECORD.itemsize))
        return -1 if len(self._records) >= READ_MOST else 0

    def read(self, seconds: float) -> Array:
        """See SampleQueue."""
        libbpf.ring_read(self._ring, seconds)
        records, self._records = self._records, []
        return np.frombuffer(b"".join(records), RECORD)

    def close(self) -> None:
        """See SampleQueue."""
        libbpf.ring_close(self._ring)
        os.close(self._fd)


class TwinQueue:
    """A SampleQueue in memory: tests put in what packets would."""

    def __init__(self) -> None:
        self._records: list[Array] = []
        self._changed = threading.Condition()

    def put(self, rows: Array) -> None:
        """Records, shape (N,)."""
        with self._changed:
            self._records.append(rows)
            self._changed.notify_all()

    def read(self, seconds: float) -> Array:
        """See SampleQueue."""
        with self._changed:
            self._changed.wait_for(lambda: self._records, seconds)
            records, self._records = self._records, []
        return np.concatenate([np.zeros(0, RECORD), *records])

    def close(self) -> None:
        """Nothing to let go of."""
