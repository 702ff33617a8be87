"""What the real data plane tells of its programs and interfaces."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from frames import service
from kernel_plane import Balancer
from plane import Programs

from lb.dataplane.build import Program
from lb.events import Event

pytestmark = pytest.mark.root


def test_programs_and_interfaces_are_told(
    programs: Programs, pin_root: Path, in_a_thread: Callable[[Callable[[], None]], None]
) -> None:
    """The first program of an interface is its attaching, each further one a swap; an interface that goes is lost."""
    told, sizes = list[Event](), list[int]()

    def work() -> None:
        balancer = Balancer(pin_root)
        events = balancer.plane._events
        try:
            balancer.want(service())
            sizes.append(balancer.plane.programs()[0].instructions)
            _delete("known0")
            while "interface.lost" not in {event.kind for event in events.since(0)}:
                events.wait(events.last, 1)
            told.extend(events.since(0))
        finally:
            balancer.close()

    in_a_thread(work)

    assert [event.kind for event in told][:2] == ["interface.attached", "program.swapped"]
    assert [event.kind for event in told if event.kind.startswith("interface")][-1] == "interface.lost"
    assert {event.facts["interface"] for event in told if event.kind != "failure"} == {"known0"}
    assert told[1].facts["instructions"] == sizes[0]
    assert "HAVE_IPIP" in told[1].facts["features"]  # type: ignore[operator]


def _delete(interface: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("del", index=ip.link_lookup(ifname=interface)[0])


class Forgetting(dict[tuple[str, str], Any]):
    """Programs that another thread lets go of just as they are looked for."""

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        return self.pop(key, default)


def test_what_was_let_go_of_is_not_kept_again(
    programs: Programs, pin_root: Path, in_a_thread: Callable[[Callable[[], None]], None]
) -> None:
    """A program that is closed while another thread asks for it is not among those that are put in force later."""
    kept: list[list[Program]] = []

    def work() -> None:
        balancer = Balancer(pin_root)
        plane = balancer.plane
        try:
            balancer.want(service())
            loaded = plane._programs
            held = dict(loaded._loaded)
            loaded._loaded = Forgetting(held)
            (link,) = (one for one in plane._neighbours.links().values() if one.name == "known0")
            found = loaded.at_hand(link, plane._wish)
            again = [program for program in loaded._loaded.values() if program is found]
            loaded._loaded = held
            assert found is not None
            kept.append(again)
        finally:
            balancer.close()

    in_a_thread(work)

    assert kept == [[]]
