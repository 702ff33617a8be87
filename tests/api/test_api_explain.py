"""POST /v1/explain: what is asked, how a trace is named, and every bad input; the twin's traces are written by hand."""

import struct
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from api_stack import Clock, Stack
from fastapi.testclient import TestClient

from api.explained import Explanation
from lb.dataplane.layout import layout
from lb.dataplane.protocol import InterfaceState
from lb.dataplane.twin import TwinDataPlane, TwinTracer
from lb.model import Prefix
from lb.reconcile.lists import rules_of
from lb.reconcile.loop import Reconciler

JsonDocument = dict[str, Any]
PCAP = "application/vnd.tcpdump.pcap"
FRAME = "020000000001020000000002" + "0806" + "00" * 28
_C = layout().constants
_NUMBER = {v.name: v.number for v in layout().verdicts}
CLIENT = "198.51.100.7"


@pytest.fixture
def tracer(plane: TwinDataPlane) -> TwinTracer:
    """What answers for the program."""
    tracer = plane.tracers["twin0"]
    assert isinstance(tracer, TwinTracer)
    return tracer


def write(tracer: TwinTracer, verdict: str, stage: str, source: str = CLIENT, **fields: int) -> None:
    """The trace of a SYN to the VIP of web that came so far."""
    row = tracer.row
    row["verdict"], row["stage"] = _NUMBER[verdict], _C[f"STAGE_{stage}"]
    for part in ("parsed", "wanted"):
        for name, address in (("source", source), ("destination", "192.0.2.10")):
            row[part][name] = np.frombuffer(ip_address(address).packed.ljust(16, b"\0"), "<u4")
        row[part]["source_port"], row[part]["port"] = 40000, 80
        row[part]["family"], row[part]["protocol"], row[part]["tcp_flags"] = 4, 6, 2
        row[part]["marks"] = _C["TRACE_PORTS"]
    row["l3"], row["l3_length"] = 14, 40
    for name, value in fields.items():
        row[name] = value


def ask(client: TestClient, **body: Any) -> JsonDocument:
    """The one packet of the answer."""
    answer = client.post("/v1/explain", json=body or {"hex": FRAME})
    assert answer.status_code == 200, answer.text
    Explanation.model_validate(answer.json())
    (packet,) = answer.json()["packets"]
    assert isinstance(packet, dict)
    return packet


def assert_problem(answer: Any, status: int) -> JsonDocument:
    """The problem document that an answer has to be."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    problem: JsonDocument = answer.json()
    return problem


def pcap(*frames: bytes, link: int = 1, more: int = 0) -> bytes:
    """A capture; more: bytes of each packet that were not kept."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack("<IIII", 0, 0, len(f), len(f) + more) + f for f in frames)


def send(client: TestClient, data: bytes, **query: int) -> Any:
    """A capture as the body."""
    return client.post("/v1/explain", content=data, params=query, headers={"Content-Type": PCAP})


def test_a_frame_in_hex_runs_as_it_is(client: TestClient, tracer: TwinTracer) -> None:
    """The frame is the one that was sent; the answer is the verdict's line and the steps."""
    packet = ask(client, hex=FRAME)

    assert tracer.frames == [bytes.fromhex(FRAME)]
    sentence = next(v.sentence for v in layout().verdicts if v.name == "PASS_NOT_IP")
    assert packet == {
        "verdict": "PASS_NOT_IP",
        "action": "pass",
        "reason": sentence,
        "service": None,
        "backend": None,
        "via": None,
        "entry": None,
        "frame_out": None,
        "steps": [
            {"stage": "parse", "result": "PASS_NOT_IP", "detail": "ethertype 0x0806 is neither IPv4 nor IPv6"}
        ],
    }


def test_a_five_tuple_becomes_a_frame_for_the_interface(client: TestClient, tracer: TwinTracer) -> None:
    """Its destination MAC is the interface's own, so that it does not end there; a made-up port is owned up to."""
    body = {"src": CLIENT, "dst": "192.0.2.10:80", "protocol": "tcp", "syn": True}
    packet = ask(client, **body)

    (frame,) = tracer.frames
    assert frame[:6].hex(":") == "02:00:00:00:00:01"
    assert frame[26:36] == ip_address(CLIENT).packed + ip_address("192.0.2.10").packed + b"\x9c\x40"
    assert packet["steps"][0] == {
        "stage": "input",
        "result": "continue",
        "detail": "no source port was given: 40000 was used; another may lead to another backend",
    }
    assert len(ask(client, **{**body, "src": f"{CLIENT}:5"})["steps"]) == len(packet["steps"]) - 1


def test_numbers_become_names(
    client: TestClient, web: JsonDocument, tracer: TwinTracer, reconciler: Reconciler, plane: TwinDataPlane
) -> None:
    """Service and backend are named, the flow table's entry has its age and class, the frame that leaves is given."""
    plan = reconciler._plans.services.by_name["web"]
    state = (plane.clock_seconds() - 7) << 32 | plan.number << 16 | _C["FLOW_ESTABLISHED"]
    place = plan.place(ip_address("10.0.0.12").packed)
    assert place is not None
    write(
        tracer,
        *("TX_IPIP", "FORWARD"),
        **{"service": plan.number, "place": plan.start + place, "via": _C["VIA_FLOW"]},
        **{"flow_state": state, "now_s": plane.clock_seconds()},
    )
    packet = ask(client)

    assert (packet["service"], packet["backend"], packet["via"]) == ("web", "10.0.0.12", "flow")
    assert packet["entry"] == {"kind": "flow", "age_seconds": 7, "class": "established"}
    assert packet["frame_out"] == FRAME
    assert [step["stage"] for step in packet["steps"]] == ["parse", "admit", "service", "select", "forward"]
    assert packet["steps"][3]["detail"] == (
        "the flow table has it as an established flow of backend 10.0.0.12, last seen 7 seconds ago"
    )


def test_a_list_entry_is_shown_as_its_list_shows_it(
    client: TestClient, tracer: TwinTracer, reconciler: Reconciler, plane: TwinDataPlane, clock: Clock
) -> None:
    """With everything that GET of the entry has: owner, reason, TTL, hits; and its age and what is left of it."""
    entry = {"prefix": "198.51.100.0/24", "reason": "port scan", "ttl_seconds": 3600}
    client.post("/v1/blocklist", json=[{"prefix": "198.0.0.0/8"}, entry]).raise_for_status()
    _, document = client.get("/v1/blocklist").json()["items"]
    rule = rule_of(reconciler, "198.51.100.0/24")
    plane.tables.deny_counters.add(rule, 3, 180)
    clock.now += 60
    write(tracer, "DROP_BLOCKLIST", "ADMIT", deny_entry=rule)
    packet = ask(client)

    shown = packet["entry"]
    assert {key: shown[key] for key in document if key != "hits"} == {
        key: value for key, value in document.items() if key != "hits"
    }
    assert shown["hits"]["packets"] == 3
    assert (shown["kind"], shown["age_seconds"], shown["ttl_left_seconds"]) == ("blocklist", 60, 3540)
    assert packet["steps"][-1] == {
        "stage": "admit",
        "result": "DROP_BLOCKLIST",
        "detail": "blocklist entry 198.51.100.0/24 (operator: port scan) drops what 198.51.100.7 sends",
    }


def rule_of(reconciler: Reconciler, prefix: str) -> int:
    """The rule number of a blocklist entry."""
    return rules_of(reconciler._plans.deny, 4, [Prefix.parse(prefix).key])[0]


def test_a_rule_is_shown_as_rules_are(
    client: TestClient, web: JsonDocument, tracer: TwinTracer, reconciler: Reconciler
) -> None:
    """The rule that drops is the entry, with all its fields and what it has matched."""
    rule = client.put("/v1/rules/http", json={"action": "drop", "ports": 80}).json()
    rule.pop("warnings")
    write(tracer, "DROP_RULE", "ADMIT", rule=reconciler._plans.rules.numbers["http"])

    matched = client.get("/v1/rules/http/status").json()
    assert ask(client)["entry"] == {"kind": "rule", **rule, "matched": matched}


@pytest.mark.parametrize(
    ("verdict", "guard", "words"),
    [
        ("TX_IPIP", "PEACE", "guarded, and not under attack"),
        ("TX_IPIP", "KNOWN", "under attack: this source is known"),
        ("TX_IPIP", "PROVEN", "under attack: this SYN was repeated"),
        ("TX_IPIP", "WITHIN", "budget of new flows is not spent"),
        ("DROP_SYN_TEST", "TESTED", "is admitted when it repeats its SYN"),
        ("DROP_NEW_FLOW", "REFUSED", "budget of new flows is spent"),
    ],
)
def test_how_a_guard_took_a_new_flow(
    client: TestClient,
    web: JsonDocument,
    tracer: TwinTracer,
    reconciler: Reconciler,
    *,
    verdict: str,
    guard: str,
    words: str,
) -> None:
    """Stage select says it in words."""
    plan = reconciler._plans.services.by_name["web"]
    end = {"stage": "FORWARD"} if verdict == "TX_IPIP" else {"stage": "SELECT"}
    write(
        tracer,
        verdict,
        **end,
        service=plan.number,
        place=plan.start if verdict == "TX_IPIP" else _C["NONE"],
        via=_C["VIA_RING"] if verdict == "TX_IPIP" else 0,
        guard=_C[f"GUARD_{guard}"],
    )

    (said,) = [step["detail"] for step in ask(client)["steps"] if step["stage"] == "select"]
    assert words in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"service": 99}, "a service was removed while the frames ran: ask again"),
        ({"service": 0, "place": 7, "via": 2}, 'a backend of service "web" was removed'),
        ({"deny_entry": 77}, "a list entry was removed"),
    ],
)
def test_what_vanished_meanwhile_is_a_conflict(
    client: TestClient, web: JsonDocument, tracer: TwinTracer, fields: dict[str, int], says: str
) -> None:
    """A number that nothing has any more is never given another's name."""
    write(tracer, "TX_IPIP", "FORWARD", **fields)

    assert says in assert_problem(client.post("/v1/explain", json={"hex": FRAME}), 409)["detail"]


def test_a_capture_comes_in_pages(client: TestClient, tracer: TwinTracer) -> None:
    """Each page says how many there are in all, and where the next begins."""
    frames = [bytes.fromhex(FRAME) + bytes([n]) for n in range(5)]
    first = send(client, pcap(*frames), limit=3).json()
    second = send(client, pcap(*frames), after=3).json()

    assert tracer.frames == frames
    assert (len(first["packets"]), first["total"], first["next"]) == (3, 5, 3)
    assert (len(second["packets"]), second["total"], second["next"]) == (2, 5, None)
    assert send(client, pcap(*frames), after=9).json() == {"packets": [], "total": 5, "next": None}


def test_what_was_not_captured_is_taken_as_zeros(client: TestClient, tracer: TwinTracer) -> None:
    """A capture with a short snapshot length is no capture of truncated packets; the first step says so."""
    frame = bytes.fromhex(FRAME)
    (packet,) = send(client, pcap(frame, more=1000)).json()["packets"]

    assert tracer.frames == [frame + bytes(1000)]
    assert packet["steps"][0]["detail"] == "42 of 1042 bytes were captured: the rest is taken as zeros"


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({"hex": "020"}, "/hex", "it has 3 hex digits"),
        ({"hex": "wxyz"}, "/hex", "is not a hex digit"),
        ({"hex": ""}, "/hex", "it is empty"),
        ({"hex": 5}, "/hex", "it should be"),
        ({"hex": "00" * 65558}, "/hex", "at most 65557 are possible"),
        ({"hex": FRAME, "src": CLIENT}, "/hex", "give either hex, or src, dst and protocol"),
        ({"hex": FRAME, "frame": 1}, "/frame", "this key is not known here"),
        ({"src": CLIENT, "dst": "192.0.2.10"}, "/protocol", "this key is needed"),
        (
            {"src": CLIENT, "dst": "192.0.2.10:80", "protocol": "pigeon"},
            "/protocol",
            "is not a known protocol",
        ),
        ({"src": CLIENT, "dst": "192.0.2.10", "protocol": "tcp"}, "/dst", "tcp needs the port"),
        ({"src": "::1", "dst": "192.0.2.10:80", "protocol": "tcp"}, "/dst", "of different families"),
        ([], "", "must be a JSON object"),
    ],
)
def test_a_question_with_a_fault_is_refused(
    client: TestClient, tracer: TwinTracer, body: Any, pointer: str, says: str
) -> None:
    """The field is named; no frame ran."""
    problem = assert_problem(client.post("/v1/explain", json=body), 422)

    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert says in problem["errors"][0]["detail"]
    assert tracer.frames == []


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"", 400, "the capture is empty"),
        (pcap(), 422, "holds no packet"),
        (pcap(bytes(60))[:-1], 400, "packet 1 of the capture is cut off"),
        (pcap(bytes(60), bytes(60))[:-1], 400, "packet 2 of the capture is cut off"),
        (pcap(bytes(60), link=113), 422, "link type 113"),
        (
            pcap(bytes(60), more=70000),
            422,
            "packet 1 of the capture has 70060 bytes, but at most 65557 are possible",
        ),
        (b"\x0a\x0d\x0d\x0a" + bytes(3), 400, "is cut off"),
    ],
)
def test_a_capture_with_a_fault_is_refused_as_a_whole(
    client: TestClient, tracer: TwinTracer, data: bytes, status: int, says: str
) -> None:
    """The packet is named, and those before it did not run either."""
    assert says in assert_problem(send(client, data), status)["detail"]
    assert tracer.frames == []


def test_an_interface_that_is_not_served(client: TestClient) -> None:
    """404, with those there are."""
    answer = client.post("/v1/explain?interface=eth9", json={"hex": FRAME})

    assert "there are twin0" in assert_problem(answer, 404)["detail"]


def test_several_interfaces_need_one_named(
    stack: Stack, client: TestClient, tracer: TwinTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a MAC and a program of its own, so none is guessed."""
    states = [
        InterfaceState(f"twin{n}", n + 1, f"02:00:00:00:00:0{n}", 1500, True, "native", 1) for n in (0, 1)
    ]
    monkeypatch.setattr(stack.plane, "interfaces", lambda: states)

    answer = client.post("/v1/explain", json={"hex": FRAME})
    assert "give `interface` as one of twin0, twin1" in assert_problem(answer, 422)["detail"]
    assert client.post("/v1/explain?interface=twin0", json={"hex": FRAME}).status_code == 200
    assert (
        "runs no frames"
        in assert_problem(client.post("/v1/explain?interface=twin1", json={"hex": FRAME}), 503)["detail"]
    )


def test_nothing_attached_explains_nothing(
    stack: Stack, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: there is no program whose word it could be."""
    monkeypatch.setattr(
        stack.plane, "interfaces", lambda: [InterfaceState("twin0", None, None, None, False, "none", None)]
    )

    answer = client.post("/v1/explain", json={"hex": FRAME})
    assert "not attached to twin0" in assert_problem(answer, 503)["detail"]


def test_another_media_type_is_refused(client: TestClient) -> None:
    """415, with what is taken."""
    answer = client.post("/v1/explain", content=b"x", headers={"Content-Type": "image/png"})

    assert PCAP in assert_problem(answer, 415)["detail"]
