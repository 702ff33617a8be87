"""The document of GET /v1/dataplane: programs, maps and pins, as the kernel has them."""

from dataclasses import dataclass

from lb.dataplane.protocol import DataPlane
from lb.reconcile.observe import program_status
from lb.reconcile.observed import ProgramStatus


@dataclass(frozen=True, slots=True)
class InterfacePart:
    """One interface: how it is attached, where its program and its link are pinned, and what is loaded for it.

    xdp_mode is native, generic or none. The program in force comes first.
    """

    name: str
    index: int | None
    mtu: int | None
    attached: bool
    xdp_mode: str
    program_id: int | None
    pins: list[str]
    programs: list[ProgramStatus]


@dataclass(frozen=True, slots=True)
class MapPart:
    """One map, shared by all programs. Sizes are in bytes; memory_bytes is what the kernel charges for it.

    entries: in use, where entries are put in and taken out; null of an array or a ring, which has all of them.
    """

    name: str
    kind: str
    id: int
    key_bytes: int
    value_bytes: int
    capacity: int
    entries: int | None
    memory_bytes: int
    pin: str | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """The document of GET /v1/dataplane."""

    interfaces: list[InterfacePart]
    maps: list[MapPart]
    memory_bytes: int


def inventory(dataplane: DataPlane) -> Inventory:
    """What is loaded, attached and pinned. Counts entries anew: not for every second."""
    programs = [program_status(state) for state in dataplane.programs()]
    maps = [
        MapPart(
            m.name, m.kind, m.id, m.key_bytes, m.value_bytes, m.capacity, m.entries, m.memory_bytes, m.pin
        )
        for m in dataplane.maps()
    ]
    interfaces = [
        InterfacePart(
            name=state.name,
            index=state.index,
            mtu=state.mtu,
            attached=state.attached,
            xdp_mode=state.xdp_mode,
            program_id=state.program_id,
            pins=list(state.pins),
            programs=[program for program in programs if program.interface == state.name],
        )
        for state in dataplane.interfaces()
    ]
    return Inventory(interfaces, maps, sum(m.memory_bytes for m in maps))
