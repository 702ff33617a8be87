"""lb/doctor: each thing that can be wrong is found, by itself, with the command that mends it."""

from dataclasses import replace
from typing import Any

import pytest

from lb.dataplane.layout import layout
from lb.doctor.examine import examine
from lb.doctor.facts import (
    Answer,
    BackendAnswers,
    BackendFacts,
    CardFacts,
    DaemonFacts,
    Facts,
    HostFacts,
    InterfaceFacts,
    PoolFacts,
    TableFacts,
    TrafficFacts,
    VerdictFacts,
    VipFacts,
)
from lb.doctor.finding import Finding, Severity
from lb.doctor.traffic import ANSWERED, MEANT, OURS

HOST = HostFacts("6.1.0", headers="/usr/src/h", headers_complete=True, clock_synchronised=True)
INTERFACE = InterfaceFacts(
    "eth0",
    driver="ixgbe",
    cards=(CardFacts("eth0", lro=False, gro=True),),
    rp_filter=0,
    addresses=("10.0.0.1/24",),
)
FINE = BackendAnswers(Answer.YES, Answer.YES, Answer.YES, Answer.YES, Answer.YES)
BACKEND = BackendFacts(
    *("web", "192.0.2.10", 80, "tcp", "ipip", "10.0.0.11"),
    overhead=20,
    interface="eth0",
    mtu=9000,
    served=("eth0",),
    answers=FINE,
)
VIP = VipFacts("192.0.2.10", 1000, 3.0)
WELL = Facts(
    HOST, interfaces=(INTERFACE,), backends=(BACKEND,), vips=(VIP,), tables=(TableFacts("flows", 1, 100),)
)
LARGER = "sluice serve --interface eth0 --services 8"


def wrong(facts: Facts) -> list[Finding]:
    """All that is not as it should be."""
    return [one for one in examine(facts).findings if one.severity is not Severity.OK]


def test_nothing_is_wrong_where_nothing_is() -> None:
    """A machine that is well has findings, all of them good, and the report says so."""
    report = examine(WELL)

    assert (report.healthy, report.fails, report.warnings) == (True, 0, 0)
    assert {one.check for one in report.findings} >= {"kernel", "bcc", "xdp-mode", "mtu", "backend", "vip"}
    assert all(one.command is None for one in report.findings)


HOST_FAULTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"kernel_lacks": {"BPF array maps": "Function not implemented"}}, "kernel", "fail", "reboot"),
    ({"kernel_lacks": {"BPF array maps": "Operation not permitted"}}, "kernel", "fail", "sudo sluice doctor"),
    ({"kernel_lacks": {"BPF ring buffers": "Invalid argument"}}, "kernel", "fail", "linux-image"),
    ({"bcc_fault": "it cannot be imported (no libbcc)"}, "bcc", "fail", "reinstall python3-bpfcc libbpfcc"),
    ({"headers": None, "headers_complete": False}, "headers", "fail", "lb.dataplane.headers merge"),
    ({"headers_complete": False, "headers_chosen": True}, "headers", "fail", "unset BCC_KERNEL_SOURCE"),
    ({"bpffs_mounted": False}, "bpffs", "warn", "mount -t bpf bpf /sys/fs/bpf"),
    ({"bpffs_mounted": False, "can_mount": False}, "bpffs", "fail", "mount -t bpf bpf /sys/fs/bpf"),
    ({"lacks_capabilities": ("CAP_BPF",)}, "capabilities", "fail", "sudo sluice doctor"),
    ({"clock_synchronised": False}, "clock", "warn", "timedatectl set-ntp true"),
    ({"clock_stepped_seconds": -90.0}, "clock", "warn", "sluice blocklist list"),
]


@pytest.mark.parametrize(("more", "check", "severity", "command"), HOST_FAULTS)
def test_fault_of_the_machine_is_named(more: dict[str, Any], check: str, severity: str, command: str) -> None:
    """Each fault of the machine is one finding, with its remedy."""
    (found,) = wrong(replace(WELL, host=replace(HOST, **more)))

    assert (found.check, found.severity) == (check, severity)
    assert command in str(found.command)
    assert found.effect


INTERFACE_FAULTS: list[tuple[dict[str, Any], str, str, str | None]] = [
    ({"there": False}, "interface", "fail", "ip link show"),
    ({"up": False}, "interface", "fail", "ip link set dev eth0 up"),
    ({"foreign_program": '"xdp_pass" (id 7)'}, "foreign-program", "fail", "ip link set dev eth0 xdp off"),
    (
        {"foreign_program": '"xdp_pass" (id 7)', "served": False},
        "foreign-program",
        "warn",
        "ip link set dev eth0 xdp off",
    ),
    ({"attached": False, "xdp_mode": "none"}, "xdp-mode", "fail", "systemctl restart sluice"),
    ({"xdp_mode": "generic", "cards": ()}, "xdp-mode", "warn", "--xdp-mode native"),
    ({"xdp_mode": "generic", "cards": (), "asked_mode": "generic"}, "xdp-mode", "warn", "--xdp-mode native"),
    ({"xdp_mode": "generic", "cards": (), "kind": "vlan"}, "xdp-mode", "warn", "None"),
    ({"xdp_mode": "generic", "cards": (), "kind": "bond"}, "xdp-mode", "warn", "cat /proc/net/bonding/eth0"),
    ({"cards": (CardFacts("eth0", lro=True),)}, "merging", "fail", "ethtool -K eth0 lro off"),
    (
        {"cards": (CardFacts("eth0", lro=True, hardware_gro=True),)},
        "merging",
        "fail",
        "ethtool -K eth0 lro off rx-gro-hw off",
    ),
    (
        {"kind": "bond", "cards": (CardFacts("p1", gro=True), CardFacts("p2", lro=True))},
        "merging",
        "fail",
        "ethtool -K p2 lro off",
    ),
    (
        {"cards": (CardFacts("eth0", rxvlan=True),), "vlans": ("eth0.5",)},
        "rxvlan",
        "warn",
        "ethtool -K eth0 rxvlan off",
    ),
    (
        {"kind": "bond", "cards": (CardFacts("p1", rxvlan=True), CardFacts("p2")), "vlans": ("eth0.5",)},
        "rxvlan",
        "warn",
        "ethtool -K p1 rxvlan off",
    ),
    (
        {"rp_filter": 1},
        "rp-filter",
        "warn",
        "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0",
    ),
    (
        {"cpus": 4, "packets_by_cpu": (990_000, 10_000, 0, 0), "rx_queues": 1, "rx_queues_most": 8},
        "rss",
        "warn",
        "ethtool -L eth0 combined 4",
    ),
    (
        {"cpus": 4, "packets_by_cpu": (990_000, 0, 0, 0), "rx_queues": 4, "rx_queues_most": 4},
        "rss",
        "warn",
        "ethtool -X eth0 equal 4",
    ),
]


@pytest.mark.parametrize(("more", "check", "severity", "command"), INTERFACE_FAULTS)
def test_fault_of_an_interface_is_named(
    more: dict[str, Any], check: str, severity: str, command: str
) -> None:
    """Each fault of an interface is one finding, with its remedy."""
    (found,) = wrong(replace(WELL, interfaces=(replace(INTERFACE, **more),)))

    assert (found.check, found.severity, found.subject) == (check, severity, "eth0")
    assert command in str(found.command)


@pytest.mark.parametrize(
    "more",
    [
        {"cards": (CardFacts("eth0", rxvlan=True),)},
        {"cards": (CardFacts("eth1", rxvlan=True),), "vlans": ("eth0.5",), "kind": "vlan"},
        {"rp_filter": 2},
        {"cards": (CardFacts("eth0", gro=True),)},
        {"cpus": 4, "packets_by_cpu": (99_000, 0, 0, 0)},
        {"cpus": 4, "packets_by_cpu": (250_000, 250_000, 250_000, 250_000)},
        {"cpus": 4, "packets_by_cpu": (990_000, 0, 0, 0), "rx_queues": 1, "rx_queues_most": 1},
        {"cpus": 1, "packets_by_cpu": (990_000,)},
    ],
)
def test_what_does_no_harm_is_not_told(more: dict[str, Any]) -> None:
    """VLAN offload without VLANs, a loose reverse path filter, GRO behind the program, few packets, one queue."""
    assert wrong(replace(WELL, interfaces=(replace(INTERFACE, **more),))) == []


def test_generic_mode_says_why() -> None:
    """Generic mode is the operator's wish, or the driver's fault."""
    asked, driver = (
        wrong(replace(WELL, interfaces=(replace(INTERFACE, xdp_mode="generic", cards=(), asked_mode=mode),)))[
            0
        ]
        for mode in ("generic", "auto")
    )

    assert "because of --xdp-mode" in asked.summary
    assert "driver ixgbe does not support it" in driver.summary


def test_merging_matters_before_the_program_alone() -> None:
    """GRO comes behind a native program and before a generic one."""
    generic = replace(INTERFACE, xdp_mode="generic")

    assert [one.check for one in wrong(replace(WELL, interfaces=(generic,)))] == ["merging", "xdp-mode"]


def test_vlan_device_has_its_packets_merged_beneath() -> None:
    """A program on a VLAN device comes after the GRO of the card beneath, where alone it can be turned off."""
    vlan = replace(
        INTERFACE, xdp_mode="generic", kind="vlan", cards=(CardFacts("eth9", gro=True, rxvlan=True),)
    )

    merging, mode = wrong(replace(WELL, interfaces=(vlan,)))

    assert merging.summary == "eth9 merges packets before the program on eth0 sees them (gro on)"
    assert merging.command == "ethtool -K eth9 gro off"
    assert (mode.check, mode.severity, mode.command) == ("xdp-mode", Severity.WARN, None)


@pytest.mark.parametrize(
    ("table", "severity", "command"),
    [
        (TableFacts("services", 80, 100, "services"), "warn", "sluice serve --interface eth0 --services 128"),
        (TableFacts("services", 4, 4, "services"), "fail", LARGER),
        (TableFacts("flows", 100, 100, "flow-slots"), "warn", "--flow-slots 128"),
        (TableFacts("rules", 1000, 1024), "fail", "None"),
    ],
)
def test_table_that_is_nearly_full_is_named(table: TableFacts, severity: str, command: str) -> None:
    """A table from four fifths on, with the whole command that starts a daemon with a larger one."""
    words = ("sluice", "serve", "--services", "4", "--interface", "eth0")
    (found,) = wrong(replace(WELL, tables=(table,), daemon=DaemonFacts((), words)))

    assert (found.check, found.severity, found.subject) == ("tables", severity, table.name)
    assert command in str(found.command)


THIEF = "the machine with MAC 02:00:00:00:00:09"
SETUP = "sluice backend-setup web 10.0.0.11 --script | ssh root@10.0.0.11 sh"
BACKEND_FAULTS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"interface": None}, "neighbour", "fail", "ip route add 10.0.0.11"),
    ({"resolved": False}, "neighbour", "fail", SETUP),
    ({"mode": "l2", "gateway": True}, "neighbour", "fail", "sluice service set web --mode ipip"),
    ({"mtu": 1500}, "mtu", "warn", "ip link set dev eth0 mtu 1520"),
    ({"unproven": 3}, "return-path", "warn", "net.ipv4.conf.all.rp_filter=0"),
]
ANSWER_FAULTS: list[tuple[dict[str, Answer], str, str, str]] = [
    ({"ping": Answer.NOTHING}, "reachable", "fail", SETUP),
    ({"unwrapped": Answer.REFUSED}, "encapsulation", "fail", SETUP),
    ({"unwrapped": Answer.NOTHING, "vip": Answer.NOTHING}, "encapsulation", "fail", SETUP),
    (
        {"vip": Answer.NOTHING, "vip_there": Answer.NOTHING},
        "vip-on-backend",
        "fail",
        "ip address replace 192.0.2.10/32 dev lo",
    ),
    ({"vip": Answer.REFUSED}, "server", "fail", "sluice backend disable web 10.0.0.11"),
    ({"vip": Answer.NOTHING}, "server", "fail", "sluice backend disable web 10.0.0.11"),
    ({"full_size": Answer.NOTHING}, "path-mtu", "warn", "mtu 1520"),
]


@pytest.mark.parametrize(("more", "check", "severity", "command"), BACKEND_FAULTS)
def test_fault_of_the_way_is_named(more: dict[str, Any], check: str, severity: str, command: str) -> None:
    """No route, no next hop, a router before mode l2, too small an MTU, clients that hear nothing."""
    (found,) = wrong(replace(WELL, backends=(replace(BACKEND, **more),)))

    assert (found.check, found.severity) == (check, severity)
    assert command in str(found.command)


@pytest.mark.parametrize(("more", "check", "severity", "command"), ANSWER_FAULTS)
def test_fault_of_a_backend_is_named(
    more: dict[str, Answer], check: str, severity: str, command: str
) -> None:
    """What a backend answers, and what not, tells which one of its parts is at fault."""
    (found,) = wrong(replace(WELL, backends=(replace(BACKEND, answers=replace(FINE, **more)),)))

    assert (found.check, found.severity) == (check, severity)
    assert command in str(found.command)


def test_one_fault_of_many_services_is_told_once() -> None:
    """A backend that is down is one finding, whatever services it is in, and names them."""
    names = ("web", "dns", "mail", "ftp")
    down = tuple(replace(BACKEND, service=name, resolved=False) for name in names)

    (found,) = wrong(replace(WELL, backends=down))

    assert "web, dns, mail and 1 more" in found.effect


def test_what_was_not_asked_is_no_fault() -> None:
    """A backend that could not be tried is not accused."""
    assert wrong(replace(WELL, backends=(replace(BACKEND, answers=BackendAnswers()),))) == []


def test_disabled_backend_is_not_looked_at() -> None:
    """What gets no packets loses none."""
    assert wrong(replace(WELL, backends=(replace(BACKEND, active=False, resolved=False),))) == []


def test_silent_udp_server_is_no_fault() -> None:
    """A UDP server need not answer what it does not understand; the VIP answers a ping."""
    udp = replace(BACKEND, protocol="udp", answers=replace(FINE, vip=Answer.NOTHING))

    assert wrong(replace(WELL, backends=(udp,))) == []


def test_return_path_is_sure_when_others_are_heard() -> None:
    """Clients that hear nothing from one backend, while they hear others of the service, are sure of their case."""
    deaf = replace(BACKEND, proven=2, unproven=5)
    heard = replace(BACKEND, address="10.0.0.12", proven=9)

    (found,) = wrong(replace(WELL, backends=(deaf, heard)))

    assert (found.check, found.severity, found.subject) == ("return-path", "fail", "10.0.0.11")
    assert found.run_on == "10.0.0.11"


@pytest.mark.parametrize(
    ("vip", "command", "run_on"),
    [
        (VipFacts("192.0.2.10", 0), "ip route replace 192.0.2.10/32 via 10.0.0.1", "router"),
        (VipFacts("10.0.0.99", 0, None, "eth0"), "ip address add 10.0.0.99/32 dev eth0", "balancer"),
        (
            VipFacts("10.0.0.99", 9, 1.0, "eth0", True, deaf=True),
            "sysctl -w net/ipv4/conf/eth0/accept_local=1",
            "balancer",
        ),
        (VipFacts("fc00:1::/80", 0), "ip route replace fc00:1::/80 via THIS-MACHINE", "router"),
        (
            VipFacts("10.0.0.99", 9, 1.0, "eth0", True, ("02:00:00:00:00:09",)),
            "arp_ignore=1",
            THIEF,
        ),
    ],
)
def test_vip_that_does_not_come_here_is_named(vip: VipFacts, command: str, run_on: str) -> None:
    """A VIP without a packet is not routed here, or not answered for; one that another answers for is stolen."""
    (found,) = wrong(replace(WELL, vips=(vip,)))

    assert (found.check, found.subject, found.run_on) == ("vip", vip.vip, run_on)
    assert command in str(found.command)


def verdict(name: str, total: int, lately: int = 0) -> VerdictFacts:
    one = next(v for v in layout().verdicts if v.name == name)
    return VerdictFacts(name, one.action, one.sentence, total, lately)


def said(*verdicts: VerdictFacts, seconds: float = 2.0) -> Finding:
    found = examine(replace(WELL, traffic=TrafficFacts(seconds, verdicts))).findings
    return next(one for one in found if one.check == "traffic")


def test_why_nothing_is_forwarded() -> None:
    """Packets that come and all end as one verdict are the answer, with what to do about it."""
    found = said(verdict("TX_IPIP", 500), verdict("DROP_NO_NEXT_HOP", 30, 30))

    assert found.severity is Severity.FAIL
    assert found.summary == (
        "30 packets for VIPs came in the last 2 s and none was forwarded: all of them ended as DROP_NO_NEXT_HOP"
    )
    assert found.command == "sluice doctor --all"


def test_the_past_answers_where_nothing_comes_now() -> None:
    """Without packets while it looked, all since the attach are judged."""
    found = said(verdict("DROP_NO_BACKEND", 12), verdict("DROP_TOO_BIG", 3))

    assert found.severity is Severity.FAIL
    assert "15 packets for VIPs came since the program was attached" in found.summary
    assert "12 of them ended as DROP_NO_BACKEND" in found.summary


def test_no_packet_for_any_vip_is_said() -> None:
    """Silence is no fault of the balancer's, but it is said, with what came for others."""
    found = said(verdict("TX_IPIP", 0), verdict("PASS_NOT_OUR_MAC", 9, 9))

    assert found.severity is Severity.OK
    assert found.summary == "no packet for any VIP came in the last 2 s; 9 came for other machines"


def test_what_is_meant_to_be_dropped_is_no_fault() -> None:
    """A flood that the blocklist takes is not a balancer that forwards nothing."""
    found = said(verdict("DROP_BLOCKLIST", 900, 900))

    assert found.severity is Severity.OK
    assert "900 dropped as you asked" in found.summary


def test_verdicts_that_the_doctor_judges_are_there() -> None:
    """The names it goes by are those of the verdict list."""
    assert {one.name for one in layout().verdicts} >= OURS | MEANT | ANSWERED


@pytest.mark.parametrize(("expected", "severity"), [(True, "fail"), (False, "warn")])
def test_daemon_that_does_not_answer(expected: bool, severity: str) -> None:
    """It fails where one was to be there, and warns where none was started yet."""
    (found,) = wrong(replace(WELL, daemon=DaemonFacts(unreachable="no socket", expected=expected)))

    assert (found.check, found.severity) == ("daemon", severity)


def test_reasons_why_it_is_not_ready_are_findings() -> None:
    """What /readyz says, the doctor says."""
    (found,) = wrong(replace(WELL, daemon=DaemonFacts(("interface eth0 is not attached",))))

    assert (found.check, found.summary) == ("daemon", "interface eth0 is not attached")


POOL_CASES: list[tuple[PoolFacts, tuple[str, str, str] | None]] = [
    (PoolFacts("10.0.0.50", on_link="eth0", local="eth0", local_is_served=True), None),
    (PoolFacts("10.0.0.50", on_link="eth0", local="lo"), None),
    (PoolFacts("fd00::50", local="eth0", local_is_served=True), None),
    (PoolFacts("10.8.0.50", answered=1), None),
    (
        PoolFacts("fd00::50", on_link="eth0", local="lo", answered=1),
        ("warn", "balancer", "ip address add fd00::50/128 dev eth0"),
    ),
    (
        PoolFacts("10.0.0.50", on_link="eth0"),
        ("fail", "balancer", "ip address add 10.0.0.50/32 dev eth0"),
    ),
    (
        PoolFacts("fd00::50", on_link="eth0", local="lo"),
        ("fail", "balancer", "ip address add fd00::50/128 dev eth0"),
    ),
    (PoolFacts("10.8.0.50"), ("warn", "router", "ip route replace 10.8.0.50/32 via 10.0.0.1")),
    (PoolFacts("10.8.0.50", unanswered=3), ("fail", "router", "ip route replace 10.8.0.50/32 via 10.0.0.1")),
    (
        PoolFacts("fd08::50", unanswered=2),
        ("warn", "router", "ip route replace fd08::50/128 via THIS-MACHINE"),
    ),
]


@pytest.mark.parametrize(("pool", "expected"), POOL_CASES)
def test_pool_address_is_answered_for_or_routed(
    pool: PoolFacts, expected: tuple[str, str, str] | None
) -> None:
    """Who answers for an address of nat_pools, and what has come back to it, say what is wrong and what mends it."""
    found = [(f.severity, f.run_on, f.command) for f in wrong(replace(WELL, pools=(pool,)))]

    assert found == ([] if expected is None else [expected])


def test_routers_are_not_sent_to_a_pool_address() -> None:
    """Where an interface has other addresses too, a VIP is to be routed to one of these."""
    interface = replace(INTERFACE, addresses=("10.0.0.50/24", "10.0.0.1/24"))
    pool = PoolFacts("10.0.0.50", on_link="eth0", local="eth0", local_is_served=True)
    (found,) = wrong(replace(WELL, interfaces=(interface,), pools=(pool,), vips=(VipFacts("192.0.2.10", 0),)))

    assert found.command == "ip route replace 192.0.2.10/32 via 10.0.0.1"


@pytest.mark.parametrize("keeps", [True, False])
def test_answers_of_mode_nat_that_do_not_come_by_here(keeps: bool) -> None:
    """The way that a backend's answers take is the backend's; backend-setup is what gives it one."""
    backend = replace(BACKEND, mode="nat", overhead=0, unproven=3, keeps_source=keeps)
    (found,) = wrong(replace(WELL, backends=(backend,)))

    assert (found.check, found.subject, found.severity) == ("return-path", "10.0.0.11", "warn")
    assert ("keep" in found.effect) is keeps
    assert found.command == "sluice backend-setup web 10.0.0.11 --script | ssh root@10.0.0.11 sh"


def test_answers_of_nat_that_come_in_where_nobody_translates() -> None:
    """A backend behind an interface that is not served is told with the command that serves it too."""
    backend = replace(BACKEND, mode="nat", overhead=0, unproven=3, interface="eth1")
    (found,) = wrong(replace(WELL, backends=(backend,)))

    assert (found.check, found.subject) == ("return-path", "10.0.0.11")
    assert "eth1, which is not served" in found.effect
    assert found.command == "sluice serve --interface eth0 --interface eth1"


@pytest.mark.parametrize(
    ("table", "command"), [("nat_ipv4", "sluice apply"), ("nat_keep", "--nat-slots 131072")]
)
def test_ports_that_run_short(table: str, command: str) -> None:
    """Addresses make room, or slots, by the kind of flows; new flows are what suffers."""
    full = TableFacts(table, 65535, 65535, *(("nat-slots", 131072) if table == "nat_keep" else ()))
    (found,) = wrong(replace(WELL, tables=(full,)))

    assert command in str(found.command)
    assert "DROP_NAT_PORTS" in found.effect
