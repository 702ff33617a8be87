"""The real Prometheus, as a process of its own that scrapes one address."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

PATIENCE_SECONDS = 60.0


class Prometheus:
    """One that runs."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; an AssertionError with its words if it is no PromQL."""
        answer = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def values(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The samples by these labels."""
        return {
            tuple(each["metric"][label] for label in labels): float(each["value"][1])
            for each in self.query(expression)
        }

    def wait_for(self, expression: str) -> None:
        """Return when the query has a sample."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.query(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.1)


@contextlib.contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    """It scrapes target (ADDRESS:PORT) every second, and is gone afterwards."""
    scrape = {"job_name": "sluice", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    scrape["scrape_timeout"] = "1s"
    config = folder / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = "127.0.0.1:{1}".format(*free.getsockname())
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log) as process,
    ):
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=PATIENCE_SECONDS) as client:
                deadline = time.monotonic() + PATIENCE_SECONDS
                while not _is_ready(client):
                    assert process.poll() is None and time.monotonic() < deadline, (
                        folder / "log"
                    ).read_text()
                    time.sleep(0.1)
                yield Prometheus(client)
        finally:
            process.kill()


def _is_ready(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/-/ready").is_success
    return False
