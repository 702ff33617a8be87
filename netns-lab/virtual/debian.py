"""Debian's kernel, its modules and headers, and what the first steps of a boot need: unpacked, never installed.

What is fetched lies in CACHE and may be deleted at any time.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rerun import CHECKOUT

from lb.errors import SetupError

CACHE = Path("/var/cache/sluice/machine")
GIVEN = CACHE / "given"
"""What the machine is given beside the checkout."""
METAPACKAGE = "linux-image-amd64"
_VERSION = re.compile(r"^ *Depends: linux-image-(\S+-amd64)", re.MULTILINE)


class Kernel:
    """One version of the kernel, unpacked. root: what a root directory would get of its packages."""

    def __init__(self, version: str, root: Path) -> None:
        self.version, self.root = version, root

    @property
    def image(self) -> Path:
        """What a boot loader starts."""
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        """Where its modules are."""
        return self.root / "usr" / "lib" / "modules" / self.version

    @property
    def busybox(self) -> Path:
        """A shell that needs no libraries."""
        return self.root / "usr" / "bin" / "busybox"


def kernel() -> Kernel:
    """The newest that this Debian's archive has; fetched if it is not here yet. SetupError says what is missing."""
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = os.open(CACHE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        version = _newest()
        found = Kernel(version, CACHE / version)
        if not found.root.exists():
            _fetch(found)
        return found
    finally:
        os.close(folder)


def _newest() -> str:
    shown = _run(["apt-cache", "depends", METAPACKAGE])
    named = _VERSION.search(shown)
    if named is None:
        raise SetupError(
            f"apt knows no {METAPACKAGE}: a virtual machine needs Debian's archive; try apt-get update"
        )
    return named[1]


def _fetch(found: Kernel) -> None:
    """Fetch and unpack beside, and put it in place whole; others go."""
    for left in CACHE.iterdir():
        if left != GIVEN:
            shutil.rmtree(left)
    common = re.sub(r"-amd64$", "-common", found.version)
    names = [
        f"linux-image-{found.version}",
        f"linux-headers-{found.version}",
        f"linux-headers-{common}",
        "busybox-static",
    ]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".fetch-") as work:
        fresh = Path(work) / "root"
        fresh.mkdir(mode=0o755)
        # As root apt changes to a user that may not write here.
        _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names], cwd=Path(work))
        for package in Path(work).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(fresh)])
        _merge_usr(fresh)
        fresh.rename(found.root)


def _merge_usr(root: Path) -> None:
    """/lib and /bin become part of /usr, as on every system of today."""
    for name in ("lib", "bin"):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)


def _run(words: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SetupError(
            f"there is no {words[0]} here: the virtual machine is made of Debian's packages"
        ) from error
    if done.returncode:
        raise SetupError(f"{' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout


def wheels() -> None:
    """What `make install` takes from the package index, for a machine that has no network. SetupError."""
    folder = GIVEN / "wheels"
    stamp = folder / "stamp"
    wanted = "".join((CHECKOUT / name).read_text() for name in ("pyproject.toml", "deploy/constraints.txt"))
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pip = [str(CHECKOUT / ".venv" / "bin" / "pip"), "--disable-pip-version-check", "-q", "download"]
        # The checkout itself is not wanted, but pip knows no other way to ask for what it needs.
        _run(
            [*pip, "--no-build-isolation", "-c", "deploy/constraints.txt", "-d", str(folder), "."],
            cwd=CHECKOUT,
        )
        stamp.write_text(wanted)
