"""A daemon's feeds at work: the reconciler over the twin, a server on loopback, and a clock that is set by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from feed_server import FeedServer

from lb.daemon import FeedKeeper
from lb.dataplane.twin import TwinDataPlane
from lb.events import Event, Events
from lb.feeds.guard import Protected
from lb.feeds.memory import FeedState
from lb.feeds.schedule import Feeds
from lb.model import Config, Feed, Prefix
from lb.model.layers import Attributes
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore

START = 1_900_000_000.0
FOUR = b"203.0.113.1\n203.0.113.2\n203.0.113.3\n203.0.113.4\n"
HOUR = 3600


class House:
    """A daemon's reconciler and feeds; what is restarted takes up the store and the file of states."""

    def __init__(self, folder: Path, server: FeedServer) -> None:
        self.folder, self.server = folder, server
        self.now = START
        self.events = Events(clock=lambda: self.now)
        self.store = SqliteStore(folder / "state.db")
        self.twin = TwinDataPlane()
        self.more: list[Protected] = []
        self.draw = 0.0
        self.begin()

    def begin(self) -> None:
        """Start it."""
        self.reconciler = Reconciler(self.store, self.twin, clock=lambda: self.now)
        self.reconciler.start()
        keeper = FeedKeeper(self.reconciler)
        self.feeds = Feeds(
            keeper,
            path=self.folder / "feeds.json",
            events=self.events,
            protected=lambda: [*self.more, *keeper.protected()],
            draw=lambda: self.draw,
        )
        self.reconciler.listen(self.feeds.wake)
        self.feeds.start()

    def end(self) -> None:
        """Stop it."""
        self.feeds.stop()
        self.reconciler.stop()

    def restart(self) -> None:
        """Stop it, and start another over the same store and file."""
        self.end()
        self.begin()

    def add(self, name: str = "drop", **said: Any) -> Event:
        """Put a feed of the server's list, and wait for what its refresh comes to."""
        where = {} if "file" in said else {"url": self.server.url(), "allow_private_url": True}
        feed = Feed.model_validate({"name": name, **where, **said})
        return self.after(lambda: self.edit(lambda c: c.with_feeds({**c.feeds, name: feed})), name)

    def edit(self, edit: Callable[[Config], Config]) -> None:
        """Change the desired state."""
        self.reconciler.change(edit, actor="test", summary="")

    def refresh(self, name: str = "drop") -> Event:
        """Refresh a feed by hand, and wait for what it comes to."""
        return self.after(lambda: self.feeds.refresh(name), name)

    def advance(self, seconds: float, name: str = "drop") -> Event:
        """Let time pass, and wait for what a refresh then comes to."""

        def later() -> None:
            self.now += seconds
            self.feeds.wake()

        return self.after(later, name)

    def after(self, act: Callable[[], object], name: str) -> Event:
        """What is told of a feed after that, and once it is remembered."""
        last = max((event.id for event in self.events.since(0)), default=0)
        before = self.state(name)
        act()
        while True:
            found = self.events.wait(last, 10)
            assert found, "nothing is told of any feed"
            for event in found:
                last = event.id
                if event.facts["feed"] == name:
                    assert self.state(name) != before
                    return event

    def state(self, name: str = "drop") -> FeedState:
        """What is seen of a feed."""
        return self.feeds.state(name)

    def entries(self, name: str = "drop") -> dict[str, Attributes]:
        """What a feed has on the blocklist."""
        layer = self.reconciler.desired.config.blocklist.layer(f"feed:{name}").without_expired(self.now)
        keys = [key for column in layer.columns.values() for key in column.keys.tolist()]
        return {str(p): said for p in map(Prefix.from_key, keys) if (said := layer.get(p)) is not None}

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self.reconciler.desired.revision
