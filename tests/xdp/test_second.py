"""Second programs in the map that first ones call them by: each build has a slot of its own, where digests meet too."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.dataplane import libbpf, second
from lb.dataplane.layout import layout
from lb.dataplane.maps import described
from lb.dataplane.tables import STAGE_MAPS
from lb.dataplane.twin import SMALL

pytestmark = pytest.mark.root

PASS = bytes.fromhex("b7000000020000009500000000000000")
"""r0 = XDP_PASS; exit."""
ROOM = layout().constants["STAGES_MAX"]
ONE, OTHER, THIRD = "sluice_00000007", f"sluice_{7 + ROOM:08x}", "sluice_00000008"
"""The first two begin to look at one slot, the third at the next."""


@pytest.fixture
def pins(pin_root: Path) -> Iterator[Path]:
    """A directory that has the maps."""
    pins = pin_root / "second"
    pins.mkdir()
    for name in STAGE_MAPS:
        fd = libbpf.map_create(described(name, SMALL))
        libbpf.obj_pin(fd, pins / name)
        os.close(fd)
    try:
        yield pins
    finally:
        for name in STAGE_MAPS:
            (pins / name).unlink()
        pins.rmdir()


def put(pins: Path, name: str, stages: str = "stages") -> int:
    """A build's second program, put as a daemon does; its slot."""
    slot = second.choose(pins, name)
    fd = libbpf.obj_get(pins / stages)
    try:
        second.put(fd, slot, name, PASS, libbpf.XDP_HAS_FRAGS if stages == "stages_frags" else 0)
    finally:
        os.close(fd)
    return slot


def standing(pins: Path) -> list[bool]:
    return [second.stands(pins, name) for name in (ONE, OTHER, THIRD)]


def test_digests_that_meet_have_slots_of_their_own(pins: Path) -> None:
    """Whatever map they are called by, none stands in another's place, and each goes alone."""
    assert [put(pins, ONE), put(pins, OTHER, "stages_frags"), put(pins, THIRD)] == [7, 8, 9]
    assert put(pins, OTHER, "stages_frags") == 8
    assert standing(pins) == [True, True, True]

    second.remove(pins, OTHER)

    assert standing(pins) == [True, False, True]


def test_a_slot_that_was_chosen_is_nobody_elses(pins: Path) -> None:
    """Also before a program stands there: the first program is linked with it meanwhile."""
    assert second.choose(pins, ONE) == 7
    assert second.choose(pins, OTHER) == 8
    assert standing(pins) == [False, False, False]


def test_what_a_killed_daemon_left_goes(pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what is in force, and for what this one has made."""
    for name in (ONE, OTHER):
        put(pins, name)
    monkeypatch.setattr(second, "_made", set())  # another process
    put(pins, THIRD)

    second.keep_only(pins, {OTHER})

    assert standing(pins) == [False, True, True]
    assert second.choose(pins, ONE) == 7


def test_no_room_is_said(pins: Path) -> None:
    """Where all slots are others'."""
    fd = libbpf.obj_get(pins / "stage_builds")
    try:
        for number in range(ROOM):
            libbpf.map_update(fd, number.to_bytes(4, "little"), number.to_bytes(4, "little"))
    finally:
        os.close(fd)

    with pytest.raises(OSError, match="are used"):
        second.choose(pins, "sluice_ffffffff")
