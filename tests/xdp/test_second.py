"""Second programs in the map that first ones call them by: each build has a slot of its own, where digests meet too."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb.dataplane import libbpf, second
from lb.dataplane.layout import layout

pytestmark = pytest.mark.root

PASS = bytes.fromhex("b7000000020000009500000000000000")
"""r0 = XDP_PASS; exit."""
_PROG_ARRAY = 3
ONE, OTHER, THIRD = "sluice_00000007", f"sluice_{7 + layout().constants['STAGES_MAX']:08x}", "sluice_00000008"
"""The first two begin to look at one slot, the third at the next."""


@pytest.fixture
def stages(pin_root: Path) -> Iterator[int]:
    """The map, pinned in a directory of its own."""
    room = layout().constants["STAGES_MAX"]
    fd = libbpf.map_create(libbpf.MapInfo(_PROG_ARRAY, 4, 4, room, 0, "stages"))
    pins = pins_of(pin_root)
    pins.mkdir()
    libbpf.obj_pin(fd, pins / "stages")
    try:
        yield fd
    finally:
        (pins / "stages").unlink()
        pins.rmdir()
        os.close(fd)


def pins_of(pin_root: Path) -> Path:
    return pin_root / "second"


def put(stages: int, name: str) -> int:
    """A build's second program, put as a daemon does; its slot."""
    slot = second.choose(stages, name)
    second.put(stages, slot, name, PASS, 0)
    return slot


def test_digests_that_meet_have_slots_of_their_own(stages: int, pin_root: Path) -> None:
    """Whatever order they come in, none stands in another's place, and each goes alone."""
    assert [put(stages, name) for name in (ONE, OTHER, THIRD)] == [7, 8, 9]
    assert put(stages, OTHER) == 8

    second.remove(pins_of(pin_root), OTHER)

    assert [second.stands(pins_of(pin_root), name) for name in (ONE, OTHER, THIRD)] == [True, False, True]


def test_a_slot_that_was_chosen_is_nobody_elses(stages: int) -> None:
    """Also before a program stands there: the first program is linked with it meanwhile."""
    assert second.choose(stages, ONE) == 7
    assert second.choose(stages, OTHER) == 8


def test_what_a_killed_daemon_left_goes(stages: int, pin_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what is in force, and for what this one has made."""
    for name in (ONE, OTHER):
        put(stages, name)
    monkeypatch.setattr(second, "_chosen", {})  # another process
    put(stages, THIRD)

    second.keep_only(pins_of(pin_root), {OTHER})

    assert [second.stands(pins_of(pin_root), name) for name in (ONE, OTHER, THIRD)] == [False, True, True]


def test_no_room_is_said(stages: int) -> None:
    """Where all that a build may have are others'."""
    room = layout().constants["STAGES_MAX"]
    for number in range(16):
        put(stages, f"sluice_{7 + number * room:08x}")

    with pytest.raises(OSError, match="are others'"):
        second.choose(stages, f"sluice_{7 + 16 * room:08x}")
