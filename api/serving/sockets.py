"""Opens the sockets of the API, before anything else is touched: two daemons must not share one data plane."""

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from api.access.identity import LOOPBACK, TLS, UNIX
from lb.errors import SetupError

MODE, MODE_FOR_ALL = 0o660, 0o666


@dataclass(frozen=True, slots=True)
class Listening:
    """One open socket. kind: unix, loopback or tls."""

    kind: str
    socket: socket.socket

    def __str__(self) -> str:
        name = self.socket.getsockname()
        if self.kind == UNIX:
            return f"unix://{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{'https' if self.kind == TLS else 'http'}://{host}:{name[1]}"


@contextlib.contextmanager
def listening(path: Path, group: str | None, listen: str | None, *, tls: bool) -> Iterator[list[Listening]]:
    """The unix socket, and the TCP socket if an address is given; SetupError says which cannot be, and why.

    They listen from the start, so that a daemon that is still starting does not look dead. Early callers wait.
    """
    if tls and not listen:
        raise SetupError("--tls-cert is for TCP, but no address is given: also give --listen ADDRESS:PORT")
    gid = _group(group)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{path.parent} cannot be created ({error.strerror}): create it, or give another --socket"
        ) from error
    _remove_stale(path)
    opened = [Listening(UNIX, socket.socket(socket.AF_UNIX))]
    own: os.stat_result | None = None
    try:
        own = _bind(opened[0].socket, path)
        _give(path, gid)
        if listen:
            opened.append(_tcp(listen, tls=tls))
        for each in opened:
            _listen(each)
        yield opened
    finally:
        for each in opened:
            each.socket.close()
        with contextlib.suppress(FileNotFoundError):
            if own is not None and os.path.samestat(own, path.lstat()):
                path.unlink()


def _listen(opened: Listening) -> None:
    try:
        opened.socket.listen()
    except OSError as error:  # as long as nobody listens, several may bind to a port
        raise SetupError(f"cannot listen on {opened} ({error}): give another --listen") from error


def gone(path: Path) -> Callable[[], str | None]:
    """Says, whenever it is called, if a socket that is listened on now is no longer what its path leads to."""
    own = path.lstat()

    def problem() -> str | None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(own, path.lstat()):
                return None
        return f"the socket {path} was removed, and nobody can connect to it: restart the daemon"

    return problem


def admit(path: Path, *, everyone: bool) -> None:
    """Whether the kernel lets only the owner and the group connect, or everyone, of whom the API then refuses some."""
    with contextlib.suppress(FileNotFoundError):
        path.chmod(MODE_FOR_ALL if everyone else MODE, follow_symlinks=True)


def _group(name: str | None) -> int:
    if name is None:
        return os.getegid()
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise SetupError(
            f"--socket-group {name}: there is no such group; create it with groupadd --system {name}"
        ) from None


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed daemon left; nothing else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SetupError(f"{path} exists, and is not a socket: give another --socket, or remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise SetupError(f"another sluice serves {path}: stop it, or choose another --socket")
    path.unlink()


def _bind(unbound: socket.socket, path: Path) -> os.stat_result:
    """What the path leads to once it is bound."""
    before = os.umask(0o177)  # from the very first moment nobody else may connect
    try:
        unbound.bind(str(path))
    except OSError as error:
        raise SetupError(
            f"cannot listen on {path} ({error.strerror or error}): give another --socket"
        ) from error
    finally:
        os.umask(before)
    return path.lstat()


def _give(path: Path, gid: int) -> None:
    try:
        if gid != path.stat().st_gid:
            os.chown(path, -1, gid)
    except OSError as error:
        raise SetupError(
            f"{path} cannot be given to group {gid} ({error.strerror}): be a member of it, or leave --socket-group out"
        ) from error
    path.chmod(MODE)


def _tcp(listen: str, *, tls: bool) -> Listening:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = None
    try:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        if listener is not None:
            listener.close()
        raise SetupError(f"cannot listen on {listen} ({error}): write --listen ADDRESS:PORT") from error
    if tls:
        return Listening(TLS, listener)
    address = str(listener.getsockname()[0])
    if not (address == "::1" or address.startswith("127.")):
        listener.close()
        raise SetupError(
            f"--listen {listen} is not a loopback address, and without TLS only loopback is served: "
            "give --tls-cert and --tls-key"
        )
    return Listening(LOOPBACK, listener)
