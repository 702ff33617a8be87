"""A program that does for one wish need not do for the next: what is asked for is in force, on every interface."""

from collections.abc import Callable
from pathlib import Path

import pytest
from frames import LINK, network, service, tcp
from kernel_plane import Balancer
from plane import Programs
from rig import XDP_ACTIONS
from scapy.layers.inet import ICMP

from lb.dataplane.twin import SMALL
from lb.errors import InterfaceError

pytestmark = pytest.mark.root

InAThread = Callable[[Callable[[], None]], None]


def test_what_is_switched_off_is_off_at_once(
    programs: Programs, pin_root: Path, in_a_thread: InAThread
) -> None:
    """A program that drops the spoofed and answers echo is not enough where settings turn that off."""
    frames = tcp(src="127.0.0.1"), LINK / network() / ICMP()

    def work() -> None:
        balancer = Balancer(pin_root)
        try:
            balancer.want(service())
            assert [balancer.run(frame)[0] for frame in frames] == [XDP_ACTIONS["drop"], XDP_ACTIONS["tx"]]
            balancer.want(service(), drop_spoofed=False, answer_echo=False)
            assert [balancer.run(frame)[0] for frame in frames] == [XDP_ACTIONS["tx"], XDP_ACTIONS["pass"]]
        finally:
            balancer.close()

    in_a_thread(work)


def test_one_interface_that_refuses_is_asked_again(
    programs: Programs,
    pin_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_a_thread: InAThread,
) -> None:
    """A change that one of two interfaces did not take is not held for made when it is asked for again."""

    def refuse(*args: object, **how: object) -> None:
        raise InterfaceError("the program on known1 cannot be swapped: no memory")

    def work() -> None:
        balancer = Balancer(pin_root, "known0", "known1")
        try:
            balancer.want(service())
            with monkeypatch.context() as patch:
                patch.setattr(balancer.plane._hooks["known1"], "put", refuse)
                with pytest.raises(InterfaceError):
                    balancer.want(service(), service("l2", port=81, mode="l2"))
            balancer.want(service(), service("l2", port=81, mode="l2"))
            in_force = {p.interface: p.features for p in balancer.plane.programs() if p.in_force}
            assert in_force.keys() == {"known0", "known1"}
            assert all("HAVE_L2" in features for features in in_force.values())
        finally:
            balancer.close()

    in_a_thread(work)


def test_flows_outlast_the_first_interface(
    programs: Programs, pin_root: Path, in_a_thread: InAThread
) -> None:
    """The maps of two interfaces are with the first of them; a start that serves the second alone takes flows over, and
    leaves the first one's program as it was."""

    def work() -> None:
        balancer = Balancer(pin_root, "known0", "known1")
        try:
            balancer.want(service())
            before = balancer.forwards()
            [flow] = _flows(balancer)
            balancer.interfaces = ("known1",)
            balancer.restart(SMALL)
            assert _flows(balancer) == [flow]
            assert balancer.forwards() == before
        finally:
            balancer.interfaces = ("known0", "known1")
            balancer.close()

    in_a_thread(work)


def _flows(balancer: Balancer) -> list[int]:
    """Tags, with their backends' places, of all that the flow table has."""
    used = balancer.plane.tables.arrays.flows["tag_backend"]
    return [int(tag) for tag in used[used != 0]]
