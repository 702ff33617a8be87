"""Finds the kernel headers that bcc compiles against, or merges them.

bcc looks in /lib/modules/$(uname -r). Custom and cloud kernels have nothing there, but headers of another
kernel do as well: an XDP program uses only the stable interface. Debian ships them as two trees, -common
and -<arch>, and bcc takes one directory, so `merge` joins the two by symbolic links.

Standard library only: deploy/setup.sh runs this file before there is a venv.

    python -m lb.dataplane.headers          print the headers bcc will use (exit 1: there are none)
    python -m lb.dataplane.headers merge    join the newest trees in /usr/src, print the result
"""

import contextlib
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

MODULES = Path("/lib/modules")
SOURCES = Path("/usr/src")
MERGED = Path("/var/cache/sluice/kernel-headers")

# The first is in Debian's -common tree and the second in its -<arch> tree; bcc needs both.
COMMON_FILE = Path("include/linux/kconfig.h")
ARCH_FILE = Path("include/generated/autoconf.h")
MERGED_FOLDERS = ("arch", "include")


def find(release: str | None = None, *, modules: Path = MODULES, merged: Path = MERGED) -> Path | None:
    """Return the headers to compile against, or None when there are none."""
    chosen = os.environ.get("BCC_KERNEL_SOURCE")
    if chosen and Path(chosen).is_dir():
        return Path(chosen)
    installed = modules / (release or os.uname().release) / "build"
    if is_usable(installed):
        return installed
    return merged if is_complete(merged) else None


def is_usable(tree: Path) -> bool:
    """Say whether bcc can compile against it, or against it and the tree called `source` beside it.

    Debian's build directory is the -<arch> tree; bcc itself adds the -common one, from there.
    """
    common = (tree, tree.with_name("source"))
    return (tree / ARCH_FILE).is_file() and any((each / COMMON_FILE).is_file() for each in common)


def use() -> Path | None:
    """Find the headers and tell bcc of them through BCC_KERNEL_SOURCE. Call before the first compile."""
    headers = find()
    if headers and headers == MODULES / os.uname().release / "build":
        os.environ.pop("BCC_KERNEL_SOURCE", None)  # bcc finds this one, and the -common tree, by itself
    elif headers:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    return headers


def is_complete(tree: Path) -> bool:
    """Say whether bcc can compile against this directory alone. A dangling link counts as missing."""
    return (tree / COMMON_FILE).is_file() and (tree / ARCH_FILE).is_file()


def installed_trees(sources: Path = SOURCES) -> list[Path] | None:
    """Return the newest header trees that are complete together, the -<arch> tree first."""
    for tree in sorted(sources.glob("linux-headers-*"), key=_version, reverse=True):
        if is_complete(tree):  # Ubuntu: links into the common tree are already there
            return [tree]
        if (tree / ARCH_FILE).is_file():
            for common in _common_names(tree.name):
                if (sources / common / COMMON_FILE).is_file():
                    return [tree, sources / common]
    return None


def merge(trees: Sequence[Path], target: Path = MERGED) -> Path:
    """Join header trees by symbolic links into `target`, replacing it whole. The first tree wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent):
        for leftover in target.parent.glob(f".{target.name}.*"):  # of a run that was killed
            shutil.rmtree(leftover)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fresh = work / "new"
        for folder in MERGED_FOLDERS:
            _link([tree / folder for tree in trees if (tree / folder).is_dir()], fresh / folder)
        if not is_complete(fresh):
            shutil.rmtree(work)
            raise ValueError(f"not a complete set of kernel headers: {', '.join(map(str, trees))}")
        for path in (work, fresh):
            path.chmod(0o755)
        if target.exists():
            target.rename(work / "old")
        fresh.rename(target)
        shutil.rmtree(work)
    return target


def _link(sources: list[Path], target: Path) -> None:
    """Fill `target`: what one source has becomes a link, a directory several have is joined in turn."""
    target.mkdir(parents=True)
    entries: dict[str, list[Path]] = {}
    for source in sources:
        for entry in source.iterdir():
            entries.setdefault(entry.name, []).append(entry)
    for name, found in entries.items():
        if len(found) > 1 and all(entry.is_dir() for entry in found):
            _link(found, target / name)
        else:
            (target / name).symlink_to(found[0].resolve())


def _version(tree: Path) -> list[tuple[int, str]]:
    """Sort key: linux-headers-6.1.0-9-amd64 comes before linux-headers-6.1.0-10-amd64."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", tree.name)]


def _common_names(name: str) -> Iterator[str]:
    """Candidates for the -common tree: that of 6.1.0-9-cloud-amd64 is called 6.1.0-9-common."""
    stem, _, flavour = name.rpartition("-")
    while stem not in ("", "linux-headers", "linux"):
        yield f"{stem}-common"
        stem, _, flavour = stem.rpartition("-")
        yield f"{stem}-common-{flavour}"  # the rt kernel's name for it


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Run the command line described at the top."""
    if arguments not in ([], ["merge"]):
        print("usage: headers.py [merge]", file=sys.stderr)
        return 2
    headers = find()
    if arguments:
        trees = installed_trees()
        headers = merge(trees) if trees else None
    if headers is None:
        print(
            "no usable kernel headers; install linux-headers for this or any recent kernel", file=sys.stderr
        )
        return 1
    print(headers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
