"""What the program must be able to do for a desired state, and what a service's flags say."""

from typing import Any

import numpy as np
import pytest
from service_samples import named, service

from lb.dataplane.layout import layout
from lb.dataplane.protocol import ProgramWish
from lb.dataplane.standby import with_standby
from lb.dataplane.twin import SMALL
from lb.model import Config, Settings
from lb.reconcile.lists import ListPlan
from lb.reconcile.services import ServicePlans, plan_services
from lb.reconcile.wish import program_wish

UDP = {"protocol": "udp"}
GUARD = {"new_flows_per_second": 5000}


def wish(settings: dict[str, Any], *services: dict[str, Any]) -> tuple[set[str], dict[str, int]]:
    """Features without HAVE_, and constants, of a state with these services."""
    made = named(*(service(f"s{n}", **more) for n, more in enumerate(services)))
    empty = ListPlan(owners=np.zeros(4, np.uint64))
    found = program_wish(Config(services=made, settings=Settings(**settings)), empty, empty, redirects=False)
    return {name.removeprefix("HAVE_") for name in found.features}, dict(found.constants)


@pytest.mark.parametrize(
    ("settings", "services", "features"),
    [
        ({}, [], {"SPOOF", "ECHO"}),
        ({"drop_spoofed": False, "answer_echo": False}, [], set()),
        ({}, [{}], {"SPOOF", "ECHO", "TOO_BIG", "VIP4", "IPIP"}),
        ({"answer_echo": False, "too_big_replies_per_second": 0}, [{}], {"SPOOF", "VIP4", "IPIP"}),
        ({}, [{"mode": "l2"}], {"SPOOF", "ECHO", "VIP4", "L2"}),
        (
            {},
            [{"mode": "l2"}, {"mode": "l2", "health_check": {"type": "tcp"}}],
            {"SPOOF", "ECHO", "VIP4", "L2", "PROBES"},
        ),
        (
            {},
            [
                {"mode": "l2", "health_check": {"type": "tcp", "via": "direct"}},
                {"mode": "l2", "health_check": {"type": "command", "command": ["/bin/true"]}},
            ],
            {"SPOOF", "ECHO", "VIP4", "L2"},
        ),
        (
            {},
            [{"mode": "l2"}, {"mode": "l2", "flood_protection": GUARD}],
            {"SPOOF", "ECHO", "VIP4", "L2", "GUARD"},
        ),
        ({}, [{"mode": "gue"}], {"SPOOF", "ECHO", "TOO_BIG", "VIP4", "GUE"}),
        ({"drop_spoofed": False}, [{"mode": "l2", "vip": "fc00::/64"}], {"ECHO", "VIP6", "VIP_PREFIX", "L2"}),
        (
            {"drop_spoofed": False, "answer_echo": False},
            [
                {**UDP, "mode": "l2", "affinity": "destination-port", "quic": True},
                {**UDP, "mode": "l2", "port": "any", "affinity": "source", "udp_migration": True},
            ],
            {"VIP4", "L2", "PORT_AFFINITY", "QUIC", "ANY_PORT", "SOURCE_AFFINITY", "UDP_MIGRATION"},
        ),
        (
            {},
            [{"mode": "nat"}, {"mode": "nat", "protocol": "icmp", "port": None}],
            {"SPOOF", "ECHO", "TOO_BIG", "VIP4", "NAT", "NAT_ICMP"},
        ),
    ],
)
def test_features_are_those_in_use(
    settings: dict[str, Any], services: list[dict[str, Any]], features: set[str]
) -> None:
    """A feature is wished for if a service or a setting needs it, and no other."""
    assert wish(settings, *services)[0] == features


def test_constants_are_the_settings() -> None:
    """The numbers that the program is built with."""
    constants = wish({"gue_port": 6081, "too_big_replies_per_second": 7})[1]

    assert (constants["GUE_PORT"], constants["TOO_BIG_PER_SECOND"]) == (6081, 7)
    assert wish({})[1].items() >= {"GUE_PORT": 6080, "TOO_BIG_PER_SECOND": 1000, "UDP_IDLE_S": 30}.items()


def test_what_is_kept_ready_for_rules() -> None:
    """Once there is a rule, a program is ready for one that asks other fields; without rules none is made larger."""
    one = with_standby(ProgramWish(frozenset({"HAVE_RULES", "HAVE_RULE_PORT"})))
    other = with_standby(ProgramWish(frozenset({"HAVE_RULES", "HAVE_RULE_SOURCE", "HAVE_RULE_ALLOW"})))

    assert one == other
    assert not {name for name in with_standby(ProgramWish(frozenset())).features if "RULE" in name}


@pytest.mark.parametrize(
    ("more", "flags"),
    [
        ({}, set()),
        ({"mode": "l2"}, {"L2"}),
        ({"mode": "gue"}, {"GUE"}),
        ({"affinity": "source"}, {"SOURCE_AFFINITY"}),
        ({"affinity": "destination-port"}, {"PORT_AFFINITY"}),
        ({**UDP, "udp_migration": True, "quic": True}, {"UDP_MIGRATION", "QUIC"}),
        ({"flood_protection": GUARD}, {"GUARD"}),
    ],
)
def test_flags_of_a_service(more: dict[str, Any], flags: set[str]) -> None:
    """Struct service says how its packets are treated, by one bit each."""
    plan = plan_services(named(service(**more)), ServicePlans(), SMALL).by_name["web"]

    assert plan.value[2] == sum(layout().constants[f"SERVICE_{flag}"] for flag in flags)
