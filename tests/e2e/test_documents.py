"""What the documents tell people to type works: every command, in its order, with the real daemon in the lab."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import inside
import lifecycle
import processes
import pytest
from documents import CHECKOUT, COMMANDS, MARK, blocks, documents, script
from place import Lab
from topology import Role

SECONDS = 100
"""For one document."""


def named(path: Path) -> str:
    """A document as it is spoken of."""
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize("path", documents(), ids=named)
def test_every_command_is_run_or_says_why_not(path: Path) -> None:
    """A block that holds a command is marked as one; so nothing is left out of what is run below."""
    for block in blocks(path):
        typed = [line for line in block.lines if line.removeprefix("$ ").split(" ")[0] in COMMANDS]

        assert block.kind in {"sh", "console", "before"} or not typed, f"{block.document}:{block.line}"
        assert block.kind != "console" or typed, f"{block.document}:{block.line}: nothing is typed in it"


@pytest.fixture
def asking(lab: Lab, http: httpx.Client) -> Iterator[None]:
    """A service, and two clients who go on asking for it, so that there is something to see."""
    service = {"name": "lab", "vip": "10.200.1.1", "port": 80, "protocol": "tcp"}
    backends = [{"address": host.address(4)} for host in lab.configuration.of_role(Role.BACKEND)]
    http.post("/v1/services", json=service | {"backends": backends}).raise_for_status()
    loop = "while :; do curl -sm 1 -o /dev/null http://10.200.1.1/; sleep 0.2; done"
    clients = [
        subprocess.Popen(inside.command(lab.names.namespace(Role.CLIENT, number), ["sh", "-c", loop]))
        for number in (1, 2)
    ]
    try:
        yield
    finally:
        for client in clients:
            client.kill()
            client.wait()


@pytest.fixture
def lists(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """A web server on the daemon's side that has the list which documents fetch; its address."""
    (tmp_path / "drop.json").write_text('{"cidr": "203.0.113.0/24"}\n')
    words = [sys.executable, "-m", "http.server", "8099", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    process = processes.start(lab.names.namespace(Role.BALANCER), words, tmp_path / "lists.log")
    try:
        yield "http://127.0.0.1:8099"
    finally:
        processes.end([process])


@pytest.fixture
def tour(lab: Lab) -> Iterator[str]:
    """The name of a lab that a document may build."""
    name = f"{lab.name}-t"
    yield name
    lifecycle.down(name)


@pytest.mark.parametrize(
    "path", [path for path in documents() if any(b.is_run for b in blocks(path))], ids=named
)
@pytest.mark.usefixtures("asking")
def test_what_a_document_shows_works(path: Path, lab: Lab, tour: str, lists: str, tmp_path: Path) -> None:
    """From the first command to the last each succeeds, in a folder of its own."""
    text = script(path)
    for shown, here in (
        ("/run/sluice/sluice.sock", str(lab.socket)),
        ("/run/sluice-lab/lab/", f"/run/sluice-lab/{tour}/"),
        (".venv/bin/sluice", "sluice"),
        ("--url https://lists.example.net/", f"--allow-private-url --url {lists}/"),
        ("/etc/sluice/", f"{tmp_path}/"),
        ("netns-lab/", f"{CHECKOUT}/netns-lab/"),
    ):
        text = text.replace(shown, here)
    environment = {
        "PATH": f"{CHECKOUT}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "SLUICE_SERVER": f"unix://{lab.socket}",
        "SLUICE_LAB": tour,
    }

    done = subprocess.run(
        ["bash", "-c", text],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0, f"{done.stderr.rpartition(MARK)[2]}\n{done.stdout[-2000:]}"
