"""What a kernel boots with before it has a root file system: an archive of a few files, in cpio's format "newc".

The format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Entry = tuple[int, bytes]
"""A file's mode (stat.S_IF* and permissions), and its content or where it leads."""
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_TRAILER = "TRAILER!!!"


def archive(files: Mapping[str, Entry]) -> bytes:
    """The archive. files: by path, without a slash in front; folders before what is in them."""
    entries = [
        _entry(number, name, mode, data) for number, (name, (mode, data)) in enumerate(files.items(), 1)
    ]
    return b"".join([*entries, _entry(0, _TRAILER, 0, b"")])


def tree(folder: Path, under: str) -> Iterator[tuple[str, Entry]]:
    """Entries for a folder and all in it."""
    yield under, (stat.S_IFDIR | 0o755, b"")
    for path in sorted(folder.iterdir()):
        name = f"{under}/{path.name}"
        if path.is_symlink():
            yield name, (stat.S_IFLNK | 0o777, os.fsencode(path.readlink()))
        elif path.is_dir():
            yield from tree(path, name)
        else:
            yield name, (stat.S_IFREG | path.stat().st_mode & 0o777, path.read_bytes())


def _entry(inode: int, name: str, mode: int, data: bytes) -> bytes:
    path = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(head + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def in_order(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """Modules and what they depend on, as they have to be loaded; one that is built in has no file, and is left out."""
    files = {path.stem.replace("-", "_"): path for path in modules.rglob("*.ko")}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or name in ordered:
            return
        for needed in dependencies(path.read_bytes()):
            add(needed)
        ordered[name] = path

    for name in wanted:
        add(name)
    return list(ordered.values())


def dependencies(module: bytes) -> list[str]:
    """The names of the modules that a module's file says it needs."""
    found = _DEPENDS.search(module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []
