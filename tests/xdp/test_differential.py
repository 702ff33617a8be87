"""The program does with any frame, in any configuration, what the reference in tests/reference does."""

from random import Random
from typing import Any

import pytest
import random_frames
import states
from differential import Difference, Pair, Step
from frames import BACKENDS4, ELSE6, LINK, VIP6, network, service, tcp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rig import Rig
from scapy.layers.inet import TCP
from scapy.packet import Raw
from shrink import shrunk

pytestmark = pytest.mark.root

SHRINK_SECONDS, PATIENCE_SECONDS = 10.0, 120.0
QUICK = settings(
    max_examples=20,
    deadline=None,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
chances = st.randoms(use_true_random=False)
mutated = st.builds(random_frames.frame, chances)
configurations = st.builds(states.configuration, chances)
links = st.builds(states.link, chances)


@pytest.fixture
def pair(still_rig: Rig) -> Pair:
    """The program with every feature compiled in, and the reference."""
    return Pair(still_rig)


@pytest.fixture
def exact_pair(exact_still_rig: Rig) -> Pair:
    """The program that a daemon would run, with what the configuration needs and no more, and the reference."""
    return Pair(exact_still_rig)


def check(pair: Pair, difference: Difference | None) -> None:
    """Fail with the shortest way to the difference, ready to paste."""
    if difference is not None:
        pytest.fail(str(shrunk(pair, difference, SHRINK_SECONDS)))


def configured(services: list[Any], **lists: list[Any]) -> Step:
    """The step that configures both."""
    return {"document": {"services": services, **lists}}


@QUICK
@given(document=configurations, link=links, frames=st.lists(mutated, min_size=1, max_size=20))
def test_any_frame_in_any_configuration(pair: Pair, document: Any, link: Any, frames: list[bytes]) -> None:
    """Sane, odd and broken frames, one after the other: the same verdict, action and bytes."""
    steps = [{"document": document, "link": link}, *({"frame": frame.hex()} for frame in frames)]

    difference = pair.replay(steps)

    assert difference is None, str(difference)


@QUICK
@given(
    frames=st.lists(
        st.binary(min_size=14, max_size=120) | st.binary(max_size=120).map(bytes(LINK)[:12].__add__)
    )
)
def test_any_bytes_at_all(pair: Pair, frames: list[bytes]) -> None:
    """Not even a frame, or one for us with anything in it."""
    steps = [
        configured([service(port="any")]),
        *({"frame": frame.ljust(14, b"\0").hex()} for frame in frames),
    ]

    difference = pair.replay(steps)

    assert difference is None, str(difference)


@pytest.mark.slow
@pytest.mark.parametrize("hundred_thousand", range(4))
def test_hundreds_of_thousands_of_frames(pair: Pair, hundred_thousand: int) -> None:
    """Ten thousand frames in each configuration, whose services change half-way while flows are known.

    `make fuzz` goes on for as long as one likes.
    """
    for number in range(10):
        check(pair, pair.session(Random(f"bulk {hundred_thousand} {number}"), 10_000))


@pytest.mark.slow
@pytest.mark.parametrize("seed", (6, 17))
def test_nat(pair: Pair, seed: int) -> None:
    """Four thousand frames in each configuration with services of mode nat, among them backends' replies."""
    check(pair, pair.session(Random(f"nat {seed}"), 4000, nat=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_bulk_with_no_feature_too_many(exact_pair: Pair, seed: int) -> None:
    """The same with the program of the daemon, that is compiled for what the configuration has."""
    check(exact_pair, exact_pair.session(Random(f"exact {seed}"), 10_000))


@pytest.mark.parametrize("service_port", [80, "any", "8000-8010"])
def test_same_flows_after_each_change(pair: Pair, service_port: int | str) -> None:
    """A thousand flows, then backends that drain, are disabled and go: the same flows move, to the same backends."""
    chance = Random(f"flows {service_port}")
    document = states.configuration(chance)
    backends = [{"address": b, "weight": 1, "admin_state": "enabled"} for b in states.BACKENDS]
    document["services"] = [
        {
            **service(
                f"{vip} {protocol}".replace(":", "-").replace(" ", "_"),
                vip=vip,
                port=service_port,
                protocol=protocol,
            )
        }
        | {
            "mode": "ipip",
            "affinity": "flow",
            "udp_migration": False,
            "quic": False,
            "nat_source": "pool",
            "backends": backends,
        }
        for vip in states.VIPS
        for protocol in ("tcp", "udp")
    ]
    document |= {"blocklist": [], "allowlist": [], "rules": []}
    towards = random_frames.targets(document)
    frames = [random_frames.frame(chance, towards) for _ in range(1000)]
    steps: list[Step] = [{"document": document}]
    for _ in range(4):
        steps += [{"frame": frame.hex()} for frame in frames]
        frames = [random_frames.again(chance, frame) for frame in frames]
        document = states.altered(chance, document)
        steps.append({"document": document})

    check(pair, pair.replay(steps))


@pytest.mark.parametrize("removed", ["web", "all"])
def test_flows_of_a_service_that_goes(pair: Pair, removed: str) -> None:
    """The packets of a removed service are those of the one for any port, or of none; no flow is taken along."""
    services = [service("web", backends=BACKENDS4[:1]), service("all", port="any")]
    frames = [{"frame": bytes(tcp(sport=port, flags="A")).hex()} for port in range(4000, 4050)]
    left = [document for document in services if document["name"] != removed]

    check(
        pair, pair.replay([configured(services), *frames, configured(left), *frames, configured([]), *frames])
    )


@pytest.mark.parametrize("dst", [VIP6, ELSE6])
@pytest.mark.parametrize("number", [0, 43, 60, 51])
def test_extension_cut_off_before_another_protocol(rig: Rig, number: int, dst: str) -> None:
    """An extension that reaches beyond the packet is cut off, even if no port was to be read behind it."""
    rig.apply(services=[service(vip=VIP6)])
    for protocol in (58, 59, 80):
        cut = bytes([protocol, 20, *bytes(6)]) + bytes(TCP())
        frame = LINK / network(dst=dst, nh=number) / Raw(cut)

        assert rig.verdict(frame) == "DROP_TRUNCATED"
        assert rig.verdict(bytes(frame) + bytes(200)) == "DROP_TRUNCATED"


def test_a_difference_is_found_and_shrunk(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that knows no flows parts from the program, and the report says after which few frames."""
    monkeypatch.setattr("tests.reference.balancer.Balancer._held", lambda *_: None)
    found = next(d for seed in range(20) if (d := pair.session(Random(f"broken {seed}"), 400)) is not None)

    least = shrunk(pair, found, PATIENCE_SECONDS)

    frames = [step for step in least.steps if "frame" in step]
    assert len(frames) == 2
    assert len(frames[-1]["frame"]) <= len(found.steps[-1]["frame"])
