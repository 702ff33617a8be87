"""sluice explain, against the real application; the twin's trace is written by hand."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from cli_shell import Shell
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from lb.cli.explain import capture_lines, packet_lines
from lb.dataplane.twin import TwinTracer

FRAME = "02000000000102000000000208060001"
STEPS = [
    {"stage": "parse", "result": "continue", "detail": "IPv4 TCP 10.0.1.1:4 → 10.200.1.1:80, SYN, 40 bytes"},
    {
        "stage": "admit",
        "result": "DROP_BLOCKLIST",
        "detail": "blocklist entry 10.0.0.0/8 (operator) drops it",
    },
]
ENTRY = {
    "kind": "blocklist",
    "prefix": "10.0.0.0/8",
    "owners": ["operator", "feed:spam"],
    "reason": "port scan",
    "expires_at": None,
    "age_seconds": 3700,
    "hits": {"packets": 12},
}
DROPPED: dict[str, Any] = {
    "verdict": "DROP_BLOCKLIST",
    "action": "drop",
    "reason": "The source address is on the blocklist.",
    "service": None,
    "backend": None,
    "via": None,
    "entry": ENTRY,
    "frame_out": None,
    "steps": STEPS,
}


@pytest.fixture
def tracing(shell: Shell) -> Shell:
    """A daemon whose program says of every frame that it is not of IP."""
    shell.dataplane.tracers["twin0"] = TwinTracer()
    return shell


def frames(shell: Shell) -> list[bytes]:
    """What ran."""
    tracer = shell.dataplane.tracers["twin0"]
    assert isinstance(tracer, TwinTracer)
    return tracer.frames


def test_json_is_the_rest_document(tracing: Shell) -> None:
    """As POST /v1/explain answers it."""
    document = tracing.json("explain", "--hex", FRAME)

    assert frames(tracing) == [bytes.fromhex(FRAME)]
    assert document.keys() == {"packets", "total", "next"}
    assert document["packets"][0]["verdict"] == "PASS_NOT_IP"


def test_a_tuple_is_sent_as_it_is_written(tracing: Shell) -> None:
    """Addresses, ports, protocol and SYN reach the frame."""
    tracing.ok(
        "explain",
        "--src",
        "10.0.1.1:5",
        "--dst",
        "10.200.1.1:80",
        "--protocol",
        "tcp",
        "--syn",
        "-i",
        "twin0",
    )

    (frame,) = frames(tracing)
    assert (frame[34:38].hex(), frame[47]) == ("00050050", 2)


def test_a_capture_is_explained_page_by_page(tracing: Shell, tmp_path: Path) -> None:
    """As one document, however many pages the daemon made of it."""
    file = tmp_path / "many.pcap"
    wrpcap(str(file), [Ether(bytes.fromhex(FRAME) + n.to_bytes(2, "big")) for n in range(5001)])

    document = tracing.json("explain", "--pcap", str(file))

    assert (len(document["packets"]), document["total"], document["next"]) == (5001, 5001, None)
    assert [frame[-2:] for frame in frames(tracing)] == [n.to_bytes(2, "big") for n in range(5001)]


def test_one_packet_for_people_begins_with_the_verdict() -> None:
    """Then what is known of it, then the steps."""
    text = [click.unstyle(line) for line in packet_lines(DROPPED)]

    assert text[0] == "DROP_BLOCKLIST (drop): The source address is on the blocklist."
    assert text[2] == (
        'entry  blocklist 10.0.0.0/8 by operator, feed:spam, "port scan", created 1h 1m ago, no expiry, 12 packets'
    )
    assert text[4].split() == ["STAGE", "RESULT", "DETAIL"]
    assert text[6].endswith(STEPS[1]["detail"])
    assert len(text) == 7


def test_a_forwarded_packet_for_people() -> None:
    """Service, backend, what chose it, and the frame that leaves."""
    entry = {"kind": "flow", "age_seconds": 75, "class": "established"}
    known = {"service": "web", "backend": "10.0.0.11", "via": "flow", "entry": entry, "frame_out": "02aa"}
    text = [click.unstyle(line) for line in packet_lines({**DROPPED, **known})]

    assert [line.split(maxsplit=1)[0] for line in text[2:7]] == [
        "service",
        "backend",
        "chosen",
        "entry",
        "frame",
    ]
    assert text[4].endswith("the flow table")
    assert text[5].endswith("established flow, last seen 1m 15s ago")


def test_a_capture_for_people_is_a_line_a_packet() -> None:
    """Numbered, with the last step's words."""
    text = [click.unstyle(line) for line in capture_lines({"packets": [DROPPED, DROPPED]})]

    assert [line.split()[:2] for line in text[1:]] == [["1", "DROP_BLOCKLIST"], ["2", "DROP_BLOCKLIST"]]
    assert text[1].endswith("(operator) drops it")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give either --src, --dst and --protocol, or --hex, or --pcap"),
        (("--hex", "00", "--syn"), "give either"),
        (("--src", "10.0.1.1"), "also give --dst and --protocol"),
        (("--pcap", "/nowhere/at.pcap"), "does not exist"),
        (("--src", ""), "it is empty"),
    ],
)
def test_usage_errors(tracing: Shell, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, one line, and nothing was asked."""
    result = tracing.run("explain", *arguments)

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr
    assert frames(tracing) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--hex", "abc"), 1, "/hex: it has 3 hex digits, but a byte takes two"),
        (("--hex", ""), 1, "/hex: it is empty"),
        (
            ("--src", "10.0.1.1", "--dst", "10.2.1.1:80", "--protocol", "pigeon"),
            1,
            '/protocol: "pigeon" is not a known protocol',
        ),
        (("--src", "10.0.1.1", "--dst", "10.2.1.1", "--protocol", "udp"), 1, "/dst: udp needs the port"),
        (("--hex", FRAME, "-i", "eth9"), 3, 'interface "eth9" is not served: there are twin0'),
    ],
)
def test_what_the_daemon_refuses(tracing: Shell, arguments: tuple[str, ...], code: int, says: str) -> None:
    """One line on stderr, which names the field and the remedy."""
    result = tracing.run("explain", *arguments)

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert says in result.stderr


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "the capture is empty"), (bytes(30), "unlike any pcap or pcapng file")]
)
def test_a_file_that_is_no_capture(tracing: Shell, tmp_path: Path, data: bytes, says: str) -> None:
    """What is wrong with it comes from the daemon."""
    file = tmp_path / "no.pcap"
    file.write_bytes(data)
    result = tracing.run("explain", "--pcap", str(file))

    assert result.exit_code == 1
    assert says in result.stderr


def test_what_vanished_meanwhile_is_a_conflict(tracing: Shell) -> None:
    """Exit code 4: to ask again helps."""
    tracer = tracing.dataplane.tracers["twin0"]
    assert isinstance(tracer, TwinTracer)
    tracer.row["service"] = 5
    result = tracing.run("explain", "--hex", FRAME)

    assert result.exit_code == 4
    assert "a service was removed while the frames ran: ask again" in result.stderr


def test_yaml_is_the_same_document(tracing: Shell) -> None:
    """In the other form."""
    import yaml

    text = tracing.ok("explain", "--hex", FRAME, "-o", "yaml")

    assert yaml.safe_load(text) == json.loads(tracing.ok("explain", "--hex", FRAME, "-o", "json"))
