"""The BPF file system, in which pins live: mounts it if necessary."""

import ctypes
import os
from pathlib import Path

from lb.dataplane.host_facts import is_bpffs
from lb.errors import DataPlaneError, SetupError


def ensure_bpffs(path: Path) -> None:
    """Mount bpffs if it is not. SetupError if that is refused; DataPlaneError if something else is mounted there."""
    if is_bpffs(path):
        return
    mount = ctypes.CDLL(None, use_errno=True).mount
    if mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700") != 0:
        error = os.strerror(ctypes.get_errno())
        raise SetupError(f"bpffs is not mounted at {path} ({error}): run, as root, mount -t bpf bpf {path}")
    if not is_bpffs(path):
        raise DataPlaneError(f"{path} is not a bpf file system: unmount what is there")
