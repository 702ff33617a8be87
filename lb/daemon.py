"""The composition root: the one place that wires store, data plane, reconciler and API. start → run → stop."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from api.app import create_app
from api.protocol import ProblemProtocol
from lb import __version__, logs
from lb.dataplane.hook import remove_pins
from lb.dataplane.kernel import KernelDataPlane
from lb.dataplane.probe_path import remove as remove_probe_path
from lb.errors import InvalidError, NotFoundError, SetupError, StoreError
from lb.events import Events, first_of_run
from lb.feeds.guard import Protected
from lb.feeds.schedule import Feeds
from lb.health.checker import Checker
from lb.health.dial import Way
from lb.model import Config
from lb.model.document import parse
from lb.reconcile.desired import Desired
from lb.reconcile.guard import Guard
from lb.reconcile.loop import Reconciler
from lb.settings import ServeSettings
from lb.store import RevisionInfo, SqliteStore
from lb.store.backup import LastGood
from lb.store.recover import offering
from lb.store.recover import recover as recover_state
from lb.store.secret import secret

log = logging.getLogger("sluice")

STATE_FILE = "state.db"
FEEDS_FILE = "feeds.json"
HEALTH_FILE = "health.json"
FLOW_KEY = "flow.key"
"""The secret that the flow table's tags are made with; also the name of its systemd credential."""


class _PeerProtocol(ProblemProtocol):
    """Hands the app who is at the other end of the unix socket (SO_PEERCRED), in scope["sluice.peer"]."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        peer = None
        if connection is not None and connection.family == socket.AF_UNIX:
            pid, uid, gid = struct.unpack(
                "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )
            peer = {"pid": pid, "uid": uid, "gid": gid}
        app = self.app

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope["sluice.peer"] = peer
            await app(scope, receive, send)

        self.app = with_peer


def run(settings: ServeSettings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. What is attached stays attached and forwarding.

    Raises SluiceError where the machine, the state file or an interface does not allow to start.
    """
    logs.set_up(settings.log_format, settings.log_level)
    if os.geteuid() != 0 and not os.access(settings.pin_root.parent, os.W_OK):
        raise SetupError(
            "sluice serve needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a writable bpffs: run it as root"
        )
    with _listening(settings) as sockets, contextlib.ExitStack() as stack:
        settings.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        state = settings.state_dir / STATE_FILE
        with offering(state):
            store = SqliteStore(state)
        stack.callback(store.close)
        events = Events(first_of_run())
        events.listen(logs.log_event)
        dataplane = KernelDataPlane(settings, secret(settings.state_dir, FLOW_KEY, 16), events)
        stack.callback(dataplane.close)
        with offering(state, store.close):
            reconciler = Reconciler(store, dataplane, events=events)
        checker = Checker(
            events=events, path=settings.state_dir / HEALTH_FILE, data_path=CheckPath(reconciler)
        )
        reconciler.heed(checker.book.standing_of, checker.book.reports)
        reconciler.start()
        stack.callback(reconciler.stop)
        if settings.config is not None and reconciler.desired.revision == 0:
            _apply_first(reconciler, settings.config)
        keeper = FeedKeeper(reconciler)
        feeds = Feeds(keeper, path=settings.state_dir / FEEDS_FILE, protected=keeper.protected, events=events)
        feeds.start()
        stack.callback(feeds.stop)
        reconciler.listen(feeds.wake)
        copies = _last_good(state, store, reconciler)
        copies.start()
        stack.callback(copies.stop)
        reconciler.listen(copies.note)
        checker.start(reconciler.desired.config.services.values(), reconciler)
        stack.callback(checker.stop)
        reconciler.listen(lambda: checker.follow(reconciler.desired.config.services.values()))
        asyncio.run(_serve(reconciler, feeds, checker, sockets))
    return 0


def _last_good(state: Path, store: SqliteStore, reconciler: Reconciler) -> LastGood:
    """Who keeps a copy of the newest revision beside the state file."""

    def newest() -> tuple[RevisionInfo, Config] | None:
        desired = reconciler.desired
        lines = store.revisions(1, before=desired.revision + 1)
        return (lines[0], desired.config) if lines and lines[0].revision == desired.revision else None

    def failed(text: str) -> None:
        reconciler.events.publish("failure", text, level="warning")

    return LastGood(state, newest, failed)


def recover(state_dir: Path) -> tuple[str, Path]:
    """Mend a damaged state file: the revision that is in its place now, in words, and where the damaged one is kept."""
    found, aside = recover_state(state_dir / STATE_FILE)
    return str(found), aside


class CheckPath:
    """The data path as checks see it."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def way(self, service: str, backend: bytes, family: int) -> Way:
        """See DataPath."""
        return Way(*self._reconciler.probe_way(service, backend, family))


class FeedKeeper:
    """The reconciler as feeds see it: what they may not block is checked by their own guard, and so by theirs alone."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self.now = reconciler.now

    @property
    def desired(self) -> Desired:
        """The last acknowledged revision."""
        return self._reconciler.desired

    def change(self, edit: Callable[[Config], Config], *, actor: str, summary: str) -> Desired:
        """As Reconciler.change."""
        return self._reconciler.change(edit, actor=actor, summary=summary, guard=Guard(force=True))

    def protected(self) -> list[Protected]:
        """What a feed may not block, beside what the desired state tells it."""
        return [Protected(one.prefix, f"{one.address}, {one.role}") for one in self._reconciler.in_use()]


def _apply_first(reconciler: Reconciler, path: Path) -> None:
    """The configuration file fills an empty store; later it is `sluice apply` that changes it."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidError.one("", f"{path} cannot be read ({error.strerror}): see --config") from error
    reconciler.change(
        lambda config: parse(text, now=reconciler.now(), have=config),
        actor="config",
        summary=f"first start, {path.name}",
    )


async def _serve(
    reconciler: Reconciler, feeds: Feeds, checker: Checker, sockets: list[socket.socket]
) -> None:
    config = uvicorn.Config(
        create_app(reconciler, feeds, checker),
        http=_PeerProtocol,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    # uvicorn's own handlers raise the signal again after shutdown; here it is the normal end.
    loop = asyncio.get_running_loop()
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

    def stop() -> None:
        server.should_exit = True
        reconciler.events.close()  # whoever follows would hold the server up
        reconciler.events.publish("daemon.stopping", "the program stays attached and goes on forwarding")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    listening = ", ".join(str(s.getsockname()) for s in sockets)
    reconciler.events.publish("daemon.ready", f"ready: {listening}", version=__version__)
    await server.serve(sockets=sockets)


@contextlib.contextmanager
def _listening(settings: ServeSettings) -> Iterator[list[socket.socket]]:
    """The sockets, opened before anything is touched: two daemons must not share one data plane."""
    path = settings.socket
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise SetupError(f"another sluice serves {path}: stop it, or choose another --socket")
        path.unlink()
    sockets = [socket.socket(socket.AF_UNIX)]
    try:
        sockets[0].bind(str(path))
        path.chmod(0o660)
        if settings.listen:
            sockets.append(_tcp_socket(settings.listen))
        yield sockets
    finally:
        for each in sockets:
            each.close()
        path.unlink(missing_ok=True)


def _tcp_socket(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise SetupError(f"cannot listen on {listen} ({error}): write --listen ADDRESS:PORT") from error
    if not _is_loopback(listener):
        listener.close()
        raise SetupError(
            f"--listen {listen} is not a loopback address: without TLS and tokens only loopback is served"
        )
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    address = str(listener.getsockname()[0])
    return address == "::1" or address.startswith("127.")


def detach(interface: str, pin_root: Path) -> None:
    """Take the program off an interface and remove its pins. NotFoundError if there are none."""
    try:
        remove_probe_path()
        found = remove_pins(interface, pin_root)
    except OSError as error:
        raise StoreError(f"the pins of {interface} cannot be removed ({error}): run it as root") from error
    if not found:
        raise NotFoundError(
            f"nothing of sluice is attached to {interface}: there is no {pin_root / interface}"
        )
