"""Real maps and programs for the packet path's tests; needs root and bcc, and skips with what is missing."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import leftovers
import plane
import pytest
from rig import Programs, Rig, RigDataPlane

from lb.dataplane.bpffs import ensure_bpffs
from lb.dataplane.compiler import import_bcc
from lb.dataplane.twin import SMALL
from lb.errors import SluiceError

HERE = Path(__file__).parent


@cache
def missing() -> str | None:
    """What this machine lacks to load a program, in one sentence; None if nothing."""
    if os.geteuid() != 0:
        return "loading BPF programs needs root: run pytest as root"
    try:
        import_bcc()
        ensure_bpffs(leftovers.BPFFS)
    except SluiceError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root, with the reason."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("root") and (reason := missing()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def pin_root() -> Iterator[Path]:
    """A directory in bpffs that is gone afterwards."""
    with plane.pin_root() as root:
        yield root


@pytest.fixture(scope="session")
def programs(pin_root: Path) -> Programs:
    """Small maps, and every program compiled over them so far."""
    return Programs(pin_root / "small", replace(SMALL, nat_slots=1 << 18))


@pytest.fixture(scope="session")
def large_programs(pin_root: Path) -> Programs:
    """Maps with a flow table as large as that of a daemon."""
    return Programs(pin_root / "large", replace(SMALL, flow_slots=1 << 20, nat_slots=4 << 16))


def _rig(data_plane: RigDataPlane, programs: Programs) -> Iterator[Rig]:
    programs.wipe()
    made = Rig(data_plane)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def rig(programs: Programs) -> Iterator[Rig]:
    """A balancer with nothing configured; its program has every feature."""
    yield from _rig(RigDataPlane(programs), programs)


@pytest.fixture(scope="session")
def nat_programs(pin_root: Path) -> Programs:
    """Maps for a million flows of NAT."""
    return Programs(pin_root / "nat", replace(SMALL, nat_slots=17 << 16))


@pytest.fixture
def large_nat_rig(nat_programs: Programs) -> Iterator[Rig]:
    """A balancer with room for a million flows of NAT."""
    yield from _rig(RigDataPlane(nat_programs, features=plane.AROUND_NAT), nat_programs)


@pytest.fixture
def nat_rig(programs: Programs) -> Iterator[Rig]:
    """A balancer whose program has all of NAT, and of the rest what is beside it in nearly every use."""
    yield from _rig(RigDataPlane(programs, features=plane.AROUND_NAT), programs)


@pytest.fixture
def exact_rig(programs: Programs) -> Iterator[Rig]:
    """A balancer whose program has only what is in use. Each new set of features takes seconds to compile."""
    yield from _rig(RigDataPlane(programs, exact=True), programs)


@pytest.fixture
def frags_rig(programs: Programs) -> Iterator[Rig]:
    """A balancer for frames in several buffers."""
    yield from _rig(RigDataPlane(programs, frags=True), programs)


@pytest.fixture
def large_rig(large_programs: Programs) -> Iterator[Rig]:
    """A balancer with a full-size flow table."""
    yield from _rig(RigDataPlane(large_programs), large_programs)


@pytest.fixture
def still_rig(large_programs: Programs) -> Iterator[Rig]:
    """The same, in a moment that does not pass."""
    yield from _rig(RigDataPlane(large_programs, still=True), large_programs)


@pytest.fixture
def exact_still_rig(large_programs: Programs) -> Iterator[Rig]:
    """The same, whose program has only what is in use."""
    yield from _rig(RigDataPlane(large_programs, exact=True, still=True), large_programs)


@pytest.fixture
def in_a_thread() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs in a thread, so that its network namespace ends with it; what it raises is raised here."""

    def run(work: Callable[[], None]) -> None:
        raised: list[BaseException] = []

        def caught() -> None:
            try:
                work()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=caught)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]

    yield run
