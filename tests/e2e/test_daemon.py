"""What becomes of traffic when the daemon goes and comes back."""

import os
import signal
from typing import Any

import httpx
import lifecycle
import traffic
from place import Lab
from probe import Prober
from topology import Role


def test_killed_daemon_costs_no_packet(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: Any
) -> None:
    """kill -9 of the daemon and its restart lose no packet and nothing of the desired state."""
    add_service("dns", vips[4], "udp", 53)
    desired = http.get("/v1/config").json()

    # What comes late was not lost: the server shares its processor.
    with Prober(lab.namespace(Role.CLIENT, 1), vips[4], 53, answer_seconds=2.0) as prober:
        assert prober.wait_for(answered=True)
        lost = prober.lost
        daemon = lifecycle.find_daemon(lab)
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        assert prober.wait_for_more(100)
        lifecycle.start_daemon(lab)
        lifecycle.wait_for_daemon(lab)
        assert prober.wait_for_more(100)
        assert prober.lost == lost

    assert http.get("/v1/config").json() == desired
    kinds = [event["kind"] for event in http.get("/v1/events", params={"kind": "daemon"}).json()["items"]]
    assert kinds == ["daemon.starting", "daemon.ready"]


def test_service_changes_take_effect_at_once(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: Any
) -> None:
    """A service answers when its POST has returned, and no longer when its DELETE has."""
    client = lab.namespace(Role.CLIENT, 2)
    add_service("web", vips[4], "tcp", 8080)

    assert None not in traffic.count(traffic.run(client, "tcp", vips[4], 8080, 20))

    http.delete("/v1/services/web").raise_for_status()

    assert traffic.count(traffic.run(client, "tcp", vips[4], 8080, 5, patience=0.3)) == {None: 5}
