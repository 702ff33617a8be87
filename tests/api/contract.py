"""Holds the application, over the twin data plane, against its own OpenAPI document: what test_api_contract.py runs.

    tests/api/contract.py SECONDS [OPTION...]      for as long as one likes, with options of `schemathesis run`

Exit code 0: every answer is as the document says; 1: one is not, and a curl command that shows it is printed.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
from api_stack import fill, running_stack  # noqa: E402  found by the lines above when this file is the program
from live import serving_tcp  # noqa: E402

CONFIG = HERE / "schemathesis.toml"


def conformance(*options: str) -> subprocess.CompletedProcess[str]:
    """One run over an application that has one of everything. Feeds are not fetched: their hosts are made up."""
    with running_stack(fetches=False) as stack, serving_tcp(fill(stack.client).app) as url:
        program = Path(sys.executable).with_name("schemathesis")
        command = [program, f"--config-file={CONFIG}", "run", f"{url}/openapi.json", *options]
        return subprocess.run(
            command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )


def main(arguments: list[str]) -> int:
    """Run for the time given; the exit code."""
    seconds, *options = arguments
    done = conformance(f"--max-time={seconds}", *options)
    print(done.stdout)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
