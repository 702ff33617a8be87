"""Changes of a prefix list as the API makes them: pure, from one list to the next and what that changed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lb.errors import ConflictError, NotFoundError
from lb.model import Prefix, PrefixList
from lb.model.delta import compare, settled
from lb.model.layers import Layer


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
    """Remove one prefix from an owner's layer.

    NotFoundError if nobody holds it; ConflictError if others do: only an owner changes its layer.
    """
    entry = present.get(prefix, now)
    if entry is None:
        raise NotFoundError(f'{prefix} is not on the {name}: "sluice {name} list" shows what is')
    if owner not in entry.owners:
        raise ConflictError(
            f"{prefix} is on the {name} by {', '.join(entry.owners)}, not by {owner}: "
            f"name the owner (?owner={entry.owners[0]}), or see that it leaves the prefix out"
        )
    return present.with_layer(owner, present.layer(owner).without([prefix]))


def cleared(present: PrefixList, owner: str) -> PrefixList:
    """Without an owner's layer; without any for "*"."""
    return PrefixList() if owner == "*" else present.with_layer(owner, Layer())


def _outcome(present: PrefixList, owner: str, have: Layer, after: Layer) -> Outcome:
    delta = compare(have, after)
    added, altered, gone = (sum(map(len, part.values())) for part in (delta.added, delta.altered, delta.gone))
    return Outcome(present.with_layer(owner, after), added, altered, gone, len(after))


def _where(layer: Layer, attributes: npt.NDArray[np.bool_]) -> Layer:
    """The entries of a layer whose attributes are marked."""
    columns = {f: c.where(attributes[c.ids]) for f, c in layer.columns.items()}
    return Layer(columns, layer.attributes)
