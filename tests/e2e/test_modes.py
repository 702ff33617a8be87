"""Whole transfers through every combination of mode and address family."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest
from place import Lab
from topology import Role

UPLOAD_BYTES = 20_000_000
COMBINATIONS = [
    pytest.param(("ipip", 4, 4), id="4in4"),
    pytest.param(("ipip", 4, 6), id="4in6"),
    pytest.param(("ipip", 6, 4), id="6in4"),
    pytest.param(("ipip", 6, 6), id="6in6"),
    pytest.param(("gue", 4, 4), id="gue-4-by-4"),
    pytest.param(("gue", 4, 6), id="gue-4-by-6"),
    pytest.param(("gue", 6, 4), id="gue-6-by-4"),
    pytest.param(("gue", 6, 6), id="gue-6-by-6"),
    pytest.param(("l2", 4, 4), id="l2-4"),
    pytest.param(("l2", 6, 6), id="l2-6"),
]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def curl(lab: Lab, *words: str) -> None:
    command = ["curl", "-sS", "--fail", "--max-time", "60", *words]
    subprocess.run(inside.command(lab.namespace(Role.CLIENT, 1), command), check=True)


@pytest.fixture(params=COMBINATIONS)
def web(request: pytest.FixtureRequest, vips: dict[int, str], add_service: Any) -> str:
    """The URL of a web service in one mode, with VIP and backends of one family each."""
    mode, family, backend_family = request.param
    add_service("web", vips[family], "tcp", 80, family=backend_family, mode=mode)
    return f"http://[{vips[6]}]" if family == 6 else f"http://{vips[4]}"


def test_100_mb_arrive_unchanged(lab: Lab, web: str, tmp_path: Path) -> None:
    """A file fetched by curl through the balancer has the checksum of the file that the backends serve."""
    fetched = tmp_path / "fetched"

    curl(lab, "-o", str(fetched), f"{web}/100m")

    assert fetched.stat().st_size == 100_000_000
    assert digest(fetched) == digest(lab.data / "100m")
    fetched.unlink()


def test_full_sized_packets_reach_the_backend(lab: Lab, web: str, tmp_path: Path) -> None:
    """An upload, whose packets fill the client's MTU before the outer header is added, arrives unchanged."""
    sent = tmp_path / "sent"
    sent.write_bytes(np.random.default_rng(seed=2).bytes(UPLOAD_BYTES))

    curl(lab, "-T", str(sent), f"{web}/upload/{tmp_path.name}")

    folders = [lab.data / host.label / "uploads" for host in lab.configuration.of_role(Role.BACKEND)]
    received = [path for folder in folders if (path := folder / tmp_path.name).exists()]
    assert [digest(path) for path in received] == [digest(sent)]
