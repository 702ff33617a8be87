"""A thousand frames of other protocols: each passes or is dropped as the documents say, and is left as it was."""

import pytest
from foreign import COUNT, foreign_frames
from frames import VIP4, VIP6, service
from rig import Rig

pytestmark = pytest.mark.root


@pytest.fixture
def busy_rig(rig: Rig) -> Rig:
    """TCP and UDP services on port 80 of a VIP of each family."""
    rig.apply(
        services=[
            service(f"{protocol}{n}", vip=vip, protocol=protocol)
            for n, vip in ((4, VIP4), (6, VIP6))
            for protocol in ("tcp", "udp")
        ]
    )
    return rig


def test_each_foreign_frame_has_its_documented_verdict(busy_rig: Rig) -> None:
    """Every kind, to our MAC, untagged and tagged: neither forwarded nor changed."""
    frames = foreign_frames()

    assert len({f.data for f in frames}) > COUNT * 0.8
    assert [f for f in frames if busy_rig.verdict(f.data) != f.verdict] == []


def test_foreign_frames_for_others_pass(busy_rig: Rig) -> None:
    """The same thousand to where they belong, another host or a group: whatever is in them is not looked at."""
    assert {busy_rig.verdict(f.as_sent) for f in foreign_frames()} == {"PASS_NOT_OUR_MAC"}
