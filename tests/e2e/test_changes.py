"""Drains and changes under load, with the real program: what is foretold happens, and what nobody confirms goes."""

import json
import os
import signal
import subprocess
import time
from typing import Any

import httpx
import lifecycle
from place import Lab
from shared_lab import AddService
from test_hitless import CONNECTIONS, SLUICE, Load, failures, sluice, wrk
from topology import Host, Role


def backends(lab: Lab) -> list[Host]:
    """The lab's three."""
    return lab.configuration.of_role(Role.BACKEND)


def flows(http: httpx.Client, service: str) -> dict[str, int]:
    """Live flows by backend."""
    seen = http.get(f"/v1/services/{service}/status").raise_for_status().json()
    return {backend["address"]: backend["flows"] for backend in seen["backends"]}


def test_a_drain_waits_for_the_last_connection(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: AddService
) -> None:
    """Under load new connections avoid the backend, those it has go on; the command returns when they have ended."""
    add_service("web", vips[4], "tcp", 80)
    leaving = backends(lab)[0]
    address, namespace = leaving.address(4), lab.namespace(Role.CLIENT, 1)
    words = [SLUICE, "--server", f"unix://{lab.socket}", "backend", "drain", "web", address, "--wait"]

    with Load(namespace, vips[4], 80) as old:
        at_it = [c for c in old.connections if c.names[-1] == leaving.label]
        assert at_it
        assert flows(http, "web")[address] == len(at_it)
        given_up = sluice(lab, *words[3:], "--timeout", "0")
        assert (given_up.returncode, f"{address} still has {len(at_it)} flow" in given_up.stderr) == (1, True)
        waiting = subprocess.Popen([*words, "--timeout", "120"], stdout=subprocess.PIPE, text=True)
        with wrk(lab, f"http://{vips[4]}/whoami", 2) as report, Load(namespace, vips[4], 80) as new:
            old.wait_for_more(20)
            assert failures(report()) == []
            assert leaving.label not in {name for c in new.connections for name in c.names}
            assert waiting.poll() is None
        assert [c.names[-1] for c in at_it] == [leaving.label] * len(at_it)
    for connection in old.connections:
        assert connection.failure is None
        assert len(set(connection.names)) == 1

    said, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, said) == (0, f"backend {address} of web is draining: no flows are left\n")
    assert flows(http, "web")[address] == 0


def test_what_moves_is_foretold_to_the_connection(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: AddService
) -> None:
    """Of kept-alive connections just those of the backend that is taken out: so says a dry run, so does the kernel."""
    add_service("web", vips[4], "tcp", 80)
    gone = backends(lab)[2]
    document = http.get("/v1/config").json()
    document["services"][0]["backends"] = document["services"][0]["backends"][:2]
    plan = json.dumps(document)

    with Load(lab.namespace(Role.CLIENT, 1), vips[4], 80) as load:
        its = [c for c in load.connections if c.names[-1] == gone.label]
        others = [c for c in load.connections if c not in its]
        foretold = json.loads(apply(lab, plan, "--dry-run", "-o", "json").stdout)["disruption"]
        assert [(m["service"], m["flows"], m["flows_moved"], m["exact"]) for m in foretold] == [
            ("web", CONNECTIONS, len(its), True)
        ]
        refused = apply(lab, plan, "--max-moved", "1%")
        assert refused.returncode == 4
        assert f"{len(its)} of {CONNECTIONS} live flows would move" in refused.stderr
        load.wait_for_more(3)
        assert [c.failure for c in load.connections] == [None] * CONNECTIONS

        done = json.loads(apply(lab, plan, "--max-moved", "1%", "--force", "-o", "json").stdout)
        assert done["disruption"] == foretold
        load.wait_for_more(5)
        # The backend that a connection has moved to does not know it, and resets it.
        assert all(c.failure for c in its)
        assert [(c.failure, len(set(c.names))) for c in others] == [(None, 1)] * len(others)


def test_what_is_not_confirmed_goes_though_the_daemon_was_killed(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: AddService
) -> None:
    """Its deadline passes while nobody runs, under load: the start brings back what was. A living daemon does, too.

    And 400 services, applied and not confirmed, come and go as one revision each.
    """
    add_service("web", vips[4], "tcp", 80)
    document = http.get("/v1/config").json()
    revision = int(http.get("/v1/config").headers["sluice-revision"])
    less = json.dumps({**document, "services": [{**document["services"][0], "labels": {"tried": "yes"}}]})

    with wrk(lab, f"http://{vips[4]}/whoami", 4) as report:
        assert apply(lab, less, "--confirm-within", "2s").returncode == 0
        deadline = time.time() + 2
        daemon = lifecycle.find_daemon(lab)
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        assert failures(report()) == []
    time.sleep(max(0.0, deadline - time.time()))
    lifecycle.start_daemon(lab)
    lifecycle.wait_for_daemon(lab)

    assert http.get("/v1/config").json() == document
    assert http.get("/v1/status").json()["pending"] is None
    newest = http.get("/v1/config/revisions").json()["items"][0]
    said = f"revision {revision + 1} was not confirmed in time: back to revision {revision}"
    assert (newest["revision"], newest["actor"], newest["summary"]) == (revision + 2, "confirm", said)

    many = [
        {**document["services"][0], "name": f"s{n}", "vip": f"10.201.{n // 200}.{n % 200 + 1}"}
        for n in range(400)
    ]
    wrong = json.dumps({"services": [*many[:399], {**many[399], "port": 0}]})
    assert apply(lab, wrong).returncode == 1
    assert http.get("/v1/config").json() == document
    right = json.dumps({**document, "services": document["services"] + many})
    last = http.get("/v1/events", params={"limit": 10000}).json()["last"]
    assert apply(lab, right, "--confirm-within", "3s").returncode == 0
    assert http.get("/v1/services", params={"limit": 1}).json()["total"] == 401
    event = next_event(http, last, "config.rolled-back")
    assert event["facts"]["revision"] == revision + 4
    assert http.get("/v1/config").json() == document


def apply(lab: Lab, document: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, with a document on its standard input."""
    return subprocess.run(
        [SLUICE, "--server", f"unix://{lab.socket}", "apply", "-f", "-", *words],
        input=document,
        capture_output=True,
        text=True,
        check=False,
    )


def next_event(http: httpx.Client, last: int, kind: str) -> dict[str, Any]:
    """The next of a kind after number last, waited for."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
    with http.stream("GET", "/v1/events", params={"kind": kind}, headers=headers) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:") and '"kind"' in line:
                found: dict[str, Any] = json.loads(line.removeprefix("data:"))
                if found["kind"] == kind:
                    return found
    raise AssertionError(f"no {kind} came")
