"""Ask the kernel and bcc whether Sluice can run here; deploy/setup.sh calls this.

    probe.py kernel     BPF system call and the features Sluice cannot do without (standard library only)
    probe.py bcc        bcc is the right one, and compiles and loads an XDP program

Prints nothing and exits 0, or prints what is wrong, with the remedy, and exits 1; as `sluice doctor` would.
"""

import os
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # setup.sh runs it isolated, before there is a venv

from lb.dataplane import bcc_probe, kernel_probe
from lb.doctor import host
from lb.doctor.facts import HostFacts
from lb.doctor.finding import Finding


def kernel() -> Finding:
    """What this kernel lacks."""
    lacks = {name: os.strerror(error) for name, error in kernel_probe.lacking().items()}
    return host.kernel(HostFacts(os.uname().release, kernel_lacks=lacks))


def bcc() -> Finding:
    """What is wrong with bcc. Compiler messages go to standard error."""
    return host.bcc(HostFacts(os.uname().release, bcc_fault=bcc_probe.fault(compiling=True)))


def main(arguments: list[str]) -> int:
    """Run the check named on the command line."""
    checks = {"kernel": kernel, "bcc": bcc}
    if len(arguments) != 1 or arguments[0] not in checks:
        print("usage: probe.py kernel|bcc", file=sys.stderr)
        return 2
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libbcc prints is not part of the answer
    found = checks[arguments[0]]()
    if found.command is None:
        return 0
    print(f"{found.summary}; to mend it: {found.command}", file=answer, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
