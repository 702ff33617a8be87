"""Sampled packets with names for their numbers: entry, rule, service and backend."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lb.dataplane.layout import Verdict, layout
from lb.dataplane.protocol import InterfaceState
from lb.dataplane.tables import Array
from lb.errors import ConflictError
from lb.model import Config, Entry, Prefix
from lb.reconcile import explain
from lb.reconcile.explained import address_text
from lb.reconcile.maps import Plans

NONE = layout().constants["NONE"]
_BYTES = layout().constants["SAMPLE_BYTES"]
_ADDRESS_BYTES = {4: 4, 6: 16}
_COLUMNS = (
    *("time_ns", "verdict", "entry", "rule", "service", "place"),
    *("ifindex", "frame_length", "captured", "family"),
)
_REMEMBERED = 10_000
"""Entries that were looked for, by number and source."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet. time_ns: since the epoch; entry: the blocklist's for its source; length: of the frame as it came.

    source: its sender; of an ICMP error about a flow the address that the quoted packet was for, a client or a backend.
    data: the first bytes of the frame as it left (forwarded: with its outer header).
    """

    time_ns: int
    verdict: Verdict
    source: str | None
    entry: Entry | None
    rule: str | None
    service: str | None
    backend: str | None
    interface: str | None
    length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which packets: of a service, from a prefix; None: all."""

    service: str | None = None
    prefix: Prefix | None = None


class Naming:
    """What numbers mean, at one moment; what has gone since a packet was seen has no name."""

    def __init__(
        self,
        config: Config,
        plans: Plans,
        interfaces: Iterable[InterfaceState],
        verdicts: Iterable[Verdict],
    ) -> None:
        self._config, self._deny, self._rules = config, plans.deny, plans.rules.by_number
        self._verdicts = {v.number: v for v in verdicts}
        self._services = {plan.number: plan for plan in plans.services.by_name.values()}
        self._interfaces = {state.index: state.name for state in interfaces}
        self._entries: dict[tuple[int, bytes], Entry | None] = {}

    def seen(self, rows: Array, wall_ns: int, wanted: Wanted = Wanted()) -> Iterator[Seen]:
        """Records (struct sample) in words, those wanted. wall_ns: the epoch's clock less the monotonic one."""
        # Thousands of records come at once: a column is taken apart in one call, not a member of a row by itself.
        sources, data = (np.ascontiguousarray(rows[name]).tobytes() for name in ("source", "bytes"))
        columns = zip(*(rows[name].tolist() for name in _COLUMNS), strict=True)
        for at, (time_ns, verdict, entry, number, service_number, place, ifindex, *rest) in enumerate(
            columns
        ):
            length, captured, family = rest
            source = sources[16 * at : 16 * at + _ADDRESS_BYTES.get(family, 0)]
            if wanted.prefix is not None and not _holds(wanted.prefix, source):
                continue
            service, backend = self._service(service_number, place)
            if wanted.service is not None and service != wanted.service:
                continue
            rule = self._rules.get(number)
            yield Seen(
                time_ns=time_ns + wall_ns,
                verdict=self._verdicts[verdict],
                source=address_text(source) if source else None,
                entry=self._entry(entry, source),
                rule=rule.name if rule else None,
                service=service,
                backend=backend,
                interface=self._interfaces.get(ifindex),
                length=length,
                data=data[_BYTES * at : _BYTES * at + captured],
            )

    def verdict(self, number: int) -> Verdict:
        """The verdict of that number."""
        return self._verdicts[number]

    def service_of(self, number: int) -> str | None:
        """The name of the service of that number."""
        return self._service(number, NONE)[0]

    def _service(self, number: int, place: int) -> tuple[str | None, str | None]:
        plan = self._services.get(number)
        if plan is None:
            return None, None
        offset = place - plan.start
        packed = plan.places[offset] if place != NONE and 0 <= offset < len(plan.places) else None
        return plan.service.name, address_text(packed) if packed else None

    def _entry(self, number: int, source: bytes) -> Entry | None:
        if not number or not source:
            return None
        key = (number, source)
        if key not in self._entries:
            if len(self._entries) >= _REMEMBERED:
                self._entries.clear()
            self._entries[key] = self._find(number, source)
        return self._entries[key]

    def _find(self, number: int, source: bytes) -> Entry | None:
        try:
            return explain.find_entry(self._config.blocklist, self._deny, number, source)
        except ConflictError:
            return None


def _holds(prefix: Prefix, source: bytes) -> bool:
    family = {4: 4, 16: 6}.get(len(source))
    bits = 8 * len(source)
    return (
        family == prefix.family
        and (int.from_bytes(source, "big") ^ prefix.network) >> bits - prefix.length == 0
    )
