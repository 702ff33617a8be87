"""Whom the blocklist would keep out, the longest prefix deciding, and whom the allowlist lets in."""

from collections.abc import Mapping

from lb.model import Action, Config, Prefix, PrefixList
from lb.model.prefix import BITS


class Lists:
    """Both lists of one desired state, as they are at a moment (seconds since the epoch)."""

    def __init__(self, config: Config, now: float) -> None:
        self._deny, self._allow = _actions(config.blocklist, now), _actions(config.allowlist, now)

    def denies(self, source: bytes) -> bool:
        """Whether the blocklist would drop packets of this packed address."""
        return _longest(self._deny, source) is Action.DROP

    def allows(self, source: bytes) -> bool:
        """Whether the allowlist holds it."""
        return _longest(self._allow, source) is not None


Actions = Mapping[tuple[int, int], Mapping[int, Action]]
"""By family and length, the longest first; then by the network's leading bits."""


def _actions(entries: PrefixList, now: float) -> Actions:
    by_length: dict[tuple[int, int], dict[int, Action]] = {}
    last: Prefix | None = None
    while page := entries.page(now, last):
        for entry in page:
            prefix = last = entry.prefix
            bits = prefix.network >> (BITS[prefix.family] - prefix.length)
            by_length.setdefault((prefix.family, prefix.length), {})[bits] = entry.attributes.action
    return dict(sorted(by_length.items(), reverse=True))


def _longest(actions: Actions, address: bytes) -> Action | None:
    family = 4 if len(address) == 4 else 6
    number = int.from_bytes(address, "big")
    for (of, length), networks in actions.items():
        if of == family and (action := networks.get(number >> (BITS[family] - length))) is not None:
            return action
    return None
