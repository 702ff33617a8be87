"""Whether this process may do what the data plane needs: three capabilities, not root, and room for its pins."""

import os
import re
from pathlib import Path

from lb.errors import SetupError

NEEDED = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""By bit, as in linux/capability.h. CAP_PERFMON is for loops over packets that the verifier must follow."""
SYS_ADMIN = 21


def held() -> int:
    """The effective capabilities of this thread."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/thread-self/status").read_text(), re.MULTILINE)
    return int(found[1], 16) if found else 0


def lacking(capabilities: int) -> tuple[str, ...]:
    """Those that a daemon needs, and that are not in the set. CAP_SYS_ADMIN stands for what was split off it."""
    split_off = 1 << SYS_ADMIN
    return tuple(
        name
        for name, bit in NEEDED.items()
        if not capabilities & (1 << bit | (split_off if bit >= NEEDED["CAP_PERFMON"] else 0))
    )


def check_rights(pin_root: Path) -> None:
    """SetupError says what is missing, and how a process gets it."""
    lacks = lacking(held())
    if lacks:
        raise SetupError(
            f"sluice serve lacks {' and '.join(lacks)}: run it as root, by deploy/sluice.service, or with setpriv "
            "--inh-caps and --ambient-caps +bpf,+net_admin,+perfmon"
        )
    place = pin_root if pin_root.exists() else pin_root.parent
    if os.geteuid() != 0 and not os.access(place, os.W_OK | os.X_OK):
        raise SetupError(
            f"user {os.geteuid()} may not write to {pin_root}: as root, run mkdir -p {pin_root}; "
            f"chown {os.geteuid()} {pin_root}; chmod 711 {pin_root.parent}"
        )
