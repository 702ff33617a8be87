"""What the doctor gathers of a running data plane, over the twin: whom it asks what, and what it makes of flows."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from lb.dataplane import packets
from lb.dataplane.layout import layout
from lb.dataplane.protocol import MachineFacts
from lb.dataplane.twin import TwinDataPlane
from lb.doctor.facts import Answer, BackendAnswers, HostFacts, InterfaceFacts
from lb.doctor.finding import Finding, Severity
from lb.errors import InvalidError, NotFoundError, NotYetError
from lb.model import Config
from lb.model.document import parse
from lb.reconcile.doctor import TABLE_OPTIONS, Flows
from lb.reconcile.loop import Reconciler
from lb.reconcile.preparation import preparations
from lb.settings import ServeSettings, TableSizes
from lb.store import SqliteStore

C = layout().constants
DOCUMENT = """
services:
  - {name: web, vip: 192.0.2.10, port: 80, protocol: tcp, backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]}
  - {name: dns, vip: 192.0.2.10, port: 53, protocol: udp, mode: l2, backends: [{address: 10.0.0.11}]}
  - {name: web6, vip: "2001:db8::1", port: any, protocol: tcp, mode: gue,
     backends: [{address: "fd00::11"}, {address: 10.0.0.12, admin_state: disabled}]}
"""


@pytest.fixture
def plane() -> TwinDataPlane:
    return TwinDataPlane()


@pytest.fixture
def reconciler(plane: TwinDataPlane) -> Reconciler:
    made = Reconciler(SqliteStore(":memory:"), plane)
    made.start()
    made.change(
        lambda config: parse(DOCUMENT.encode(), now=made.now(), have=config), actor="test", summary="test"
    )
    try:
        yield made
    finally:
        made.stop()


def wrong(findings: list[Finding], *but: str) -> set[tuple[str, str]]:
    """Checks and subjects of what is not as it should be; VIPs have no packets here."""
    return {(f.check, f.subject) for f in findings if f.severity is not Severity.OK} - {
        ("vip", v) for v in but
    }


VIPS = ("192.0.2.10", "2001:db8::1")


def test_each_backend_is_asked_as_its_packets_go(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """Mode, VIP and port are those of the service; a backend that is disabled is not asked; "any" is not a port."""
    reconciler.doctor.look(seconds=0)

    asked = {(q.address, q.vip, q.port, q.protocol, q.mode) for q in plane.questions}
    assert asked == {
        ("10.0.0.11", "192.0.2.10", 80, "tcp", "ipip"),
        ("10.0.0.12", "192.0.2.10", 80, "tcp", "ipip"),
        ("10.0.0.11", "192.0.2.10", 53, "udp", "l2"),
        ("fd00::11", "2001:db8::1", 0, "tcp", "gue"),
    }


def test_one_service_and_one_backend(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """What is named is asked, and nothing else is looked at."""
    report = reconciler.doctor.look("web", "10.0.0.12")

    assert [q.address for q in plane.questions] == ["10.0.0.12"]
    assert {f.check for f in report.findings} == {"mtu", "backend", "vip"}


@pytest.mark.parametrize("named", [("nix", None), ("web", "10.9.9.9")])
def test_what_is_not_there_is_not_looked_at(reconciler: Reconciler, named: tuple[str, str | None]) -> None:
    """A name that is nothing's is an error, not a clean bill of health."""
    with pytest.raises(NotFoundError):
        reconciler.doctor.look(*named)


def test_answers_become_findings(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """What a backend answered is judged with all of its services."""
    plane.answers["10.0.0.11"] = BackendAnswers(ping=Answer.NOTHING)
    report = reconciler.doctor.look(seconds=0)

    assert wrong(report.findings, *VIPS) == {("reachable", "10.0.0.11"), ("mtu", "twin0")}


def test_next_hops_become_findings(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """A backend without a MAC, and one without a route, are told apart."""
    plane.unresolved.add(packets.packed("10.0.0.11"))
    plane.unreachable.add(packets.packed("10.0.0.12"))
    found = {
        f.subject: f.summary for f in reconciler.doctor.look(seconds=0).findings if f.check == "neighbour"
    }

    assert "does not answer on twin0" in found["10.0.0.11"]
    assert "no route" in found["10.0.0.12"]


def test_mtu_is_that_of_the_longest_outer_header(reconciler: Reconciler) -> None:
    """The twin's link takes 1500 bytes; GUE in IPv6 needs 1548."""
    (found,) = (f for f in reconciler.doctor.look(seconds=0).findings if f.check == "mtu")

    assert found.command == "ip link set dev twin0 mtu 1548"


def test_packets_that_come_while_it_looks(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """Counters since the attach answer for a balancer that has not forwarded anything yet."""
    number = next(v.number for v in plane.verdicts if v.name == "DROP_NO_NEXT_HOP")
    plane.tables.verdict_counters.add(number, 7, 700)
    (found,) = (f for f in reconciler.doctor.look(seconds=0).findings if f.check == "traffic")

    assert found.severity is Severity.FAIL
    assert "7 packets" in found.summary


def test_vip_is_asked_by_the_way_of_checks(
    reconciler: Reconciler, plane: TwinDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mark and source are those of health checks; the program lets answers in while it looks, no longer."""
    monkeypatch.setattr(plane, "probe_source", lambda ifindex, family: f"source{family}")
    reconciler.doctor.look(seconds=0)

    ways = {q.address: q.way for q in plane.questions if q.mode == "ipip"}
    assert {address: way[1] for address, way in ways.items() if way} == dict.fromkeys(ways, "source4")
    assert len({way[0] for way in ways.values() if way}) == 2
    assert "HAVE_PROBES" in plane.wishes[-1].features
    assert reconciler.doctor.probing.features == frozenset()


def test_way_that_is_being_made_is_waited_for(
    reconciler: Reconciler, plane: TwinDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What will be there in a moment is not taken for what is not there."""
    failures = iter([NotYetError("soon"), NotYetError("soon")])

    def source(_ifindex: int, _family: int) -> str:
        for failure in failures:
            raise failure
        return "source"

    monkeypatch.setattr(plane, "probe_source", source)
    reconciler.doctor.look("web", "10.0.0.11")

    assert plane.questions[0].way is not None


def test_vips_are_not_asked_where_answers_are_dropped(
    reconciler: Reconciler, plane: TwinDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a strict reverse path filter here no answer of a VIP comes in: that is told, and no backend accused."""
    monkeypatch.setattr(plane, "probe_source", lambda ifindex, family: "source")
    plane.facts = MachineFacts(
        HostFacts("t", headers="/h", headers_complete=True), (InterfaceFacts("twin0", rp_filter=1),)
    )
    found = wrong(reconciler.doctor.look(seconds=0).findings, *VIPS)

    assert found == {("rp-filter", "twin0"), ("mtu", "twin0")}
    assert all(question.way is None for question in plane.questions)


def test_vip_that_the_kernel_drops_answers_of_is_not_asked(
    reconciler: Reconciler, plane: TwinDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VIP that is this machine's own address is told, with what lets its answers in; the others are asked."""
    monkeypatch.setattr(plane, "probe_source", lambda ifindex, family: "source")
    own = InterfaceFacts("lo", served=False, addresses=("192.0.2.10/32",))
    plane.facts = MachineFacts(
        HostFacts("t", headers="/h", headers_complete=True),
        (InterfaceFacts("twin0", accept_local=False), own),
    )
    found = wrong(reconciler.doctor.look(seconds=0).findings, VIPS[1])

    assert found == {("vip", VIPS[0]), ("mtu", "twin0")}
    assert {question.vip for question in plane.questions if question.way} == {VIPS[1]}


def test_vip_in_the_interfaces_own_network(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """Where routers ask for a VIP instead of being told of it, somebody has to answer for it."""
    plane.facts = MachineFacts(HostFacts("t"), (InterfaceFacts("twin0", addresses=("192.0.2.1/24",)),))
    (found,) = (f for f in reconciler.doctor.look(seconds=0).findings if f.subject == "192.0.2.10")
    plane.facts = MachineFacts(
        HostFacts("t"), (InterfaceFacts("twin0", addresses=("192.0.2.1/24", "192.0.2.10/32")),)
    )
    (own,) = (f for f in reconciler.doctor.look(seconds=0).findings if f.subject == "192.0.2.10")

    assert str(found.command).startswith("ip address add 192.0.2.10/32 dev twin0 && sysctl -w ")
    assert own.run_on == "router"


def test_vip_that_another_claims(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """Who else answers for a VIP in the interface's network is named; elsewhere nobody is asked."""
    plane.claimed = dict.fromkeys(VIPS, ("02:00:00:00:00:09",))
    plane.facts = MachineFacts(HostFacts("t"), (InterfaceFacts("twin0", addresses=("192.0.2.1/24",)),))
    found = {f.subject: f for f in reconciler.doctor.look(seconds=0).findings if f.check == "vip"}

    assert found["192.0.2.10"].severity is Severity.FAIL
    assert "02:00:00:00:00:09" in found["192.0.2.10"].summary
    assert found["2001:db8::1"].severity is Severity.WARN


def flows(*rows: tuple[int, int, int, int]) -> Flows:
    """Of (age, service, place, class)."""
    now = 1000
    state = np.array([(now - age) << 32 | service << 16 | kind for age, service, _, kind in rows], np.uint64)
    return Flows(state, np.array([1 << 16 | place for _, _, place, _ in rows], np.uint64), now)


NEW, OLD, UDP = C["FLOW_PROBATION"], C["FLOW_ESTABLISHED"], C["FLOW_UDP"]


def test_flows_tell_who_is_heard() -> None:
    """Later SYNs than the last flow that went on are unheard; fresh ones may yet be, UDP and others' say nothing."""
    table = flows(
        *((50, 1, 2, OLD), (40, 1, 2, NEW), (10, 1, 2, NEW), (60, 1, 2, NEW), (1, 1, 2, NEW)),
        *((10, 1, 2, NEW | UDP), (10, 1, 3, NEW), (10, 7, 2, NEW), (999, 1, 2, OLD)),
    )

    assert table.heard(1, 2) == (1, 2)
    assert table.heard(1, 9) == (0, 0)
    assert table.last_seen_seconds(7) == 10.0
    assert table.last_seen_seconds(9) is None


def test_each_table_has_the_option_that_enlarges_it(reconciler: Reconciler) -> None:
    """What /status calls tables, and what `sluice serve` calls sizes, are joined by one list."""
    tables = {table.name for table in reconciler.status().tables}
    sizes = {name.replace("_", "-") for name in TableSizes.__dataclass_fields__}

    assert set(TABLE_OPTIONS) - {"nat_keep"} <= tables  # that one is there while it is used
    assert set(TABLE_OPTIONS.values()) <= sizes


def test_mode_nat_is_told_by_its_replies(reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """Connections whose answers came back speak for the pool's address and the backend; those without speak against."""
    document = """
settings: {nat_pools: [10.9.0.1, 10.9.0.2]}
services:
  - {name: web, vip: 192.0.2.10, port: 80, protocol: tcp, mode: nat,
     backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]}
"""
    reconciler.change(
        lambda config: parse(document.encode(), now=reconciler.now(), have=config), actor="test", summary=""
    )
    arrays, plan = plane.tables.arrays, reconciler._plans.services.by_name["web"]
    blocks, seen = sorted(reconciler._plans.nat.blocks.values()), (plane.clock_seconds() - 5) << 32
    for port in range(2000, 2004):
        for block, address in zip(blocks, ("10.0.0.11", "10.0.0.12"), strict=True):
            slot = block << 16 | port
            row = arrays.nat_forward[slot : slot + 1]
            row["word"], row["state"], row["ports"] = 1 << 24 | slot, seen | C["NAT_SYN"], 6 << 32
            row["service"], row["place"] = plan.number, plan.at[packets.packed(address)]
    arrays.nat_reply["state"][blocks[0] << 16 | 2000 : blocks[0] << 16 | 2004] = seen | C["NAT_SYN"]

    report = reconciler.doctor.look(seconds=0)

    found = {
        (f.check, f.subject, str(f.severity))
        for f in report.findings
        if f.check in ("nat-pool", "return-path")
    }
    assert found == {
        ("nat-pool", "10.9.0.1", "ok"),
        ("nat-pool", "10.9.0.2", "fail"),
        ("return-path", "10.0.0.12", "fail"),
    }


def test_serve_command_is_what_was_said() -> None:
    """The command that starts a daemon again names what is not as it would be anyway, and no more."""
    settings = ServeSettings(("eth0", "eth1"), sizes=replace(TableSizes(), services=8), listen="[::1]:80")

    words = settings.command()

    assert words == [
        *("sluice", "serve", "--interface", "eth0", "--interface", "eth1"),
        *("--listen", "[::1]:80", "--services", "8"),
    ]


@pytest.mark.parametrize("octets", [0, 1, 1472])
def test_echo_requests_are_sound(octets: int) -> None:
    """Checksums and lengths are those that scapy makes."""
    four = packets.ip_packet(
        "10.0.0.1", "10.0.0.11", 1, packets.echo_request("10.0.0.1", "10.0.0.11", 5, 6, octets)
    )
    six = packets.ip_packet(
        "fd00::1", "fd00::11", 58, packets.echo_request("fd00::1", "fd00::11", 5, 6, octets)
    )

    body = bytes(octets)
    assert four == bytes(IP(src="10.0.0.1", dst="10.0.0.11", id=0, ttl=64) / ICMP(id=5, seq=6) / body)
    plain = IPv6(src="fd00::1", dst="fd00::11", hlim=64) / ICMPv6EchoRequest(id=5, seq=6, data=body)
    assert six == bytes(plain)
    assert struct.unpack("!H", six[4:6])[0] == 8 + octets


def test_preparations_split_by_family_and_mind_others(reconciler: Reconciler) -> None:
    """Backends of IPv4 and of IPv6 are prepared by themselves; undoing leaves what other services there need."""
    config = reconciler.desired.config
    both = preparations(config, "web6", None, undo=False)
    undone = preparations(config, "web", "10.0.0.11", undo=True)

    assert [one.addresses for one in both] == [["10.0.0.12"], ["fd00::11"]]
    assert [one.undo for one in undone] == [True]
    assert "ip address del" not in undone[0].script
    assert "ip link delete dev sluice-ipip" in undone[0].script
    with pytest.raises(NotFoundError):
        preparations(config, "web", "10.9.9.9", undo=False)


def test_mode_nat_is_prepared_by_its_way_back(
    reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers go to where the balancer sends from, or (keep) everywhere, by the balancer's own address."""
    monkeypatch.setattr("lb.reconcile.preparation.source_for", lambda address: "10.0.0.1")
    document = """
settings: {nat_pools: [10.0.9.1, 10.0.0.1, "fd00::9"]}
services:
  - {name: pool, vip: 192.0.2.20, port: 80, protocol: tcp, mode: nat, backends: [{address: 10.0.0.11, port: 8080}]}
  - {name: keep, vip: 192.0.2.21, port: 80, protocol: tcp, mode: nat, nat_source: keep,
     backends: [{address: 10.0.0.12}]}
"""
    config = parse(document.encode(), now=0.0, have=Config())
    pool, keep = (preparations(config, name, None, undo=False)[0] for name in ("pool", "keep"))

    assert pool.steps[-1].commands == ("ip route replace 10.0.9.1/32 via 10.0.0.1",)
    assert keep.steps[-1].commands == ("ip route replace default via 10.0.0.1",)
    assert "lo" not in "".join(command for step in pool.steps for command in step.commands).split()


def test_service_without_backends_has_nothing_to_prepare(reconciler: Reconciler) -> None:
    """It says which command adds one."""
    empty = "services: [{name: empty, vip: 192.0.2.11, port: 80, protocol: tcp}]"
    reconciler.change(
        lambda config: parse(empty.encode(), now=reconciler.now(), have=config), actor="test", summary="test"
    )

    with pytest.raises(InvalidError, match="sluice backend add empty"):
        preparations(reconciler.desired.config, "empty", None, undo=False)
