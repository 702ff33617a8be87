"""Entries outlive the daemon: deadlines, owners and hits are those of before it was killed."""

import os
import select
import signal
from typing import Any

import httpx
import lifecycle
from place import Lab
from test_blocklist import Ask, asker, sluice  # noqa: F401  # asker is a fixture


def entries(http: httpx.Client) -> list[dict[str, Any]]:
    """All that is known of each entry, by each owner; a hit's moment is reckoned from a clock of whole seconds."""
    found = []
    for item in http.get("/v1/blocklist").raise_for_status().json()["items"]:
        shown = http.get(f"/v1/blocklist/{item['prefix'].replace('/', '%2F')}").raise_for_status().json()
        for part in (shown, *shown["entries"]):
            part["hits"]["last_hit_at"] = part["hits"]["last_hit_at"] is not None
        found.append(shown)
    return found


def test_a_restart_keeps_every_entry(lab: Lab, http: httpx.Client, asker: Ask) -> None:  # noqa: F811
    """kill -9: packets are dropped on, and the new daemon tells the same of every entry, then counts on."""
    client = asker(1, 4)
    address = client.host.address(4)
    sluice(lab, "block", address, "--ttl", "1h", "--reason", "kept")
    sluice(lab, "block", address, "203.0.113.7", "--owner", "fail2ban", "--ttl", "2h")
    sluice(lab, "block", "198.51.100.0/24", "2001:db8:bad::/48", "--count-only")
    assert client.ask() == "DROP_BLOCKLIST"
    before = entries(http)

    daemon = lifecycle.find_daemon(lab)
    assert daemon is not None
    gone = os.pidfd_open(daemon.pid)
    os.kill(daemon.pid, signal.SIGKILL)
    assert select.select([gone], [], [], 30)[0]  # while it is there, another is not let in
    os.close(gone)
    lifecycle.start_daemon(lab)
    lifecycle.wait_for_daemon(lab)

    assert entries(http) == before
    (hit,) = (entry for entry in before if entry["hits"]["packets"])
    assert (hit["owners"], hit["hits"]["packets"]) == (["operator", "fail2ban"], 1)
    assert client.ask() == "DROP_BLOCKLIST"
    assert http.get(f"/v1/blocklist/{address}").json()["hits"]["packets"] == 2
