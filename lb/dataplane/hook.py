"""One interface's XDP hook: a pinned link holds the program, so that it outlives the daemon and nobody replaces it.

PIN_ROOT/IF/link is the link, PIN_ROOT/IF/program always the program that is attached.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lb.dataplane import libbpf
from lb.dataplane.rtnetlink import Link
from lb.dataplane.sole import Sole
from lb.errors import DataPlaneError, ForeignProgramError, InterfaceError, LargeFramesError
from lb.settings import XdpMode

PROGRAM, FRESH = "program", "program-new"
"""The pins of the program that is attached, and of one that is about to be."""
PINS = (PROGRAM, "link")
"""The pin that exists while a program is attached."""


def pin_directory(interface: str, pin_root: Path) -> Path:
    """Where an interface's pins live. bpffs refuses dots; no interface's name has the colon that stands for one."""
    return pin_root / interface.replace(".", ":")


_FLAGS = {
    XdpMode.NATIVE: (libbpf.XDP_FLAGS_DRV_MODE,),
    XdpMode.GENERIC: (libbpf.XDP_FLAGS_SKB_MODE,),
    XdpMode.AUTO: (libbpf.XDP_FLAGS_DRV_MODE, libbpf.XDP_FLAGS_SKB_MODE),
}


class Hook:
    """The hook of one interface."""

    def __init__(self, interface: str, pin_root: Path) -> None:
        self.interface = interface
        self.directory = pin_directory(interface, pin_root)
        self._link_fd = -1
        self.reason = ""
        """Why the program runs in this mode, in a clause."""

    def adopt(self, link: Link) -> int | None:
        """Take over a link that an earlier run pinned; returns the ID of its program, None if there is none."""
        try:
            fd = libbpf.obj_get(self.directory / "link")
        except OSError:
            return None
        info = libbpf.link_info(fd)
        if info.ifindex != link.index:  # the interface it was for is gone
            os.close(fd)
            (self.directory / "link").unlink()
            return None
        self._link_fd = fd
        self.reason = "as an earlier run attached it"
        return info.program_id

    def put(
        self, program_fd: int, link: Link, mode: XdpMode, *, replace_foreign: bool, takes_large: bool
    ) -> None:
        """Attach the program, or swap it for the one that is there, and pin it. takes_large: frames in several buffers.

        ForeignProgramError: somebody else's program is attached. InterfaceError: the interface is gone.
        LargeFramesError: it may get frames that this program does not take; what was in force still is.
        """
        if self._link_fd >= 0 and mode is not XdpMode.AUTO and link.xdp_mode not in ("none", mode):
            # A link keeps the mode it was made with: for a moment there is no program.
            self.lost()
            link = replace(link, xdp_program_id=None)
        # What is attached is pinned at any moment, whenever this process may be killed.
        fresh = self.directory / FRESH
        fresh.unlink(missing_ok=True)
        libbpf.obj_pin(program_fd, fresh)
        try:
            if self._link_fd >= 0:
                self._swap(program_fd, takes_large=takes_large)
            else:
                self._attach(program_fd, link, mode, replace_foreign=replace_foreign, takes_large=takes_large)
        except BaseException:
            fresh.unlink()
            raise
        fresh.rename(self.directory / PROGRAM)

    def _swap(self, program_fd: int, *, takes_large: bool) -> None:
        try:
            libbpf.link_update(self._link_fd, program_fd)
        except OSError as error:
            self._check_size(error, takes_large)
            raise InterfaceError(
                f"the program on {self.interface} cannot be swapped: {error.strerror}"
            ) from error

    def _attach(
        self, program_fd: int, link: Link, mode: XdpMode, *, replace_foreign: bool, takes_large: bool
    ) -> None:
        if link.xdp_program_id:
            if not replace_foreign:
                raise ForeignProgramError(
                    f"{self.interface} already has an XDP program, {describe_program(link.xdp_program_id)}: detach it "
                    f"(ip link set dev {self.interface} xdp off), or start with --replace-foreign-program"
                )
            detach_foreign(link)
        error: OSError | None = None
        for flags in _FLAGS[mode]:
            try:
                self._link_fd = libbpf.link_create(program_fd, link.index, flags)
                self.reason = _reason(mode, flags, error)
                break
            except OSError as failure:
                self._check_size(failure, takes_large)
                error = failure
        else:
            if error and error.errno == errno.ENODEV:
                raise InterfaceError(f"interface {self.interface} is not there any more") from error
            hint = "try --xdp-mode auto" if mode is XdpMode.NATIVE else "look at the kernel's log"
            raise DataPlaneError(
                f"{self.interface} does not take the XDP program ({error}): {hint}"
            ) from error
        try:
            libbpf.obj_pin(self._link_fd, self.directory / "link")
        except OSError as failure:
            self.lost()  # what is not pinned would go with this process, unnoticed
            raise DataPlaneError(
                f"the program on {self.interface} cannot be pinned: {failure.strerror}"
            ) from failure

    def _check_size(self, error: OSError, takes_large: bool) -> None:
        """The answer of veth's driver where the other end of the cable may send more than lies in one buffer."""
        if error.errno == errno.ERANGE and not takes_large:
            raise LargeFramesError(
                f"{self.interface} may get larger frames than the program takes: lower the MTU of the cable's other end"
            ) from error

    def pins(self) -> tuple[str, ...]:
        """Those of its program and its link that are there."""
        return tuple(str(path) for name in PINS if (path := self.directory / name).exists())

    def lost(self) -> None:
        """Forget the link: the interface is gone, and the link with it."""
        if self._link_fd >= 0:
            os.close(self._link_fd)
            self._link_fd = -1
        (self.directory / "link").unlink(missing_ok=True)

    def is_alive(self, link: Link | None) -> bool:
        """Whether the link still holds a program on that interface."""
        return (
            link is not None and self._link_fd >= 0 and libbpf.link_info(self._link_fd).ifindex == link.index
        )

    def was_taken_off(self) -> bool:
        """Whether somebody has detached the link, which the kernel reports to nobody."""
        with contextlib.suppress(OSError):
            return self._link_fd >= 0 and not libbpf.link_info(self._link_fd).ifindex
        return False


def _reason(mode: XdpMode, flags: int, refused: OSError | None) -> str:
    if mode is not XdpMode.AUTO:
        return f"asked for by --xdp-mode {mode}"
    if flags == libbpf.XDP_FLAGS_DRV_MODE:
        return "its driver takes XDP programs"
    why = os.strerror(refused.errno) if refused and refused.errno else "it says no more"
    return f"its driver does not take this XDP program ({why})"


def describe_program(program_id: int) -> str:
    """A program in words that help a person to find it."""
    with contextlib.suppress(OSError):
        fd = libbpf.prog_by_id(program_id)
        try:
            return f'"{libbpf.prog_info(fd).name}" (id {program_id})'
        finally:
            os.close(fd)
    return f"id {program_id}"


def detach_foreign(link: Link) -> None:
    """Detach a program that was attached by netlink; DataPlaneError if somebody else's link holds it."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            ip.link("set", index=link.index, xdp_fd=-1)
    except NetlinkError as error:
        raise DataPlaneError(
            f"the XDP program on {link.name} is held by another process's link: end that process first"
        ) from error


def pinned_program(directory: Path) -> int:
    """A descriptor of the program that an interface has, or had when it went away. OSError: there is none."""
    attached = None
    with contextlib.suppress(OSError):
        link = libbpf.obj_get(directory / "link")
        try:
            attached = libbpf.link_info(link).program_id
        finally:
            os.close(link)
    with contextlib.suppress(OSError):
        fresh = libbpf.obj_get(directory / FRESH)  # who attached it was killed before it had its name
        if libbpf.prog_info(fresh).id == attached:
            return fresh
        os.close(fresh)
    return libbpf.obj_get(directory / PROGRAM)


def remove_other_maps(pins: Path, interfaces: Iterable[Path]) -> None:
    """Unpin all other maps, once the programs in force work on those pinned here. interfaces: where to look."""
    for directory in interfaces:
        for folder in directory.iterdir() if directory.is_dir() else ():
            if folder.is_dir() and folder != pins:
                for pin in folder.iterdir():
                    pin.unlink()
                folder.rmdir()


def remove_pins(interface: str, pin_root: Path) -> bool:
    """Detach, and remove every pin of an interface; whether there were any. DataPlaneError: a daemon works on them."""
    directory = pin_directory(interface, pin_root)
    if not directory.is_dir():
        return False
    with contextlib.closing(Sole({interface: directory})):
        _remove(directory)
    with contextlib.suppress(OSError):
        pin_root.rmdir()  # stays while other interfaces have pins
    return True


def _remove(directory: Path) -> None:
    for path in (directory / "link", directory / PROGRAM, directory / FRESH):
        path.unlink(missing_ok=True)
    for folder in sorted(directory.iterdir()):
        for pin in folder.iterdir():
            pin.unlink()
        folder.rmdir()
    directory.rmdir()
