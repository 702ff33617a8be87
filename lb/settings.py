"""Process settings: what one daemon is started with. The desired state is in lb/model/."""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

PIN_ROOT = Path("/sys/fs/bpf/sluice")
"""The program attached to IF is always PIN_ROOT/IF/program."""
DEFAULT_SOCKET = Path("/run/sluice/sluice.sock")
DEFAULT_STATE_DIR = Path("/var/lib/sluice")
ENV_PREFIX = "SLUICE_"


NAT_BLOCK = 1 << 16
"""NAT slots of one pool address: one a port."""
NAT_SLOTS_MOST = 254 * NAT_BLOCK


class XdpMode(StrEnum):
    """How the program is hooked: by the driver (native), by the stack (generic), or native if the driver can."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class TableSizes:
    """Capacity of each table; a change takes effect at the next start (the tables are then rebuilt beside).

    least: what a daemon can be started with. Below it there is no room for the packets that each program is asked.
    """

    flow_slots: int = field(
        default=1 << 20, metadata={"help": "flows remembered; a power of two; 16 bytes each"}
    )
    services: int = field(default=4096, metadata={"least": 64, "help": "services"})
    service_ports: int = field(
        default=65536,
        metadata={"least": 256, "help": "VIP, protocol and port combinations, per address family"},
    )
    backends: int = field(
        default=65536,
        metadata={"least": 512, "help": "backend places; each service takes a power of two of them"},
    )
    rings: int = field(
        default=512,
        metadata={"least": 32, "help": "Maglev rings; 128 KiB each; equal backend sets share one"},
    )
    deny_hosts: int = field(
        default=3 << 19, metadata={"least": 64, "help": "IPv4 /24s that hold longer prefixes; 64 bytes each"}
    )
    deny_dense: int = field(
        default=4096, metadata={"least": 4, "help": "IPv4 /24s with over 15 longer prefixes; 512 bytes each"}
    )
    deny_ipv6: int = field(default=1 << 20, metadata={"least": 64, "help": "IPv6 blocklist prefixes"})
    allow: int = field(
        default=1 << 16, metadata={"least": 64, "help": "allowlist prefixes, per address family"}
    )
    limit_slots: int = field(
        default=1 << 18,
        metadata={"help": "heavy sources that limits track individually; a power of two; 16 bytes each"},
    )
    syn_tests: int = field(
        default=1 << 20,
        metadata={
            "help": "SYNs remembered under attack until they are repeated; a power of two; 4 bytes each"
        },
    )

    nat_slots: int = field(
        default=1 << 18,
        metadata={"help": "NAT flows, 65536 for each address of the pool; 136 bytes each"},
    )

    def __post_init__(self) -> None:
        """ValueError names the option that cannot be."""
        for name, least in (("flow_slots", 4), ("limit_slots", 4), ("syn_tests", 16)):
            size = getattr(self, name)
            if size < least or size & (size - 1):
                below = max(least, 1 << max(2, size.bit_length() - 1))
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} {size} is not a power of two: write {below} or {2 * below}")
        if not 0 < self.nat_slots <= NAT_SLOTS_MOST or self.nat_slots % NAT_BLOCK:
            raise ValueError(
                f"--nat-slots {self.nat_slots} is not a multiple of {NAT_BLOCK} up to {NAT_SLOTS_MOST}: "
                f"write {NAT_BLOCK} for each address of the pool"
            )
        for name, most in (
            ("services", 1 << 16),
            ("backends", 1 << 24),
            ("deny_hosts", 1 << 24),
            ("deny_dense", 1 << 24),
        ):
            if getattr(self, name) > most:
                raise ValueError(f"--{name.replace('_', '-')} is at most {most}")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """All that `sluice serve` takes."""

    interfaces: tuple[str, ...]
    xdp_mode: XdpMode = XdpMode.AUTO
    state_dir: Path = DEFAULT_STATE_DIR
    cache_dir: Path | None = None
    socket: Path = DEFAULT_SOCKET
    socket_group: str | None = None
    listen: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    config: Path | None = None
    log_format: str = "text"
    log_level: str = "info"
    replace_foreign: bool = False
    sizes: TableSizes = TableSizes()
    pin_root: Path = PIN_ROOT

    @property
    def cache(self) -> Path:
        """Where compiled programs are kept."""
        return self.cache_dir or self.state_dir / "compiled"

    def command(self) -> list[str]:
        """The command that starts a daemon so, word by word; what is as it would be anyway is left out."""
        words = ["sluice", "serve"]
        for interface in self.interfaces:
            words += ["--interface", interface]
        plain = ServeSettings(self.interfaces)
        for name in ("xdp_mode", "state_dir", "cache_dir", "socket", "listen", "config", "log_format"):
            if getattr(self, name) != getattr(plain, name):
                words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        if self.replace_foreign:
            words.append("--replace-foreign-program")
        for size in fields(TableSizes):
            if getattr(self.sizes, size.name) != size.default:
                words += [f"--{size.name.replace('_', '-')}", str(getattr(self.sizes, size.name))]
        return words
