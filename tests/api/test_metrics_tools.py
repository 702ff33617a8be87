"""The metrics as Prometheus, its alert rules and Grafana take them: with the real promtool and the real Prometheus."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_stack import fill, running_stack
from fastapi.testclient import TestClient
from live import serving_tcp
from prometheus import Prometheus, prometheus
from prometheus_client.parser import text_string_to_metric_families

from api import metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "sluice.json"
SUFFIXES = {
    metrics.COUNTER: ("_total",),
    metrics.GAUGE: ("",),
    metrics.HISTOGRAM: ("_bucket", "_count", "_sum"),
}
NAMES = {
    d.name + suffix
    for d in vars(metrics).values()
    if isinstance(d, metrics.Definition)
    for suffix in SUFFIXES[d.kind]
}
"""What a query can name."""

pytestmark = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed: run make setup"
)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, TestClient]]:
    """A Prometheus that has scraped an API with one of everything and packets counted, and a client of that API."""
    with running_stack() as stack:
        client = fill(stack.client)
        for number, service in enumerate(stack.reconciler._plans.services.by_name.values(), 1):
            stack.plane.tables.backend_counters.add(service.start, 1000 * number, 64_000 * number)
        for verdict in stack.plane.verdicts:
            stack.plane.tables.verdict_counters.add(verdict.number, verdict.number, 64 * verdict.number)
        with (
            serving_tcp(stack.app) as url,
            prometheus(url.removeprefix("http://"), tmp_path_factory.mktemp("prometheus")) as server,
        ):
            server.wait_for("sluice_ready == 1")
            yield server, client


def promtool(*words: str, sent: str | None = None) -> str:
    """What promtool says; it must be content."""
    done = subprocess.run(
        ["promtool", *words],
        input=sent,
        cwd=RULES,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def named(expression: str) -> set[str]:
    """The metrics that a query names."""
    return set(re.findall(r"\bsluice_[a-z0-9_]+", expression))


def queries() -> list[str]:
    """Those of the dashboard, as Grafana sends them."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = {"$instance": ".*", "$service": ".*", "$__rate_interval": "1m"}
    for name, value in variables.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def test_promtool_finds_nothing(client: TestClient) -> None:
    """Names, types, units and help of all metrics are as Prometheus' conventions want them."""
    text = fill(client).get("/metrics").text

    assert promtool("check", "metrics", sent=text) == ""


def test_prometheus_has_what_the_api_says(scraped: tuple[Prometheus, TestClient]) -> None:
    """A query has the very numbers of /v1/stats, /v1/status and /v1/services."""
    server, client = scraped
    stats, status = client.get("/v1/stats").json(), client.get("/v1/status").json()

    assert server.values("sluice_service_packets_total", "service") == {
        (name,): tally["packets"] for name, tally in stats["services"].items()
    }
    assert server.values("sluice_backend_bytes_total", "service", "backend") == {
        (service, address): tally["bytes"]
        for service, backends in stats["backends"].items()
        for address, tally in backends.items()
    }
    assert server.values("sluice_verdict_packets_total", "verdict") == {
        (name,): tally["packets"] for name, tally in stats["verdicts"].items()
    }
    assert server.values("sluice_backend_weight", "service", "backend") == {
        (s["name"], b["address"]): b["weight"] for s in status["services"] for b in s["backends"]
    }
    assert server.values("sluice_table_capacity", "table") == {
        (table["name"],): table["capacity"] for table in status["tables"]
    }
    assert server.values("sluice_config_revision") == {(): status["revision"]}
    assert sum(server.values("sluice_verdict_packets_total", "verdict").values()) > 0


def test_grafana_asks_for_what_there_is(scraped: tuple[Prometheus, TestClient]) -> None:
    """Each query of the dashboard is PromQL, and names metrics that exist; its panels do not overlap."""
    server, _ = scraped
    asked = queries()

    assert len(asked) > 25
    for expression in asked:
        assert "$" not in expression
        assert named(expression) <= NAMES, expression
        server.query(expression)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alert_rules_name_what_there_is() -> None:
    """promtool reads the rules and the example of a scrape; each metric that they name exists."""
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "scrape.yml")

    text = (RULES / "alerts.yml").read_text()
    assert named(text) <= NAMES
    assert named((RULES / "alerts_test.yml").read_text()) <= NAMES


def test_alerts_fire_when_they_should() -> None:
    """Every rule is tried both ways: firing where something is wrong, silent where all is well."""
    promtool("test", "rules", "alerts_test.yml")

    alerts = set(re.findall(r"alert: (\w+)", (RULES / "alerts.yml").read_text()))
    well, ill = (RULES / "alerts_test.yml").read_text().split("- name: ")[1:]
    assert set(re.findall(r"alertname: (\w+)", well)) == alerts
    assert set(re.findall(r'alertname(?:: |=")(\w+)', ill)) == alerts


def series(client: TestClient) -> int:
    """How many time series a scrape has."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(len(family.samples) for family in families)


def test_series_are_few_whatever_is_sent(client: TestClient) -> None:
    """Entries, clients, paths and bad requests add none; a service adds 25 at most, a backend 10, a rule 4."""
    body: dict[str, Any] = {"vip": "192.0.2.1", "port": 80, "protocol": "tcp"}
    for name in ("a", "b"):  # the routes' own series are there from here on
        client.put(f"/v1/services/{name}", json={**body, "port": ord(name)}).raise_for_status()
        client.get(f"/v1/services/{name}none")
        client.post("/v1/blocklist", json={"prefix": "198.51.100.1"}).raise_for_status()
        client.put(
            f"/v1/rules/{name}", json={"action": "drop", "source": "203.0.113.0/24"}
        ).raise_for_status()
        client.get("/metrics")
    before = series(client)

    client.post("/v1/blocklist", json=[f"198.51.100.{n}" for n in range(2, 200)]).raise_for_status()
    for n in range(50):
        client.get(f"/v1/services/none{n}")
        client.put(f"/v1/services/{n}bad", json={"vip": "x"})
        client.get(f"/nothing/{n}")
        client.request(f"VERB{n}", "/v1/services")
    steady = series(client)
    for n in range(10):
        backends = [{"address": f"10.0.{n}.{m}"} for m in range(1, 11)]
        document = {
            **body,
            "port": 1000 + n,
            "backends": backends,
            "flood_protection": {"new_flows_per_second": 9},
        }
        client.put(f"/v1/services/s{n}", json=document).raise_for_status()
    served = series(client)
    for n in range(10):
        client.put(f"/v1/rules/r{n}", json={"action": "drop", "source": f"203.0.113.{n}"}).raise_for_status()

    assert steady - before < 100  # kinds of answers that there had been none of, with their buckets
    assert served - steady <= 10 * 25 + 100 * 10
    assert series(client) - served <= 10 * 4
