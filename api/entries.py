"""Changes of a prefix list as the API makes them: pure, from one list to the next, with counts of what changed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lb.errors import ConflictError, NotFoundError
from lb.model import Config, Prefix, PrefixList
from lb.model.delta import compare, settled
from lb.model.layers import Layer
from lb.model.owner import EVERYONE, FEED_PREFIX, RULE_PREFIX


@dataclass(frozen=True, slots=True)
class Outcome:
    """A changed list, and how many entries of the owner were added, altered, removed and are there now."""

    result: PrefixList
    added: int
    replaced: int
    removed: int
    total: int


def put(present: PrefixList, owner: str, new: Layer, now: float) -> Outcome:
    """Add entries to an owner's layer.

    One that is there takes what the new one says; a TTL starts anew. One that has no TTL and says the same is
    left as it is, so that repeating a request changes nothing.
    """
    have = present.layer(owner).without_expired(now)
    timed = np.array([a.ttl_seconds is not None for a in new.attributes], bool)
    after = have.united(settled(have, _where(new, ~timed))).united(_where(new, timed))
    return _outcome(present, owner, have, after)


def replace_layer(present: PrefixList, owner: str, new: Layer, now: float) -> Outcome:
    """Make these an owner's whole layer; one that asks for the same keeps its age and deadline."""
    have = present.layer(owner).without_expired(now)
    return _outcome(present, owner, have, settled(have, new))


def take(present: PrefixList, prefix: Prefix, owner: str, now: float, name: str) -> PrefixList:
    """Remove one prefix from an owner's layer, or from all of them for "*".

    NotFoundError if nobody holds it; ConflictError if others do: only an owner changes its layer.
    """
    entry = present.get(prefix, now)
    if entry is None:
        raise NotFoundError(f'{prefix} is not on the {name}: "sluice {name} list" shows what is there')
    if owner == EVERYONE:
        layers = {name: layer.without([prefix]) for name, layer in present.layers.items()}
        return PrefixList({name: layer for name, layer in layers.items() if len(layer)})
    if owner not in entry.owners:
        raise ConflictError(
            f"{prefix} is on the {name} by {', '.join(entry.owners)}, not by {owner}: "
            f"name the owner (--owner, ?owner={entry.owners[0]}), or all of them (--all-owners, ?owner=*)"
        )
    return present.with_layer(owner, present.layer(owner).without([prefix]))


def is_declared_feed(config: Config, owner: str) -> bool:
    """Whether an owner is a feed that writes its entries by itself."""
    return owner.startswith(FEED_PREFIX) and owner.removeprefix(FEED_PREFIX) in config.feeds


def refuse_foreign(config: Config, owner: str, *, removes: bool = False) -> None:
    """ConflictError for the layer of what writes its entries by itself: a declared feed, a rule.

    removes: what a rule has put in may be taken out by anybody.
    """
    if is_declared_feed(config, owner):
        raise ConflictError(
            f"the entries of {owner} come from its source, and would come back: allowlist the prefix, "
            "or remove the feed"
        )
    if owner.startswith(RULE_PREFIX) and not removes:
        raise ConflictError(f"the entries of {owner} are made by the rule itself: leave the owner out")


def cleared(config: Config, present: PrefixList, owner: str) -> PrefixList:
    """Without an owner's layer; for "*" without any but those of declared feeds, which would be back."""
    if owner != EVERYONE:
        return present.with_layer(owner, Layer())
    return PrefixList({n: layer for n, layer in present.layers.items() if is_declared_feed(config, n)})


def put_all(present: PrefixList, layers: Mapping[str, Layer], now: float, *, whole: bool) -> Outcome:
    """Add entries to layers by owner, or make them these whole layers. The figures are those of all of them."""
    outcomes = []
    for owner, layer in layers.items():
        outcomes.append((replace_layer if whole else put)(present, owner, layer, now))
        present = outcomes[-1].result
    figures = ((o.added, o.replaced, o.removed, o.total) for o in outcomes)
    return Outcome(present, *(sum(column) for column in zip(*figures, strict=True)))


def _outcome(present: PrefixList, owner: str, have: Layer, after: Layer) -> Outcome:
    delta = compare(have, after)
    added, altered, gone = (sum(map(len, part.values())) for part in (delta.added, delta.altered, delta.gone))
    return Outcome(present.with_layer(owner, after), added, altered, gone, len(after))


def _where(layer: Layer, attributes: npt.NDArray[np.bool_]) -> Layer:
    """The entries of a layer whose attributes are marked."""
    columns = {f: c.where(attributes[c.ids]) for f, c in layer.columns.items()}
    return Layer(columns, layer.attributes)
