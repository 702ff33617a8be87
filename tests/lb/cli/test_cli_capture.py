"""sluice capture and top."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from cli_shell import Shell
from click.testing import Result
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader

from lb.cli.capture import end_line
from lb.cli.top import top_lines
from lb.dataplane.layout import layout
from lb.dataplane.samples import RECORD

NUMBER = {v.name: v.number for v in layout().verdicts}
FRAME = bytes(Ether() / IP(src="203.0.113.9", dst="192.0.2.10") / TCP(sport=40000, dport=80))
OTHER = bytes(Ether() / IP(src="203.0.113.9", dst="192.0.2.10") / UDP(sport=40000, dport=53))


def pass_by(shell: Shell, *packets: tuple[str, bytes]) -> None:
    """Packets with their verdicts, once somebody looks."""
    while not shell.reconciler.watch._watchers:
        time.sleep(0.01)
    rows = np.zeros(len(packets), RECORD)
    rows["kind"], rows["family"], rows["ifindex"], rows["time_ns"] = 1, 4, 1, time.monotonic_ns()
    rows["rule"] = rows["service"] = rows["place"] = layout().constants["NONE"]
    for row, (verdict, frame) in zip(rows, packets, strict=True):
        row["verdict"], row["frame_length"], row["captured"] = NUMBER[verdict], len(frame), len(frame)
        row["source"][0] = int.from_bytes(frame[26:30], "little")
        row["bytes"][: len(frame)] = np.frombuffer(frame, np.uint8)
        shell.dataplane.tables.verdict_counters.add(NUMBER[verdict], 1, len(frame))
    shell.dataplane.queue.put(rows)


def run_while(shell: Shell, packets: list[tuple[str, bytes]], *words: str) -> Result:
    """A command, and packets that come while it looks."""
    coming = threading.Thread(target=pass_by, args=(shell, *packets))
    coming.start()
    result = shell.run(*words)
    coming.join()
    return result


def test_a_packet_is_a_line(shell: Shell) -> None:
    """Time, verdict, headers and what decided; what was shown is said to the standard error."""
    shell.ok("block", "203.0.113.0/24", "--reason", "scan")
    number = int(shell.reconciler._plans.deny.ipv4[0]) & 0xFFFF
    original = pass_by

    def with_entry() -> None:
        while not shell.reconciler.watch._watchers:
            time.sleep(0.01)
        put = shell.dataplane.queue.put

        def put_with_entry(rows: Any) -> None:
            rows["entry"] = number
            put(rows)

        shell.dataplane.queue.put = put_with_entry  # type: ignore[method-assign]
        original(shell, ("DROP_BLOCKLIST", FRAME), ("DROP_BLOCKLIST", OTHER))

    coming = threading.Thread(target=with_entry)
    coming.start()
    result = shell.run("capture", "--verdict", "drop", "-c", "2")
    coming.join()

    first, second = (line.partition(" ")[2] for line in result.stdout.splitlines())
    why = "(blocklist entry 203.0.113.0/24 (operator: scan))"
    assert first == f"DROP_BLOCKLIST 203.0.113.9:40000 > 192.0.2.10:80: TCP [S], length 0 {why}"
    assert second == f"DROP_BLOCKLIST 203.0.113.9:40000 > 192.0.2.10:53: UDP, length 0 {why}"
    assert result.stderr.splitlines()[-1] == "sluice: 2 packets shown, of 2 that came with these verdicts"


def test_a_filter_chooses(shell: Shell) -> None:
    """An expression is sampled here; the count is of what it means."""
    packets = [("PASS_NO_SERVICE", OTHER), ("PASS_NO_SERVICE", FRAME)] * 3

    result = run_while(shell, packets, "capture", "-c", "2", "-o", "json", "tcp", "port", "80")

    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == 2
    assert {record["verdict"] for record in found} == {"PASS_NO_SERVICE"}


def test_a_bad_filter_is_a_usage_error(shell: Shell) -> None:
    """With libpcap's words, before the daemon is asked anything."""
    result = shell.run("--server", "/no/such.sock", "capture", "tcp", "port", "and")

    assert result.exit_code == 2
    assert '"tcp port and" is not a filter: ' in result.stderr
    assert "syntax error" in result.stderr


def test_packets_are_written(shell: Shell, tmp_path: Path) -> None:
    """As pcapng that others read, with a comment on each, to a file or the standard output."""
    file = tmp_path / "x.pcapng"
    before = time.time_ns()

    result = run_while(shell, [("PASS_NO_SERVICE", FRAME)], "capture", "-c", "1", "-w", str(file))

    assert (result.exit_code, result.stdout) == (0, "")
    with RawPcapNgReader(str(file)) as reader:
        ((data, meta),) = reader
    assert (data, meta.comments) == (FRAME, [b"PASS_NO_SERVICE"])
    assert before < (meta.tshigh << 32 | meta.tslow) < time.time_ns()
    result = run_while(shell, [("PASS_NO_SERVICE", FRAME)], "capture", "-c", "1", "-w", "-")
    assert result.stdout_bytes.count(FRAME) == 1


def test_a_file_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    """Is named, with what is wrong."""
    result = shell.run("capture", "-w", str(tmp_path / "no" / "x.pcapng"))

    assert result.exit_code == 1
    assert "x.pcapng cannot be written (No such file or directory)" in result.stderr


def test_an_interrupt_ends_it_in_order(shell: Shell) -> None:
    """Ctrl-C is how it ends: the figures are said, and the exit code is 0."""
    command = [
        sys.executable,
        "-c",
        "from lb.cli.main import main; main()",
        "--server",
        shell.server,
        "capture",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as looker:
        assert looker.stdout is not None
        assert looker.stderr is not None
        assert looker.stderr.readline() == "sluice: looking; Ctrl-C ends it\n"
        pass_by(shell, ("PASS_NO_SERVICE", FRAME))
        assert "PASS_NO_SERVICE" in looker.stdout.readline()
        looker.send_signal(2)
        assert looker.stderr.read().startswith("sluice: 1 packet shown")
        assert looker.wait() == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--verdict", "up"], 1, "up is not a verdict"),
        (["--service", "nobody"], 3, 'there is no service "nobody"'),
        (["--prefix", "10.0.0.1/8"], 1, "host bits"),
        (["--bytes", "257"], 2, "257"),
        (["--rate", "0"], 2, "0"),
    ],
)
def test_what_cannot_be_is_refused(shell: Shell, words: list[str], code: int, says: str) -> None:
    """With the exit code that says whose fault it is."""
    result = shell.run("capture", *words)

    assert result.exit_code == code
    assert says in result.stderr


def test_help_says_how_forwarded_packets_look(shell: Shell) -> None:
    """That they have their outer header, since a filter must know."""
    assert "a forwarded one has its outer" in " ".join(shell.ok("capture", "--help").split())


def test_what_was_not_shown_is_said() -> None:
    """Each reason with its number, and none where there is none."""
    figures = {"came": 12_000, "unseen": 9000, "lost": 0, "over_rate": 3}

    assert end_line(5, figures) == (
        "5 packets shown, of 12.0 k that came with these verdicts; 9.0 k not handed out: over the rate, or "
        "too fast for the queue; 3 left out: over the rate"
    )
    assert end_line(0, {}) == "0 packets shown"


def test_top_looks_once(shell: Shell) -> None:
    """The daemon's document, or a table with the heaviest first."""
    packets = [("DROP_BLOCKLIST", FRAME)] * 3

    result = run_while(shell, packets, "top", "--once", "--seconds", "0.5", "-o", "json")

    (item,) = json.loads(result.stdout)["items"]
    assert (item["key"], item["share"]) == ("203.0.113.9", 1.0)
    result = run_while(shell, packets, "top", "--once", "--seconds", "0.5", "--by", "prefix", "-v", "drop")
    assert result.stdout.splitlines()[1].split()[0] == "203.0.113.0/24"


def test_top_goes_on(shell: Shell) -> None:
    """Look after look, until Ctrl-C, which is how it ends."""
    command = [sys.executable, "-c", "from lb.cli.main import main; main()", "--server", shell.server]
    words = ["top", "--seconds", "0.1"]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdout is not None
        for _ in range(5):
            looker.stdout.readline()
        looker.send_signal(2)
        looker.stdout.read()
        assert looker.wait() == 0


def test_top_in_words() -> None:
    """A line has rate, share, uncertainty and verdicts; the last says how many were sampled."""
    item = {
        "key": "203.0.113.9",
        "packets_per_second": 1500.0,
        "share": 0.75,
        "uncertainty": 0.021,
        "verdicts": {"DROP_LIMIT": 1200.0, "TX_IPIP": 300.0},
    }
    document = {
        "by": "source",
        "packets": 2000,
        "sampled": 1000,
        "packets_per_second": 2000.0,
        "items": [item],
    }

    lines = [click.unstyle(line) for line in top_lines(document)]

    assert lines[1].split() == [
        *("203.0.113.9", "1.5", "k", "75.0", "%", "2.1", "%"),
        *("DROP_LIMIT", "80.0", "%,", "TX_IPIP", "20.0", "%"),
    ]
    assert lines[2] == "2.0 k packets/s in total, 1.0 k of 2.0 k sampled"
