"""The next hops of all backends, as far as they are known."""

from collections.abc import Mapping

from lb.dataplane.protocol import DataPlane, NextHop
from lb.events import Events
from lb.model import Config
from lb.reconcile.explained import address_text

TOLD_MOST = 100
"""Next hops that change at once, and have an event each; of the others one says how many."""


class Hops:
    """Asks the data plane for ways, and remembers them."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane
        self._known: dict[bytes, NextHop] = {}
        self._missing: set[bytes] = set()
        self.interfaces: set[str] = set()
        """Those that the ways lead out of."""

    @property
    def known(self) -> Mapping[bytes, NextHop]:
        """By packed address; another object once any of them is another."""
        return self._known

    def are_unknown(self, config: Config, before: Config) -> bool:
        """Whether services that differ have backends to which nobody has asked for a way."""
        return not _addresses(config, before) <= self._known.keys() | self._missing

    def learn(self, config: Config, before: Config) -> bool:
        """Ask for the ways to backends of services that differ, if they are not known.

        Whether one was found that other services have been missing.
        """
        unknown = _addresses(config, before) - self._known.keys()
        found = self._dataplane.next_hops(unknown) if unknown else {}
        late = not self._missing.isdisjoint(found)
        if found:
            self._known = {**self._known, **found}
        self._missing = (self._missing | unknown) - found.keys()
        self.interfaces |= {hop.interface for hop in found.values()}
        return late

    def refresh(self, config: Config) -> bool:
        """Ask for all of them again. Whether anything changed."""
        wanted = _addresses(config, None)
        found = dict(self._dataplane.next_hops(wanted))
        changed = found != self._known
        self._known, self._missing = found, wanted - found.keys()
        self.interfaces = {hop.interface for hop in found.values()}
        return changed


def _addresses(config: Config, before: Config | None) -> set[bytes]:
    """Of the backends of all services, or of those that are not the same in another config."""
    return {
        backend.address.packed
        for name, service in config.services.items()
        if before is None or before.services.get(name) is not service
        for backend in service.backends
    }


def tell_hops(events: Events, before: Mapping[bytes, NextHop], after: Mapping[bytes, NextHop]) -> None:
    """An event for each backend whose next hop has become known, or is known no more."""
    had, has = ({a for a, hop in hops.items() if hop.mac is not None} for hops in (before, after))
    changes = [(address, True) for address in sorted(has - had)]
    changes += [(address, False) for address in sorted(had - has)]
    for address, resolved in changes[:TOLD_MOST]:
        name = address_text(address)
        hop = after.get(address)
        if resolved and hop is not None and hop.mac is not None:
            text = f"the next hop of {name} is {hop.mac.hex(':')} on {hop.interface}"
            events.publish("hop.resolved", text, address=name, mac=hop.mac.hex(":"), interface=hop.interface)
        else:
            events.publish("hop.lost", f"the next hop of {name} is not known", level="warning", address=name)
    if len(changes) > TOLD_MOST:
        rest = changes[TOLD_MOST:]
        lost = sum(not resolved for _, resolved in rest)
        events.publish(
            "hop.lost" if lost else "hop.resolved",
            f"{len(rest)} more next hops have changed, {lost} of them are no longer known",
            level="warning" if lost else "info",
            changed=len(rest),
            lost=lost,
        )
