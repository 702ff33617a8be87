"""The known answers are what the reference says, and nobody has edited them by hand."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from lb.dataplane import known
from lb.dataplane.layout import layout
from tests import known_answers

EVERYTHING = frozenset(layout().features)
HERE = {"OUR_MAC_FIRST4": 0x44332211, "OUR_MAC_LAST2": 0x6655, "OUR_IFINDEX": 40}
MAC = bytes.fromhex("112233445566")


def cases(features: frozenset[str], **constants: int) -> dict[str, known.Case]:
    """Every case that a program is asked, by name."""
    return {c.name: c for stage in known.stages(features, HERE | constants) for c in stage.cases}


def test_the_file_is_what_the_script_writes() -> None:
    """Written anew from the documents and the reference, known_answers.json is the same, to the byte."""
    assert known_answers.text() == known_answers.FILE.read_text(), "run tests/known_answers.py"


def test_names_are_unique() -> None:
    """A name in a refusal is one case's."""
    names = [case["name"] for stage in known.document()["stages"] for case in stage["cases"]]

    assert len(names) == len(set(names))


def test_each_feature_is_asked() -> None:
    """No feature could be broken without a case that needs it."""
    needed = {
        n for stage in known.document()["stages"] for case in stage["cases"] for n in case.get("needs", ())
    }

    assert needed >= EVERYTHING


def test_a_program_is_asked_what_it_can() -> None:
    """Without a feature there is no case that needs it; parsing is asked of every program."""
    assert "UDP, MAC rewrite" in cases(frozenset({"HAVE_VIP4", "HAVE_L2"}))
    assert "UDP, MAC rewrite" not in cases(frozenset({"HAVE_VIP4"}))
    assert "an IPv4 header cut off" in cases(frozenset())
    with_memory, tiny = cases(EVERYTHING), cases(EVERYTHING, FLOW_BUCKETS=1)
    assert with_memory.keys() - tiny.keys() == {
        "a connection stays with its draining backend",
        "and stays there",
        "under attack a SYN of a known source",
        "under attack a SYN of a known /64",
        "over the budget a SYN of a known source",
        "a UDP flow that was within its limit",
    }


def test_our_mac_and_interface_are_put_in() -> None:
    """Frames come for our MAC, or one that differs in a bit; what is sent bears it; places are behind our interface."""
    found = cases(EVERYTHING)

    assert found["TCP, 4 in 4"].frame[:6] == MAC
    assert found["TCP, 4 in 4"].out[6:12] == MAC
    assert found["a MAC that is ours but for the last bit"].frame[:6] == MAC[:5] + b"\x67"
    assert found["out of another interface"].out[6:12] == known_answers.ELSEWHERE
    assert found["ARP"].out == found["ARP"].frame
    rows = known.stages(EVERYTHING, HERE)[0].memory["backends"][0]
    assert {int.from_bytes(rows[at + 32 : at + 36], "little") for at in range(0, len(rows), 64)} == {40, 41}


def test_outer_sources_are_those_of_the_build() -> None:
    """The low bits spread as before within another prefix, and the outer checksum is right again."""
    found, other = cases(EVERYTHING), cases(EVERYTHING, ENCAP_SOURCE4=0xC0000200, ENCAP_SOURCE4_HOSTS=0xFF)
    before, after = found["TCP under one tag"].out, other["TCP under one tag"].out

    assert before[30:32] == b"\xac\x10"
    assert after[30:34] == b"\xc0\x00\x02" + before[33:34]
    assert after[:28] + after[34:] == before[:28] + before[34:]
    assert known.ipv4_checksum(after[18:38]) == b"\0\0"
    six = cases(EVERYTHING, ENCAP_SOURCE6_0=0x01020304)["TCP, 6 in 6"].out
    assert six[22:26] == b"\x04\x03\x02\x01"
    assert six[26:] == found["TCP, 6 in 6"].out[26:]


@pytest.mark.parametrize("header", ["45000014000040004004000001020304", "4fff"])
def test_checksum_sums_to_nothing(header: str) -> None:
    """A header with its checksum in it sums to zero (RFC 1071)."""
    data = bytes.fromhex(header)

    assert known.ipv4_checksum(data + known.ipv4_checksum(data)) == b"\0\0"
