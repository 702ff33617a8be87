"""The document of GET /v1/dataplane: programs, maps and pins, as the kernel has them."""

from dataclasses import dataclass

from lb.dataplane.protocol import DataPlane, MapState
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
class Inventory:
    """The document of GET /v1/dataplane."""

    interfaces: list[InterfacePart]
    maps: list[MapState]
    memory_bytes: int


def inventory(dataplane: DataPlane) -> Inventory:
    """What is loaded, attached and pinned. Counts entries anew: not for every second."""
    programs = [program_status(state) for state in dataplane.programs()]
    maps = dataplane.maps()
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
