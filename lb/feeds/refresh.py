"""One refresh of one feed: fetch, parse, guard, and make it the blocklist's layer of that feed."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Protocol, TypeVar

from lb.errors import FeedError
from lb.feeds import guard
from lb.feeds.crowdsec import applied, parse_decisions, stream_url
from lb.feeds.fetch import Fetched, fetch, read_file, read_key
from lb.feeds.guard import Protected
from lb.feeds.memory import FeedState
from lb.feeds.parse import parse
from lb.feeds.waiting import apart
from lb.model import Config, Feed, FeedFormat
from lb.model.columns import Keys
from lb.model.delta import compare, settled
from lb.model.layers import Attributes, Layer

T = TypeVar("T")


class Desired(Protocol):
    """The desired state, as the reconciler shows it."""

    @property
    def config(self) -> Config:
        """What the newest revision says."""


class Keeper(Protocol):
    """The keeper of the desired state, which puts changes in force: the reconciler."""

    @property
    def desired(self) -> Desired:
        """The last acknowledged revision."""

    def change(self, edit: Callable[[Config], Config], *, actor: str, summary: str) -> object:
        """Edit the desired state; returns when it is in force."""

    def now(self) -> float:
        """Seconds since the epoch."""


READ_SECONDS = 30.0
"""Time limit for reading a file, in case its file system is dead."""
MoreProtected = Callable[[], Iterable[Protected]]


class SupersededError(Exception):
    """Raised when the feed was changed or removed during its refresh: the result is discarded."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a refresh: the state after it, how many entries were added and removed, and how many there are.

    layer: what was taken is now this. changed is False where the desired state stays the very same.
    """

    state: FeedState
    added: int = 0
    removed: int = 0
    total: int = 0
    changed: bool = False
    layer: Layer = field(default_factory=Layer)


def _unquoted(error: FeedError) -> FeedError:
    """Where it is wrong, without a word of the file: who may name it here may not be one who may read it."""
    where = re.match(r"(?:line|row) \d+", str(error))
    if where is None:
        return error
    return FeedError(
        f"{where.group()} does not hold a prefix, or the file is not a list: fix it, or name another"
    )


async def _in_time(call: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await apart(call)
    except TimeoutError:
        raise FeedError(
            f"it could not be read in {READ_SECONDS:.0f} s: see that its file system answers"
        ) from None


class Refresh:
    """What every refresh of a daemon uses; reading and changing are done one at a time."""

    def __init__(self, keeper: Keeper, protected: MoreProtected = tuple) -> None:
        self._keeper, self._protected = keeper, protected
        self._taking = asyncio.Lock()
        self._streams: dict[str, tuple[Feed, Layer]] = {}
        """Of CrowdSec feeds, what they were and held when the last answer was taken."""

    async def __call__(self, feed: Feed, state: FeedState) -> Outcome:
        """FeedError says why nothing was taken; other SluiceErrors as Reconciler.change; SupersededError."""
        if feed.format is FeedFormat.CROWDSEC:
            return await self._stream(feed, state)
        held = self._layer(feed).digest.hex()
        if feed.url is None:
            assert feed.file is not None
            found: Fetched | None = Fetched(await _in_time(partial(read_file, feed.file)))
        else:
            found = await fetch(feed.url, held=state.held(held), allow_private=feed.allow_private_url)
        if found is None:
            return self._unchanged(feed, state)
        content = blake2b(found.data, digest_size=16).hexdigest()
        state = replace(state, etag=found.validators.etag, last_modified=found.validators.last_modified)
        if (state.content, state.layer) == (content, held):
            return self._unchanged(feed, state)
        async with self._taking:
            outcome = await asyncio.to_thread(self._take, feed, state, found.data)
        return replace(outcome, state=replace(outcome.state, content=content))

    def _take(self, feed: Feed, state: FeedState, data: bytes) -> Outcome:
        try:
            keys = parse(data, feed.format)
        except FeedError as error:
            raise error if feed.file is None else _unquoted(error) from None
        said = Attributes(feed.action, feed.reason, round(self._keeper.now(), 3))
        want = Layer().with_keys(keys, said)

        def after(have: Layer) -> Layer:
            if len(have) and not len(want):
                raise FeedError("it holds no prefix at all: check the list, or remove the feed")
            return settled(have, want)

        return self._put(feed, state, want, after, free=0)

    async def _stream(self, feed: Feed, state: FeedState) -> Outcome:
        """CrowdSec reports what changed since the last request, so after any doubt everything is requested again."""
        assert feed.url is not None and feed.api_key_file is not None
        startup = not self._follows(feed, self._streams.pop(feed.name, None))
        found = await fetch(
            stream_url(feed.url, startup=startup),
            headers={"X-Api-Key": await _in_time(partial(read_key, feed.api_key_file))},
            allow_private=feed.allow_private_url,
            redirects=0,
        )
        assert found is not None
        async with self._taking:
            outcome = await asyncio.to_thread(self._decide, feed, state, found.data, startup)
        self._streams[feed.name] = feed, outcome.layer
        return outcome

    def _follows(self, feed: Feed, last: tuple[Feed, Layer] | None) -> bool:
        """Whether what is held is what the last answer made, but for what is over by now."""
        if last is None or last[0].fingerprint != feed.fingerprint:
            return False
        now = self._keeper.now()
        return last[1].without_expired(now) == self._layer(feed).without_expired(now)

    def _decide(self, feed: Feed, state: FeedState, data: bytes, startup: bool) -> Outcome:
        decisions = parse_decisions(data)
        now = self._keeper.now()
        new = Layer().with_keys(decisions.new_keys(), Attributes())

        def after(have: Layer) -> Layer:
            return applied(have, decisions, feed, now, whole=startup)

        state = replace(state, passed_over=decisions.passed_over)
        return self._put(feed, state, new, after, free=guard.FEW_DECISIONS if startup else None)

    def _put(
        self, feed: Feed, state: FeedState, new: Layer, after: Callable[[Layer], Layer], *, free: int | None
    ) -> Outcome:
        """Make the layer what after makes of the one held. new: entries that may block what is protected.

        free: so many may come and go whatever max_change says; None: any number, for each is said by itself.
        """
        outcome = Outcome(state)
        looked = self._keeper.desired.config
        self._check(feed, looked, new)

        def edit(config: Config) -> Config:
            nonlocal outcome
            if config.feeds.get(feed.name) != feed:
                raise SupersededError(feed.name)
            if config.services != looked.services or config.allowlist != looked.allowlist:
                self._check(feed, config, new)
            now = self._keeper.now()
            stored = config.blocklist.layer(feed.owner)
            have = stored.without_expired(now)
            want = after(have)
            delta = compare(have, want)
            added, removed = _count(delta.added), _count(delta.gone)
            if free is not None and max(added, removed) > free and state.last_success_at is not None:
                guard.check_change(feed, len(have), added, removed)
            if not delta:
                want = stored  # what is over goes with the next change
            after_it = replace(state, layer=want.digest.hex())
            outcome = Outcome(after_it, added, removed, want.count(now), bool(delta), want)
            if not delta:
                return config
            return replace(config, blocklist=config.blocklist.with_layer(feed.owner, want))

        self._keeper.change(edit, actor=feed.owner, summary=f"feed {feed.name} refreshed")
        return outcome

    def _check(self, feed: Feed, config: Config, new: Layer) -> None:
        guard.check_protected(feed, new, guard.protected_by(config, self._keeper.now(), self._protected()))

    def _unchanged(self, feed: Feed, state: FeedState) -> Outcome:
        return Outcome(state, total=self._layer(feed).count(self._keeper.now()))

    def _layer(self, feed: Feed) -> Layer:
        return self._keeper.desired.config.blocklist.layer(feed.owner)


def _count(keys: Mapping[int, Keys]) -> int:
    return sum(map(len, keys.values()))
