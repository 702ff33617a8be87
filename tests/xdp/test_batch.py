"""The harness that runs many frames in one call gives what runs of single frames give."""

import ctypes

import batch
import pytest
from frames import ELSE4, LINK, VIP6, service, tcp, udp
from rig import Rig

from lb.dataplane import libbpf

pytestmark = pytest.mark.root

FRAMES = [
    bytes(f) for f in (tcp(), udp(), tcp(dst=VIP6), tcp(dst=ELSE4), tcp(sport=9), LINK, bytes(tcp())[:20])
]


@pytest.fixture
def fd(rig: Rig) -> int:
    """A program with a TCP service of each family."""
    rig.apply(services=[service(), service("six", vip=VIP6)])
    return rig.program.fd


def test_a_batch_is_the_frames_one_by_one(fd: int) -> None:
    """Action, length and bytes of each, in order."""
    singly = [libbpf.test_run(fd, frame) for frame in FRAMES]

    done = batch.run(fd, FRAMES)

    assert done.actions.tolist() == [action for action, _ in singly]
    assert [done.frame(n) for n in range(len(FRAMES))] == [out for _, out in singly]
    assert done.out == b"".join(out for _, out in singly)


def test_two_programs_take_turns(rig: Rig, fd: int) -> None:
    """Each frame goes through both, and the word that the first leaves behind is kept."""
    trace = ctypes.c_uint32(7)

    live, dry, traced = batch.run_both(fd, batch.Dry(fd, ctypes.addressof(trace)), FRAMES)

    assert (live.out, live.actions.tolist()) == (dry.out, dry.actions.tolist())
    assert traced.tolist() == [7] * len(FRAMES)
    assert int(rig.plane.tables.verdict_counters.read()["packets"].sum()) == 2 * len(FRAMES)


def test_a_frame_that_the_kernel_refuses_is_an_error(fd: int) -> None:
    """Shorter than an Ethernet header."""
    with pytest.raises(OSError, match="test run"):
        batch.run(fd, [FRAMES[0], bytes(13)])
