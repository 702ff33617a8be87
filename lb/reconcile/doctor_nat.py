"""The doctor's facts about mode nat: whether replies come back, and who has the pool's addresses. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, Arrays
from lb.doctor.facts import InterfaceFacts, PoolFacts
from lb.model.address import AnyAddress
from lb.reconcile.nat_flows import blocks_in_use, entries
from lb.settings import NAT_BLOCK

_SYN = np.uint64(layout().constants["NAT_SYN"])
_TCP = 6
SETTLED_SECONDS, LATELY_SECONDS = 2, 300
"""How old a connection must be for an answer to have come, and how old it may be to tell anything."""


@dataclass(frozen=True)
class NatReplies:
    """Connections of mode nat over TCP, of the last minutes, a column each."""

    block: Array
    service: Array
    place: Array
    age: Array
    is_answered: Array

    @classmethod
    def of(cls, arrays: Arrays, now_s: int) -> "NatReplies":
        """As they are now."""
        some = entries(arrays, blocks_in_use(arrays))
        age = some.age(now_s)
        at = np.flatnonzero((some.protocol == _TCP) & (age <= LATELY_SECONDS) & (some.forward != 0))
        answered = some.reply & _SYN != 0
        return cls(some.slots[at] // NAT_BLOCK, some.service[at], some.place[at], age[at], answered[at])

    def heard(self, service: int, place: int) -> tuple[int, int]:
        """Of a backend, those whose reply came back; and those, later than all of these, whose has not."""
        return self._counted((self.service == service) & (self.place == place))

    def of_block(self, block: int) -> tuple[int, int]:
        """Of an address of the pool, likewise."""
        return self._counted(self.block == block)

    def _counted(self, mine: Array) -> tuple[int, int]:
        answered = self.age[mine & self.is_answered]
        since = int(answered.min()) if len(answered) else LATELY_SECONDS + 1
        waiting = mine & ~self.is_answered & (self.age >= SETTLED_SECONDS) & (self.age < since)
        return len(answered), int(np.count_nonzero(waiting))


def pools(
    addresses: Sequence[tuple[AnyAddress, int]], replies: NatReplies, interfaces: Sequence[InterfaceFacts]
) -> Iterator[PoolFacts]:
    """Each address of the pool, which come with their blocks."""
    for address, block in addresses:
        answered, unanswered = replies.of_block(block)
        owner = next((one for one in interfaces if _has(one, address)), None)
        near = (one.name for one in interfaces if one.served and _reaches(one, address))
        yield PoolFacts(
            str(address),
            on_link=next(near, None),
            local=owner.name if owner else None,
            local_is_served=owner is not None and owner.served,
            answered=answered,
            unanswered=unanswered,
        )


def _has(interface: InterfaceFacts, address: AnyAddress) -> bool:
    return any(ip_interface(own).ip == address for own in interface.addresses)


def _reaches(interface: InterfaceFacts, address: AnyAddress) -> bool:
    return any(ip_address(address) in ip_interface(own).network for own in interface.addresses)
