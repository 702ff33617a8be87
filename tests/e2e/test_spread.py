"""How flows are spread over backends: by weight, each to the one that the ring's own computation names."""

from typing import Any

import pytest
import traffic
from place import Lab
from ring_names import ring_names
from topology import Role

WEIGHTS = (1, 2, 1)
FLOWS = {"tcp": 2000, "udp": 20000}
POINTS = 3.0
SPREAD_VIPS = {4: "10.200.1.250", 6: "fc00:1::fa"}
"""Fixed, as the source ports are: chance would exceed the three points once in a hundred runs."""


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", FLOWS)
def test_flows_are_spread_by_weight_and_as_the_ring_says(
    lab: Lab, add_service: Any, protocol: str, family: int
) -> None:
    """Weights 1:2:1 give 25, 50 and 25 percent within three points, and each flow is where the ring says."""
    flows = FLOWS[protocol]
    service = add_service("web", SPREAD_VIPS[family], protocol, 80, weights=WEIGHTS)

    client = lab.namespace(Role.CLIENT, 1)
    answers = traffic.run(client, protocol, SPREAD_VIPS[family], 80, flows, first_port=30000)

    assert len(answers) == flows
    names = traffic.count(answers)
    for host, weight in zip(lab.configuration.of_role(Role.BACKEND), WEIGHTS, strict=True):
        assert 100 * names[host.label] / flows == pytest.approx(100 * weight / sum(WEIGHTS), abs=POINTS)
    assert list(answers.values()) == ring_names(lab, service, list(answers))


def test_source_affinity_keeps_a_client_on_one_backend(
    lab: Lab, vips: dict[int, str], add_service: Any
) -> None:
    """With affinity "source" all of a client's connections reach the backend that the ring names for it."""
    service = add_service("sticky", vips[4], "tcp", 80, affinity="source")

    for client in (1, 2):
        answers = traffic.run(lab.namespace(Role.CLIENT, client), "tcp", vips[4], 80, 50)

        assert len(traffic.count(answers)) == 1
        assert list(answers.values()) == ring_names(lab, service, list(answers))


def test_weight_zero_takes_no_new_flow(lab: Lab, vips: dict[int, str], add_service: Any) -> None:
    """A backend of weight 0 is not chosen, and the others take its share."""
    add_service("web", vips[4], "tcp", 80, weights=(1, 0, 1))

    names = traffic.count(traffic.run(lab.namespace(Role.CLIENT, 1), "tcp", vips[4], 80, 200))

    assert set(names) == {"backend1", "backend3"}


def test_flow_stays_when_its_backend_takes_no_new_ones(
    lab: Lab, http: Any, vips: dict[int, str], add_service: Any
) -> None:
    """Known UDP flows keep a draining backend, and flows that come after avoid it."""
    add_service("dns", vips[4], "udp", 53)
    client = lab.namespace(Role.CLIENT, 1)
    before = traffic.run(client, "udp", vips[4], 53, 300)
    draining = lab.configuration.of_role(Role.BACKEND)[0]

    http.post(f"/v1/services/dns/backends/{draining.address(4)}/drain").raise_for_status()

    assert traffic.run(client, "udp", vips[4], 53, 300) == before
    after = traffic.count(traffic.run(client, "udp", vips[4], 53, 300, first_port=40000))
    assert draining.label in traffic.count(before)
    assert draining.label not in after
    assert None not in after
