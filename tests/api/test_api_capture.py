"""GET /v1/capture and /v1/top over the data plane's twin: who gets which packets, in which words."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_stack import WEB, Stack
from fastapi.testclient import TestClient
from live import serving
from sampled import pass_by, sample

from lb.dataplane.twin import TwinDataPlane
from lb.errors import CompileError
from lb.reconcile.loop import Reconciler

Record = dict[str, Any]


@pytest.fixture
def live(stack: Stack, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client over a real socket."""
    with serving(stack.client.app, tmp_path / "api.sock") as client:  # type: ignore[arg-type]
        yield client


@contextmanager
def capturing(live: httpx.Client, **query: Any) -> Iterator[Iterator[Record]]:
    """The records of a capture that has begun, but for the first and those of progress."""
    with live.stream("GET", "/v1/capture", params=query) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "application/x-ndjson"
        records = map(json.loads, answer.iter_lines())
        assert next(records)["record"] == "began"
        yield (record for record in records if record["record"] != "progress")


def test_a_packet_has_all_names(live: httpx.Client, plane: TwinDataPlane, reconciler: Reconciler) -> None:
    """Entry and owner, service, backend and interface are said by name; the bytes are the frame's; the time is now."""
    live.post("/v1/services", json=WEB).raise_for_status()
    entry = {"prefix": "203.0.113.0/24", "reason": "scan", "action": "count"}
    live.post("/v1/blocklist", json=entry).raise_for_status()
    plan = reconciler._plans.services.by_name["web"]
    place = plan.place(ip_address("10.0.0.12").packed)
    assert place is not None
    deny = reconciler._plans.deny
    number = int(deny.ipv4[0]) & 0xFFFF

    with capturing(live, count=1) as records:
        pass_by(
            plane,
            sample(
                "TX_IPIP",
                "203.0.113.9",
                b"\x01\x02\x03",
                service=plan.number,
                place=plan.start + place,
                entry=number,
                frame_length=1500,
            ),
        )
        packet, end = records

    assert base64.b64decode(packet.pop("bytes")) == b"\x01\x02\x03"
    assert packet.pop("time").startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime()))
    assert packet == {
        "record": "packet",
        "verdict": "TX_IPIP",
        "action": "tx",
        "source": "203.0.113.9",
        "entry": {"prefix": "203.0.113.0/24", "owner": "operator", "action": "count", "reason": "scan"},
        "rule": None,
        "service": "web",
        "backend": "10.0.0.12",
        "interface": "twin0",
        "length": 1500,
    }
    assert end == {
        "record": "end",
        "why": "count",
        "packets": 1,
        "came": 1,
        "unseen": 0,
        "lost": 0,
        "over_rate": 0,
    }


def verdicts(records: Iterator[Record]) -> list[str]:
    return [record["verdict"] for record in records if record["record"] == "packet"]


def test_verdicts_are_chosen(live: httpx.Client, plane: TwinDataPlane) -> None:
    """By name in any case, by pass, tx (with redirect) and drop; two who look at once each get theirs."""
    names = ["PASS_NOT_IP", "TX_IPIP", "REDIRECT_GUE", "DROP_BLOCKLIST", "DROP_NEW_FLOW"]
    wanted = {
        ("drop",): names[3:],
        ("tx",): names[1:3],
        ("pass", "DROP_new_flow"): [names[0], names[4]],
    }
    for words, expected in wanted.items():
        with (
            capturing(live, verdict=list(words), count=len(expected)) as some,
            capturing(live, count=len(names)) as every,
        ):
            pass_by(plane, *map(sample, names))
            assert verdicts(some) == expected
            assert verdicts(every) == names


def test_sources_and_services_are_chosen(
    live: httpx.Client, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """By prefix of the source and by service; what is filtered out counts as come, and not as unseen."""
    live.post("/v1/services", json=WEB).raise_for_status()
    number = reconciler._plans.services.by_name["web"].number
    rows = [
        sample("TX_IPIP", "203.0.113.9", service=number),
        sample("TX_IPIP", "203.0.114.9", service=number),
        sample("TX_IPIP", "2001:db8::9"),
        sample("PASS_NOT_IP"),
        sample("TX_IPIP", "203.0.113.10"),
    ]
    for query, expected in (
        ({"prefix": "203.0.113.0/24"}, ["203.0.113.9", "203.0.113.10"]),
        ({"prefix": "2001:db8::9"}, ["2001:db8::9"]),
        ({"service": "web"}, ["203.0.113.9", "203.0.114.9"]),
        ({"service": "web", "prefix": "203.0.113.0/24"}, ["203.0.113.9"]),
    ):
        with capturing(live, seconds=0.3, **query) as records:
            pass_by(plane, *rows)
            found = list(records)
        assert [record["source"] for record in found[:-1]] == expected
        assert (found[-1]["why"], found[-1]["came"], found[-1]["unseen"]) == ("seconds", 5, 0)


def test_what_was_not_handed_out_is_counted(live: httpx.Client, plane: TwinDataPlane) -> None:
    """Packets that the counters saw and the queue did not are unseen; those over the rate are left out, and counted."""
    with capturing(live, seconds=0.5, rate=2, verdict="drop") as records:
        for _ in range(5):
            plane.tables.verdict_counters.add(48, 1, 60)
        moment = time.monotonic_ns() // 10**9 * 10**9 + 10**9
        pass_by(plane, *(sample("DROP_BLOCKLIST", time_ns=moment) for _ in range(6)))
        found = list(records)

    end = found[-1]
    assert [record["record"] for record in found] == ["packet", "packet", "end"]
    assert (end["packets"], end["came"], end["unseen"], end["over_rate"]) == (2, 11, 5, 4)


def test_progress_is_told(live: httpx.Client, plane: TwinDataPlane) -> None:
    """Every second there is a record with the figures so far."""
    with live.stream("GET", "/v1/capture") as answer:
        records = map(json.loads, answer.iter_lines())
        next(records)
        plane.tables.verdict_counters.add(48, 3, 60)
        progress = next(records)

    assert progress == {
        "record": "progress",
        "packets": 0,
        "came": 3,
        "unseen": 3,
        "lost": 0,
        "over_rate": 0,
    }


def test_no_more_bytes_than_are_asked_for(live: httpx.Client, plane: TwinDataPlane) -> None:
    """Another who looks may want more; each gets what it asked for."""
    with capturing(live, bytes=2, count=1) as few, capturing(live, bytes=100, count=1) as many:
        pass_by(plane, sample("TX_L2", data=b"abcdef"))
        assert base64.b64decode(next(few)["bytes"]) == b"ab"
        assert base64.b64decode(next(many)["bytes"]) == b"abcdef"


def test_who_hangs_up_looks_no_more(live: httpx.Client, plane: TwinDataPlane, reconciler: Reconciler) -> None:
    """The last who goes takes the feature with it, however it went."""
    for _ in range(2):
        with capturing(live):
            assert reconciler.watch.features
        while reconciler.watch.features:
            live.get("/healthz")
    assert plane.tables.arrays.watching["most"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"verdict": "DROP_NOTHING"}, 422, "DROP_NOTHING is not a verdict"),
        ({"prefix": "10.0.0.1/8"}, 422, "host bits"),
        ({"service": "nobody"}, 404, 'there is no service "nobody"'),
        ({"bytes": 257}, 422, "bytes"),
        ({"rate": 10001}, 422, "rate"),
        ({"count": 0}, 422, "count"),
    ],
)
def test_what_cannot_be_is_refused(
    client: TestClient, reconciler: Reconciler, query: dict[str, Any], status: int, words: str
) -> None:
    """With a problem document, and nobody looks."""
    answer = client.get("/v1/capture", params=query)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    assert not reconciler.watch.features


def test_a_program_that_does_not_compile_is_a_problem(
    client: TestClient, plane: TwinDataPlane, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why nobody can look is the answer, not the end of one that began."""

    def refuse(*_: object, **how: object) -> None:
        raise CompileError("the kernel refuses it", "")

    monkeypatch.setattr(plane, "prepare", refuse)

    assert client.get("/v1/capture").status_code == 503
    assert client.get("/v1/top").status_code == 503
    assert not reconciler.watch.features
