"""The composition root: the one place that wires store, data plane, reconciler and API. start → run → stop."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from api.access.control import control_of
from api.app import create_app
from api.serving.server import ApiServer
from api.serving.sockets import admit, gone, listening
from api.serving.tls import Certificates, TlsFiles, keep_looking
from lb import __version__, logs
from lb.dataplane.hook import remove_pins
from lb.dataplane.kernel import KernelDataPlane
from lb.dataplane.probe_path import remove as remove_probe_path
from lb.dataplane.rights import check_rights
from lb.errors import InvalidError, NotFoundError, SetupError, StoreError
from lb.events import Events, first_of_run
from lb.feeds.guard import Protected
from lb.feeds.schedule import Feeds
from lb.health.checker import Checker
from lb.health.dial import Way
from lb.model import Config
from lb.model.document import parse
from lb.notify import Notifier, keep_told
from lb.reconcile.desired import Desired
from lb.reconcile.guard import Guard
from lb.reconcile.loop import Reconciler
from lb.settings import ServeSettings
from lb.store import RevisionInfo, SqliteStore
from lb.store.access import AccessStore
from lb.store.backup import LastGood
from lb.store.recover import offering
from lb.store.recover import recover as recover_state
from lb.store.secret import secret

log = logging.getLogger("sluice")

STATE_FILE = "state.db"
ACCESS_FILE = "access.db"
FEEDS_FILE = "feeds.json"
HEALTH_FILE = "health.json"
FLOW_KEY = "flow.key"
"""The secret that the flow table's tags are made with; also the name of its systemd credential."""


def run(settings: ServeSettings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. What is attached stays attached and forwarding.

    Raises SluiceError if the machine, the state file or an interface does not allow a start.
    """
    logs.set_up(settings.log_format, settings.log_level)
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload during the start must not end us
    check_rights(settings.pin_root)
    files = TlsFiles.of(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    events = Events(first_of_run())
    events.listen(logs.log_event)
    certificates = Certificates(files, warn=partial(_warn, events)) if files else None
    with (
        listening(settings.socket, settings.socket_group, settings.listen, tls=files is not None) as opened,
        contextlib.ExitStack() as stack,
    ):
        state = settings.state_dir / STATE_FILE
        with offering(state):
            store = SqliteStore(state)
        stack.callback(store.close)
        tokens = AccessStore(settings.state_dir / ACCESS_FILE)
        stack.callback(tokens.close)
        where = ", ".join(settings.interfaces)
        events.publish("daemon.starting", f"Sluice {__version__} starts on {where}", version=__version__)
        dataplane = KernelDataPlane(settings, secret(settings.state_dir, FLOW_KEY, 16), events)
        stack.callback(dataplane.close)
        with offering(state, store.close):
            reconciler = Reconciler(store, dataplane, events=events)
        checker = Checker(
            events=events,
            path=settings.state_dir / HEALTH_FILE,
            data_path=CheckPath(reconciler),
            passive=reconciler.passive_counts,
        )
        reconciler.use_health(checker.book.standing_of, checker.book.reports)
        reconciler.add_readiness_checks(tokens.problem, gone(settings.socket))
        reconciler.start()
        stack.callback(reconciler.stop)
        if settings.config is not None and reconciler.desired.revision == 0:
            _apply_first(reconciler, settings.config)
        keeper = FeedKeeper(reconciler)
        feeds = Feeds(keeper, path=settings.state_dir / FEEDS_FILE, protected=keeper.protected, events=events)
        feeds.start()
        stack.callback(feeds.stop)
        reconciler.listen(feeds.wake, lambda config: config.feeds)
        copies = _last_good(state, store, reconciler)
        copies.start()
        stack.callback(copies.stop)
        reconciler.listen(copies.note)
        checker.start(reconciler.desired.config.services.values(), reconciler)
        stack.callback(checker.stop)
        reconciler.listen(
            lambda: checker.follow(reconciler.desired.config.services.values()),
            lambda config: config.services,
        )
        access = control_of(reconciler, tokens, socket_group=settings.socket.stat().st_gid)
        stack.callback(access.audit.close)
        _follow_grants(reconciler, settings.socket)

        def ready() -> None:
            where = ", ".join(map(str, opened))
            events.publish("daemon.ready", f"ready: {where}", version=__version__)

        app = create_app(reconciler, feeds, checker, access)
        server = ApiServer(app, opened, certificates, ready=ready)
        asyncio.run(_serve(server, reconciler, certificates))
    return 0


def _warn(events: Events, text: str) -> None:
    events.publish("tls.expiring", text, level="warning")


def _follow_grants(reconciler: Reconciler, path: Path) -> None:
    """If the settings give roles on the unix socket, the kernel must let everyone in; the API refuses the others."""

    def follow() -> None:
        admit(path, everyone=bool(reconciler.desired.config.settings.access.unix))

    follow()
    reconciler.listen(follow, lambda config: config.settings)


def _last_good(state: Path, store: SqliteStore, reconciler: Reconciler) -> LastGood:
    """The keeper of a copy of the newest revision beside the state file."""

    def newest() -> tuple[RevisionInfo, Config] | None:
        desired = reconciler.desired
        if reconciler.history.pending is not None:  # it may be rolled back
            return None
        lines = store.revisions(1, before=desired.revision + 1)
        return (lines[0], desired.config) if lines and lines[0].revision == desired.revision else None

    def failed(text: str) -> None:
        reconciler.events.publish("failure", text, level="warning")

    return LastGood(state, newest, failed)


def recover(state_dir: Path) -> tuple[str, Path]:
    """Repair a damaged state file; returns the recovered revision in words, and where the damaged file is kept."""
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
    """The reconciler as feeds see it: only their own guard checks what they may not block."""

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
        """What a feed may not block, beside what it knows from the desired state."""
        return [Protected(one.prefix, f"{one.address}, {one.role}") for one in self._reconciler.in_use()]


def _apply_first(reconciler: Reconciler, path: Path) -> None:
    """Fill an empty store from the configuration file; later changes come by `sluice apply`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidError.one("", f"{path} cannot be read ({error.strerror}): see --config") from error
    reconciler.change(
        lambda config: parse(text, now=reconciler.now(), have=config),
        actor="config",
        summary=f"first start, {path.name}",
    )


async def _serve(server: ApiServer, reconciler: Reconciler, certificates: Certificates | None) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True
        reconciler.events.close()  # followers would keep the server from ending
        reconciler.events.publish("daemon.stopping", "the program stays attached and goes on forwarding")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, partial(_reload, reconciler.events, certificates))
    notifier = Notifier()
    tasks = [asyncio.create_task(keep_told(notifier, reconciler.readiness, reconciler.serving))]
    if certificates is not None:
        tasks.append(asyncio.create_task(keep_looking(certificates)))
    await server.serve()
    for task in tasks:
        task.cancel()
    notifier.stopping()


def _reload(events: Events, certificates: Certificates | None) -> None:
    """SIGHUP: reload the certificates; if something is wrong with them, report it and keep those in use."""
    if certificates is None:
        return
    try:
        certificates.reload()
    except SetupError as error:
        events.publish("tls.failed", f"the previous certificate stays in use: {error}", level="error")
    else:
        events.publish("tls.reloaded", "the certificate was reloaded")


def detach(interface: str, pin_root: Path) -> None:
    """Detach the program from an interface and remove its pins. NotFoundError if there are none.

    DataPlaneError: a daemon serves it.
    """
    try:
        found = remove_pins(interface, pin_root)
        remove_probe_path()
    except OSError as error:
        raise StoreError(f"the pins of {interface} cannot be removed ({error}): run it as root") from error
    if not found:
        raise NotFoundError(
            f"nothing of sluice is attached to {interface}: there is no {pin_root / interface}"
        )
