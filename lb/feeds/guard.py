"""What a refresh must not do: change too much at once, or block what must stay reachable. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lb.errors import FeedError
from lb.model import Action, Config, Feed, Prefix
from lb.model.address import AnyAddress, AnyVip
from lb.model.columns import KEY_TYPE, Column, Keys
from lb.model.layers import Layer
from lb.model.prefix import BITS

_WIDE = {4: 2, 6: 3}
"""A prefix as short as this is as good as the default route: 2000::/3 is all of the IPv6 internet."""
FEW_DECISIONS = 100
"""Where a decisions stream tells all it has: so many may come and go at once, for many have only a few."""
_SPACES = (
    ("10.0.0.0/8", "private address space (RFC 1918)"),
    ("172.16.0.0/12", "private address space (RFC 1918)"),
    ("192.168.0.0/16", "private address space (RFC 1918)"),
    ("127.0.0.0/8", "this machine itself"),
    ("fc00::/7", "private address space (RFC 4193)"),
    ("fe80::/10", "the addresses of neighbours on a link"),
    ("::1", "this machine itself"),
)


@dataclass(frozen=True, slots=True)
class Protected:
    """What no feed may block, and why: "backend 10.0.0.11 of service web"."""

    prefix: Prefix
    why: str


def check_change(feed: Feed, held: int, added: int, removed: int) -> None:
    """FeedError if a refresh adds or takes out more than the feed's share of the entries held; 0 held: a first one."""
    most = held * feed.max_change
    for number, does in ((added, "add"), (removed, "take out")):
        if held and number > most:
            raise FeedError(
                f"it would {does} {number} entries where {held} are held, over max_change ({feed.max_change:g}): "
                "check the list, then raise max_change"
            )


def check_protected(feed: Feed, layer: Layer, protected: Iterable[Protected]) -> None:
    """FeedError if an entry of the feed's would block the whole internet or what is protected, unless it may."""
    if feed.allow_protected or feed.action is Action.COUNT:
        return
    for found, why in blocked(layer, protected):
        raise FeedError(f"its entry {found} would block {why}: check the list, then set allow_protected")


def blocked(layer: Layer, protected: Iterable[Protected]) -> Iterator[tuple[Prefix, str]]:
    """Entries of a layer that hold a protected prefix or lie in one, with what they would block; one for each."""
    for family, column in layer.columns.items():
        for length in range(_WIDE[family] + 1):
            for network in range(1 << length):
                wide = Prefix(family, network << (BITS[family] - length), length)
                if column.find(wide.key) is not None:
                    yield wide, "as good as the whole internet"
    lengths = {family: _lengths(column.keys) for family, column in layer.columns.items()}
    for one in protected:
        family = one.prefix.family
        found = _touching(layer.columns[family], lengths[family], one.prefix)
        if found is not None:
            yield found, one.why


def _touching(column: Column, lengths: Sequence[int], prefix: Prefix) -> Prefix | None:
    """An entry that holds a prefix or lies in it, or None. lengths: those that entries have."""
    family, width = prefix.family, BITS[prefix.family]
    around = [
        Prefix(family, prefix.network >> (width - n) << (width - n), n).key
        for n in lengths
        if n <= prefix.length
    ]
    keys = np.array(around, KEY_TYPE[family])
    _, known = column.locate(keys)
    if known.any():
        return Prefix.from_key(keys[known][0].item())
    if prefix.length == width:
        return None
    last = Prefix(family, prefix.network | ((1 << (width - prefix.length)) - 1), width)
    ends = np.array([prefix.key, last.key], KEY_TYPE[family])
    start, stop = (
        np.searchsorted(column.keys, ends[0], "left"),
        np.searchsorted(column.keys, ends[1], "right"),
    )
    return Prefix.from_key(column.keys[start].item()) if start < stop else None


def _lengths(keys: Keys) -> list[int]:
    """The prefix lengths that keys of one family have, each once."""
    numbers = (
        keys & np.uint64(0xFF)  # type: ignore[operator]
        if keys.dtype == np.uint64
        else np.frombuffer(keys.tobytes(), np.uint8).reshape(-1, 17)[:, 16]
    )
    return [int(n) for n in np.unique(numbers)]


def protected_by(config: Config, now: float, more: Iterable[Protected] = ()) -> list[Protected]:
    """What is protected in a desired state, but for what the allowlist lets pass anyway; more: what else is."""
    found = list(more)
    backends: dict[Prefix, str] = {}
    for service in config.services.values():
        found.append(Protected(_prefix(service.vip), f'the VIP of service "{service.name}"'))
        for backend in service.backends:
            why = f'backend {backend.address} of service "{service.name}"'
            backends.setdefault(_prefix(backend.address), why)
    found += [Protected(prefix, why) for prefix, why in backends.items()]
    found += [Protected(Prefix.parse(text), why) for text, why in _SPACES]  # what is most telling comes first
    if not len(config.allowlist):
        return found
    return [one for one in found if next(config.allowlist.covering(one.prefix, now), None) is None]


def _prefix(address: AnyAddress | AnyVip) -> Prefix:
    return Prefix.parse(str(address))
