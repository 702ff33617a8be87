"""A shell in which the tests run `sluice` against one daemon."""

import json
from dataclasses import dataclass
from typing import Any

import httpx
from click.testing import CliRunner, Result

from lb.cli.main import cli
from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs `sluice` against one daemon."""

    server: str
    dataplane: TwinDataPlane
    reconciler: Reconciler

    def run(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        """One command, whatever becomes of it."""
        return CliRunner().invoke(cli, ["--server", self.server, *arguments], input=stdin)

    def ok(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """What a command prints that has to succeed."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    def json(self, *arguments: str, stdin: str | bytes | None = None) -> Any:
        """The document a command prints."""
        return json.loads(self.ok(*arguments, "-o", "json", stdin=stdin))

    def rest(self, path: str) -> Any:
        """The document of a GET, by a client that is not the command's."""
        transport = httpx.HTTPTransport(uds=self.server.removeprefix("unix://"))
        with httpx.Client(transport=transport, base_url="http://localhost") as client:
            return client.get(f"/v1{path}").raise_for_status().json()
