"""The known-answer gate: a program that does with a packet what it should not is never put in force."""

import ctypes
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from frames import ELSE4, VIP6, service, tcp, udp
from kernel_plane import Balancer
from plane import EVERYTHING, Programs
from rig import Rig

from lb.dataplane import build, compiler, gate, kept, libbpf, scratch
from lb.dataplane.build import Program
from lb.dataplane.known import document
from lb.dataplane.protocol import ProgramWish
from lb.dataplane.source import XDP_DIR, join_source
from lb.errors import KnownAnswerError
from lb.settings import TableSizes

pytestmark = pytest.mark.root

Break = Callable[[str, str, str], Callable[[], None]]

FEW = frozenset({"HAVE_VIP4", "HAVE_IPIP", "HAVE_L2", "HAVE_DENY4", "HAVE_ALLOW"})
"""What most faults lie in: it compiles faster than everything."""
NEEDS = {
    case["name"]: frozenset(case.get("needs", ()))
    for stage in document()["stages"]
    for case in stage["cases"]
}
"""What each case needs."""
FAULTS = {
    # header, what it says, what it is made to say, the case that notices, and what it notices
    "a TTL of 63": (
        "config.h",
        "OUTER_TTL 64",
        "OUTER_TTL 63",
        "TCP, 4 in 4",
        "expected 0x40 at byte 22, got 0x3f",
    ),
    "a checksum of too few words": (
        "csum.h",
        " + source + destination)",
        " + source)",
        "TCP, 4 in 4",
        "at byte 24",
    ),
    "MACs exchanged": (
        "rewrite.h",
        "*(u32 *)data = mac;",
        "*(u32 *)data = *(const u32 *)backend->source_mac;",
        "TCP, 4 in 4",
        "at byte [0-3],",
    ),
    "the inner class forgotten": (
        "outer.h",
        "write_ipv4(outer, p->traffic_class,",
        "write_ipv4(outer, 0,",
        "TCP with a class, options and padding",
        "expected 0x8c at byte 15, got 0x00",
    ),
    "the padding counted": (
        "outer.h",
        "u16 length = p->l3_length",
        "u16 length = p->frame_length - p->l3",
        "frame padding",
        "at byte 17",
    ),
    "a source that does not spread": (
        "outer.h",
        "(encap_spread(p) & ENCAP_SOURCE4_HOSTS)",
        "1",
        "TCP, 4 in 4",
        "at byte (24|25|32|33),",
    ),
    "the blocklist not heeded": (
        "admit.h",
        "blocked = !allowed && entry < ENTRY_COUNT_ONLY",
        "blocked = 0",
        "the first address of a blocked /15",
        "expected DROP_BLOCKLIST, got PASS_NO_SERVICE",
    ),
    "the blocklist one /24 off": (
        "deny4.h",
        "address >> 8 & CELLS_MASK",
        "((address >> 8) + 1) & CELLS_MASK",
        "an address in a blocked /25",
        "expected DROP_BLOCKLIST, got PASS_NO_SERVICE",
    ),
    "the allowlist not asked": (
        "admit.h",
        "HAVE_ALLOW && entry < ENTRY_COUNT_ONLY && is_allowed(p)",
        "0",
        "allowed within blocked",
        "expected PASS_NO_SERVICE, got DROP_BLOCKLIST",
    ),
    "a source port that is not hashed": (
        "hash.h",
        "p->source_port | (u64)p->port << 16",
        "(u64)p->port << 16",
        "TCP, 4 in 4",
        "expected TX_IPIP, got DROP_INTERNAL",
    ),
    "a SYN that is no opening": (
        "rules.h",
        "(p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN",
        "p->tcp_flags == 0",
        "a connection opened anew goes by the new ring",
        "at byte",
    ),
    "flows forgotten": (
        "flow.h",
        "((hash) >> 16 | 1)",
        "(bpf_ktime_get_ns() >> 16 | 1)",
        "a connection stays with its draining backend",
        "expected TX_IPIP, got DROP_INTERNAL",
    ),
    "a verdict uncounted": (
        "finish.h",
        "count(verdict_counters.lookup(&key), p);",
        "if (key != (TX_L2 & 255))\n\t\tcount(verdict_counters.lookup(&key), p);",
        "UDP, MAC rewrite",
        "expected TX_L2, got no verdict",
    ),
    "an action that is not the verdict's": (
        "finish.h",
        "return action;",
        "return action == XDP_TX ? XDP_PASS : action;",
        "TCP, 4 in 4",
        "expected action tx, got pass",
    ),
    "a rule's port read from the source port's cells": (
        "match.h",
        "RULE_CELLS_PORT, p->port",
        "RULE_CELLS_SOURCE_PORT, p->port",
        "a rule's port",
        "expected DROP_RULE, got PASS_NO_SERVICE",
    ),
    "a rule that does not allow": (
        "rules.h",
        "if (HAVE_RULE_ALLOW && action->action == RULE_ALLOW)",
        "if (0)",
        "allowed by a rule",
        "expected PASS_PROTOCOL, got DROP_RULE",
    ),
    "a limit that is never over": (
        "limit.h",
        "if (after > burst)",
        "if (after > ~0ULL >> 1)",
        "over a limit for all",
        "expected DROP_LIMIT, got PASS_PROTOCOL",
    ),
    "sources that share a bucket": (
        "limit.h",
        "bpf_ntohl(p->source4) &",
        "0 &",
        "another source within it",
        "expected PASS_PROTOCOL, got DROP_LIMIT",
    ),
    "UDP flows without a limit": (
        "rules.h",
        "if (!is_over(p, action, 1))",
        "if (1)",
        "over a limit of UDP flows",
        "expected DROP_LIMIT, got DROP_INTERNAL",  # the reference asked no ring
    ),
    "a guard that lets all pass": (
        "guard.h",
        "return DROP_SYN_TEST;",
        "return CONTINUE;",
        "under attack a SYN is tested",
        "expected DROP_SYN_TEST, got TX_IPIP",
    ),
    "a guard that knows nobody": (
        "guard.h",
        "if (is_known(p))",
        "if (0)",
        "under attack a SYN of a known source",
        "expected TX_IPIP, got DROP_SYN_TEST",
    ),
    "a checksum without NAT's ports": (
        "nat_rewrite.h",
        "tcp->check = checksum_changed(tcp->check, change);",
        "tcp->check = checksum_changed(tcp->check, addresses);",
        "NAT, a request",
        "at byte 5[01],",
    ),
    "a backend's port that NAT forgets": (
        "nat_known.h",
        "\tport = backend_port(p, backend);",
        "\tport = p->port;",
        "NAT, the flow goes on",
        "at byte 36,",
    ),
}


@pytest.fixture
def break_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Makes builds read a copy of xdp/ with one place changed; what it returns mends it."""
    copy = tmp_path / "xdp"
    shutil.copytree(XDP_DIR, copy)
    for module in (build, compiler, kept):
        monkeypatch.setattr(module, "join_source", lambda name: join_source(name, copy))

    def change(header: str, old: str, new: str) -> Callable[[], None]:
        text = (copy / header).read_text()
        assert text.count(old) == 1, f"{header} does not say {old!r} once"
        (copy / header).write_text(text.replace(old, new))
        return lambda: (copy / header).write_text(text) and None

    return change


def compiled(programs: Programs, features: frozenset[str] = EVERYTHING, **constants: int) -> Program:
    """A program compiled now, over the tests' maps."""
    return programs.make(ProgramWish(features, tuple(constants.items())))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_by_name(programs: Programs, break_source: Break, fault: str) -> None:
    """A program with one line wrong loads, but is refused with the case that it fails and what it did instead."""
    header, old, new, case, difference = FAULTS[fault]
    break_source(header, old, new)

    with pytest.raises(KnownAnswerError) as refused:
        compiled(programs, FEW | NEEDS[case])

    assert f'"{case}"' in str(refused.value)
    assert re.search(difference, str(refused.value)), str(refused.value)


@pytest.mark.parametrize("pool", [("192.0.2.0", 24), ("10.1.0.0", 16), ("198.51.100.64", 28)])
def test_any_interface_and_outer_source_pass(programs: Programs, pool: tuple[str, int]) -> None:
    """The answers are those of the build: another MAC, interface and outer source are no difference."""
    network = int.from_bytes(bytes(int(n) for n in pool[0].split(".")), "big")
    hosts = (1 << (32 - pool[1])) - 1

    program = compiled(
        programs,
        OUR_IFINDEX=1234,
        OUR_MAC_FIRST4=0x12FFEEDD,
        OUR_MAC_LAST2=0xFF01,
        ENCAP_SOURCE4=network,
        ENCAP_SOURCE4_HOSTS=hosts,
        ENCAP_SOURCE6_0=0xB80D0120,
        ENCAP_SOURCE6_1=7,
        ENCAP_SOURCE6_2=0xFFFFFFFF,
        GUE_PORT=7777,
        TOO_BIG_PER_SECOND=1,
    )

    os.close(program.fd)


@pytest.mark.parametrize(
    "features",
    [
        "",
        "VIP4",
        "VIP6 L2",
        "VIP4 GUE",
        "VIP4 VIP6 IPIP GUE ECHO TOO_BIG",
        "DENY4 SPOOF",
        "VIP6 IPIP QUIC DENY6 ALLOW FRAGS",
        "RULES",
        "RULES RULE_PORT LIMIT LIMIT_FLOWS VIP4 IPIP L2",
        "RULES RULE_SOURCE RULE_ALLOW DENY4 ALLOW",
        "RULES LIMIT LIMIT_SOURCE BANS VIP6 GUE",
        "VIP4 VIP6 IPIP GUARD SAMPLES",
        "VIP6 NAT NAT_CROSS",
    ],
)
def test_programs_of_few_features_pass(programs: Programs, features: str) -> None:
    """A program is asked only what it can do, whatever it was compiled with."""
    program = compiled(programs, frozenset(f"HAVE_{name}" for name in features.split()))

    os.close(program.fd)


def test_the_smallest_tables_have_room_for_the_known_packets(pin_root: Path) -> None:
    """A daemon that is started with the least of each size puts its program in force."""
    least = {size.name: size.metadata["least"] for size in fields(TableSizes) if "least" in size.metadata}
    programs = Programs(pin_root / "least", TableSizes(**least))

    os.close(compiled(programs).fd)


def test_live_maps_are_left_alone(rig: Rig, programs: Programs) -> None:
    """While a program is checked over the same pins, no flow, counter or entry of those in force changes."""
    rig.apply(services=[service(), service("six", vip=VIP6)], block=["10.9.0.0/16"], allow=["10.9.1.1"])
    for frame in (tcp(), tcp(flags="A"), tcp(dst=VIP6), udp(), tcp(src="10.9.0.1"), tcp(dst=ELSE4)):
        rig.run(frame)
    before = everything(rig)

    os.close(compiled(programs).fd)

    assert everything(rig) == before
    assert rig.flows["tag_backend"].any()


def everything(rig: Rig) -> dict[str, bytes]:
    """All memory that is pinned."""
    tables = rig.plane.tables
    held = {name: array.tobytes() for name, array in vars(tables.arrays).items()}
    for name, table in vars(tables).items():
        if name != "arrays":
            read = table.read()
            held[name] = b"".join(part.tobytes() for part in (read if isinstance(read, tuple) else (read,)))
    return held


@pytest.mark.parametrize("fault", [None, "a TTL of 63"])
def test_the_gate_leaves_nothing(
    programs: Programs, break_source: Break, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    """Passed or refused: its maps and its program are gone from the kernel, and no descriptor or pin is left."""
    made: list[tuple[str, int]] = []

    def noted(kind: str, make: Callable[..., int]) -> Callable[..., int]:
        def call(*args: Any, **options: Any) -> int:
            fd = make(*args, **options)
            made.append(
                (kind, int(re.search(rf"{kind}_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())[1]))
            )  # type: ignore[index]
            return fd

        return call

    compiled_before = compiled(programs)
    os.close(compiled_before.fd)
    fds, pins = len(list(Path("/proc/self/fd").iterdir())), sorted(programs.pins.iterdir())
    if fault:
        break_source(*FAULTS[fault][:3])
    monkeypatch.setattr(libbpf, "map_create", noted("map", libbpf.map_create))
    monkeypatch.setattr(libbpf, "prog_load", noted("prog", libbpf.prog_load))

    with suppress(KnownAnswerError):
        os.close(compiled(programs).fd)

    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    assert sorted(programs.pins.iterdir()) == pins
    assert [kind for kind, _ in made].count("prog") == 2
    assert len(made) > 20
    deadline = time.monotonic() + 10
    while left := [one for one in made if is_loaded(*one)]:  # the kernel frees them a moment later
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def is_loaded(kind: str, number: int) -> bool:
    """Whether a map or program of this id is still there."""
    fd: int = getattr(libbpf._lib(), f"bpf_{kind}_get_fd_by_id")(ctypes.c_uint32(number))
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def test_scratch_maps_are_of_the_same_kind(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type, sizes of key and value, and flags are those of the live maps; the flow table has all its buckets."""
    kinds: dict[str, libbpf.MapInfo] = {}
    create = libbpf.map_create

    def noted(kind: libbpf.MapInfo) -> int:
        kinds[kind.name] = kind
        return create(kind)

    monkeypatch.setattr(libbpf, "map_create", noted)
    os.close(compiled(programs).fd)

    for name, kind in kinds.items():
        (pin,) = (p for p in programs.pins.iterdir() if p.name[:15] == name)
        fd = libbpf.obj_get(pin)
        live = libbpf.map_info(fd)
        os.close(fd)
        assert (kind.type, kind.key_size, kind.value_size, kind.flags) == (
            live.type,
            live.key_size,
            live.value_size,
            live.flags,
        )
        assert kind.entries <= live.entries
        if name == "flows":
            assert kind.entries == live.entries


def test_a_refused_swap_changes_nothing(
    programs: Programs, pin_root: Path, break_source: Break, in_a_thread: Callable[[Callable[[], None]], None]
) -> None:
    """The old program stays attached and goes on forwarding, the revision is taken back, and asking again is refused
    again; once the source is right, the same change goes through."""
    by_mac = service("l2", port=81, mode="l2")

    def work() -> None:
        balancer = Balancer(pin_root)
        try:
            balancer.want(service())
            before = balancer.attached(), balancer.forwards(), balancer.control.desired
            mend = break_source("rewrite.h", "backend->source_mac + 4", "backend->mac + 4")
            for _ in range(2):
                with pytest.raises(KnownAnswerError, match="is not put in force"):
                    balancer.want(service(), by_mac)
                assert (balancer.attached(), balancer.forwards(), balancer.control.desired) == before
                assert balancer.control.readiness() == []
            mend()
            balancer.want(service(), by_mac)
            assert balancer.attached() != before[0]
            assert balancer.forwards() == before[1]
            assert "HAVE_L2" in balancer.plane.programs()[0].features
        finally:
            balancer.close()

    in_a_thread(work)


def test_each_program_is_checked_once(exact_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate is asked when a program is compiled, and not when it is put in force again."""
    asked: list[frozenset[str]] = []
    check = gate.check

    def noted(code: bytes, flags: int, features: frozenset[str], constants: Any, **more: Any) -> int:
        asked.append(features)
        return check(code, flags, features, constants, **more)

    monkeypatch.setattr(gate, "check", noted)
    exact_rig.apply(services=[service()], settings={"udp_idle_seconds": 77})
    exact_rig.apply(block=["10.9.0.0/16"])
    exact_rig.apply(block=[])

    assert len(asked) == 2
    assert exact_rig.program.cost.check_seconds > 0


def test_maps_are_found_in_the_bytecode() -> None:
    """A 64-bit load takes two instructions, and only one that names a map is one."""
    load = bytes.fromhex("1811000005000000 0000000000000000")
    constant = bytes.fromhex("1801000005000000 1800000000000000")
    move = bytes.fromhex("b700000018000000")

    assert scratch.map_loads(move + constant + load) == [8 + 16 + 4]
