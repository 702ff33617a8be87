"""What is seen: status, statistics, verdicts, health and metrics."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from lb import __version__
from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler

JsonDocument = dict[str, Any]


def samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The exposition as a prometheus would read it."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def count_packets(plane: TwinDataPlane, reconciler: Reconciler, packets: int, size: int) -> None:
    """As if so many packets had been forwarded to the first backend of web, and as many dropped."""
    plan = reconciler._plans.services.by_name["web"]
    place = plan.place(plan.service.backends[0].address.packed)
    assert place is not None
    plane.tables.backend_counters.add(plan.start + place, packets, packets * size)
    number = {v.name: v.number for v in plane.verdicts}
    plane.tables.verdict_counters.add(number["TX_IPIP"], packets, packets * size)
    plane.tables.verdict_counters.add(number["DROP_BLOCKLIST"], packets, packets * size)


def test_status_is_the_whole_observed_document(client: TestClient, web: JsonDocument) -> None:
    """Interfaces, program, services and tables, apart from what is desired."""
    status = client.get("/v1/status").json()

    assert (status["version"], status["revision"], status["ready"], status["reasons"]) == (
        __version__,
        1,
        True,
        [],
    )
    assert status["interfaces"][0]["name"] == "twin0"
    assert "HAVE_IPIP" in status["program"]["features"]
    assert {t["name"]: t["entries"] for t in status["tables"]}["services"] == 1
    assert status["services"] == [client.get("/v1/services/web/status").json()]


def test_the_status_of_a_service_is_what_is_seen_of_it(
    client: TestClient, web: JsonDocument, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """Effective state, ring share, next hop and packets of each backend."""
    count_packets(plane, reconciler, 5, 60)

    status = client.get("/v1/services/web/status").json()
    first, second = status.pop("backends")
    assert status == {
        "name": "web",
        "vip": "192.0.2.10",
        "port": 80,
        "protocol": "tcp",
        "mode": "ipip",
        "flows": 0,
        "packets": 5,
        "bytes": 300,
        "flood_protection": None,
    }
    assert (first["effective_state"], first["packets"], first["bytes"]) == ("active", 5, 300)
    assert first["next_hop_mac"] == "02:10:0a:00:00:0b"
    assert second["ring_share"] == pytest.approx(2 / 3)


def test_stats_count_by_verdict_service_and_backend(
    client: TestClient, web: JsonDocument, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """Packets and bytes, backends below their service."""
    count_packets(plane, reconciler, 7, 100)

    stats = client.get("/v1/stats").json()
    seen, none = {"packets": 7, "bytes": 700}, {"packets": 0, "bytes": 0}
    assert stats["verdicts"]["TX_IPIP"] == stats["verdicts"]["DROP_BLOCKLIST"] == seen
    assert stats["verdicts"].keys() == {v.name for v in plane.verdicts}
    assert stats["services"] == {"web": seen}
    assert stats["backends"] == {"web": {"10.0.0.11": seen, "10.0.0.12": none}}
    assert stats["flow_table"] == {"hits": 7, "misses": 0, "evictions": 0, "untracked": 0}
    assert stats["quic"] == {"by_id": 0, "unknown": 0, "without": 0}


def test_quic_packets_are_counted_by_what_their_id_said(
    client: TestClient, web: JsonDocument, plane: TwinDataPlane
) -> None:
    """/stats and the metric tell the same of packets by id, with an unknown one, and with none."""
    counters = plane.tables.quic_counters.values  # type: ignore[attr-defined]
    counters["by_id"], counters["unknown"], counters["without"] = 5, 2, 3

    assert client.get("/v1/stats").json()["quic"] == {"by_id": 5, "unknown": 2, "without": 3}
    seen = samples(client)
    kinds = ("known", "unknown", "none")
    assert [seen["sluice_quic_packets_total", (("id", kind),)] for kind in kinds] == [5, 2, 3]


def test_flows_of_nat_are_counted_by_what_became_of_them(
    client: TestClient, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """/stats and the metrics tell the same: who was refused by pool, the rest by event, and how full each pool is."""
    document = {"settings": {"nat_pools": ["10.9.0.1"], "nat_ports": "2000-2009"}}
    client.put("/v1/config", json=document).raise_for_status()
    counters = plane.tables.nat_counters.values  # type: ignore[attr-defined]
    counters["opened"], counters["reopened"], counters["no_port"] = 9, 2, (4, 5, 6)
    counters["taken_over"], counters["raced"] = 1, 3
    plane.tables.arrays.nat_forward["word"][reconciler._plans.nat.in_use[0] << 16 | 2003] = 1

    nat, seen = client.get("/v1/stats").json()["nat"], samples(client)

    refused = {"ipv4": 4, "ipv6": 5, "keep": 6}
    events = {"opened": 9, "reopened": 2, "taken_over": 1, "raced": 3, "ended": 0, "ended_early": 0}
    assert nat == {**events, "no_port": refused}
    for pool, count in refused.items():
        assert seen["sluice_nat_refused_flows_total", (("pool", pool),)] == count
    for event, count in events.items():
        assert seen["sluice_nat_flows_total", (("event", event),)] == count
    assert seen["sluice_nat_entries", (("pool", "ipv4"),)] == 1
    assert seen["sluice_nat_capacity", (("pool", "ipv4"),)] == 10
    assert ("sluice_nat_capacity", (("pool", "ipv6"),)) not in seen


def test_the_verdict_list_is_that_of_the_program(client: TestClient, plane: TwinDataPlane) -> None:
    """Name, number, action and sentence of each, in order of number."""
    answer = client.get("/v1/verdicts").json()

    assert answer["items"] == [
        {"number": v.number, "name": v.name, "action": v.action, "sentence": v.sentence}
        for v in plane.verdicts
    ]
    assert answer["total"] == len(plane.verdicts)
    numbers = [item["number"] for item in answer["items"]]
    assert numbers == sorted(numbers)


def test_health_and_readiness(client: TestClient, web: JsonDocument) -> None:
    """Both answer 200 while all is well."""
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "revision": 1}


def test_metrics_say_what_is_seen(
    client: TestClient, web: JsonDocument, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """Counters and gauges read at the scrape."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"})
    client.post("/v1/services/web/backends/10.0.0.12/disable")
    count_packets(plane, reconciler, 3, 60)

    seen = samples(client)
    first, second = (
        (("backend", "10.0.0.11"), ("service", "web")),
        (("backend", "10.0.0.12"), ("service", "web")),
    )
    assert seen["sluice_build_info", (("version", __version__),)] == 1
    assert seen["sluice_ready", ()] == 1
    assert seen["sluice_config_revision", ()] == 3
    assert seen["sluice_config_apply_duration_seconds_count", ()] == 3
    assert seen["sluice_config_apply_duration_seconds_sum", ()] > 0
    assert seen["sluice_events_total", (("kind", "config.changed"), ("level", "info"))] == 3
    assert seen["sluice_service_packets_total", (("service", "web"),)] == 3
    assert seen["sluice_service_bytes_total", (("service", "web"),)] == 180
    assert (seen["sluice_backend_packets_total", first], seen["sluice_backend_packets_total", second]) == (
        3,
        0,
    )
    assert (seen["sluice_backend_up", first], seen["sluice_backend_up", second]) == (1, 0)
    assert (seen["sluice_backend_weight", first], seen["sluice_backend_weight", second]) == (1, 2)
    assert seen["sluice_verdict_packets_total", (("action", "drop"), ("verdict", "DROP_BLOCKLIST"))] == 3
    assert seen["sluice_blocklist_packets_total", (("owner", "operator"),)] == 0
    assert seen["sluice_flow_table_hits_total", ()] == 3
    assert seen["sluice_table_entries", (("table", "services"),)] == 1
    assert seen["sluice_interface_attached", (("interface", "twin0"),)] == 1


def test_requests_are_counted_by_route_template(client: TestClient) -> None:
    """The label is the template, so that no path and no client becomes a series."""
    client.get("/v1/blocklist/192.0.2.1")
    client.get("/v1/blocklist/192.0.2.2")
    client.get("/nothing/here")
    client.request("BREW", "/v1/services")

    seen = {
        dict(labels)["route"]: value
        for (name, labels), value in samples(client).items()
        if "requests" in name
    }
    assert seen["/v1/blocklist/{prefix}"] == 2
    assert seen["unmatched"] == 1
    text = client.get("/metrics").text
    assert 'method="other"' in text
    assert "BREW" not in text


def test_metrics_name_no_client(client: TestClient, web: JsonDocument) -> None:
    """Neither a blocked prefix nor the address of who asks is in the exposition."""
    client.post("/v1/blocklist", json=["203.0.113.7", "2001:db8:bad::/48"])

    text = client.get("/metrics").text
    for address in ("203.0.113.7", "2001:db8:bad", "100.64.0.77"):
        assert address not in text


def test_metric_definitions_keep_to_the_conventions() -> None:
    """Names are unique, begin with sluice_, use base units; help ends a sentence. Promtool wants the same."""
    defined = [value for value in vars(metrics).values() if isinstance(value, metrics.Definition)]

    names = [d.name for d in defined]
    assert len(defined) > 20
    assert len(set(names)) == len(names)
    for definition in defined:
        assert definition.name.startswith("sluice_")
        assert not definition.name.endswith(("_total", "_count", "_sum", "_bucket", "_milliseconds"))
        assert definition.help.endswith(".")
        assert all(label.islower() for label in definition.labels)


def test_every_defined_metric_is_exposed_once(client: TestClient, web: JsonDocument) -> None:
    """What is in the list is in the exposition, with its help and type, and nothing else is."""
    client.get("/v1/services")
    families = list(text_string_to_metric_families(client.get("/metrics").text))

    defined = {v.name: v for v in vars(metrics).values() if isinstance(v, metrics.Definition)}
    assert sorted(f.name for f in families) == sorted(defined)
    for family in families:
        assert family.documentation == defined[family.name].help
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(defined[family.name].labels)


def test_openmetrics_where_it_is_asked_for(client: TestClient) -> None:
    """The scraper's Accept decides the format."""
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
