"""Boots Debian's kernel, with this machine's /usr and the checkout, in a virtual machine that has no network.

Nothing is left behind: its disk, its console's record and what it boots with have no names, and qemu dies with us.
"""

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rerun import CHECKOUT
from virtual import contents, debian
from virtual.compiled import compiled
from virtual.debian import CACHE, GIVEN

QEMU = "qemu-system-x86_64"
DISK_BYTES = 8 << 30
"""Of which what is written takes room."""
COMMAND_LINE = "console=ttyS0 loglevel=4 systemd.show_status=false"
EMULATED = ("-accel", "tcg,thread=multi", "-cpu", "Nehalem")
"""The least that NumPy's wheels run on: what is newer is emulated at length."""
VIRTUALISED = ("-accel", "kvm", "-cpu", "host")
VIRTUALISES = {"vmx", "svm"}
END_OF_CONSOLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the machine is."""

    cpus: int = 2
    memory_mib: int = 3072


def is_accelerated(cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = Path("/dev/kvm")) -> bool:
    """Whether this processor runs virtual machines itself; else it is emulated, which is some ten times slower."""
    flags = cpuinfo.read_text().partition("\nflags")[2].partition("\n")[0].split()
    # The device alone does not tell: a kernel without the processor's help takes only guests that were made for that.
    return bool(VIRTUALISES & set(flags)) and os.access(kvm, os.R_OK | os.W_OK)


class Machine:
    """A machine that runs."""

    def __init__(self, process: subprocess.Popen[bytes], console: IO[bytes]) -> None:
        self._process, self._console = process, console

    def lines(self, patience: float, deadline: float) -> Iterator[str]:
        """What it says until it is switched off. TimeoutError: nothing came for so many seconds, or it is too late.

        deadline: by time.monotonic().
        """
        assert self._process.stdout is not None
        stream, buffer = self._process.stdout.fileno(), b""
        while True:
            rest = min(patience, deadline - time.monotonic())
            if rest <= 0 or not select.select([stream], [], [], rest)[0]:
                raise TimeoutError(
                    "it takes too long" if rest < patience else f"it said nothing for {patience:.0f} s"
                )
            data = os.read(stream, 1 << 16)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            yield from (line.decode(errors="replace").rstrip("\r") for line in lines)

    def console(self, lines: int) -> str:
        """The end of what kernel, systemd and qemu have said."""
        start = max(0, os.fstat(self._console.fileno()).st_size - END_OF_CONSOLE)
        text = os.pread(self._console.fileno(), END_OF_CONSOLE, start).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


@contextlib.contextmanager
def booted(shape: Shape, job: str) -> Iterator[Machine]:
    """A machine, for as long as the context lasts. SetupError says what is missing."""
    kernel = debian.kernel()
    debian.wheels()
    if not is_accelerated():
        compiled(kernel)
    with (
        tempfile.TemporaryFile(dir=CACHE) as disk,
        tempfile.TemporaryFile(dir=CACHE) as archive,
        tempfile.TemporaryFile(dir=CACHE) as console,
    ):
        disk.truncate(DISK_BYTES)
        _make_file_system(disk)
        archive.write(contents.archive(kernel, job))
        archive.flush()
        shares = {"usr": Path("/usr"), "kernel": kernel.root, "checkout": CHECKOUT, "given": GIVEN}
        words = [QEMU, *(VIRTUALISED if is_accelerated() else EMULATED), *_devices(disk, console, shares)]
        words += ["-smp", str(shape.cpus), "-m", str(shape.memory_mib)]
        words += ["-kernel", str(kernel.image), "-initrd", _path(archive), "-append", COMMAND_LINE]
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *words],  # whatever ends us
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=console,
            pass_fds=[file.fileno() for file in (disk, archive, console)],
            start_new_session=True,  # Ctrl-C is for us
        )
        try:
            yield Machine(process, console)
        finally:
            process.kill()
            process.communicate()


def _devices(disk: IO[bytes], console: IO[bytes], shares: Mapping[str, Path]) -> list[str]:
    words = ["-nodefaults", "-nographic", "-nic", "none", "-monitor", "none"]
    words += ["-serial", f"file:{_path(console)}", "-serial", "stdio"]
    words += ["-drive", f"file={_path(disk)},format=raw,if=virtio,cache=unsafe"]
    for tag, path in shares.items():
        how = "security_model=none,readonly=on,multidevs=remap"
        words += ["-virtfs", f"local,path={path},mount_tag=host-{tag},{how}"]
    return words


def _path(file: IO[bytes]) -> str:
    return f"/proc/self/fd/{file.fileno()}"


def _make_file_system(disk: IO[bytes]) -> None:
    words = ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", _path(disk)]
    subprocess.run(words, pass_fds=[disk.fileno()], check=True, stdout=subprocess.DEVNULL)
