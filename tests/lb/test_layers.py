"""The import rule of lb/README.md: a room imports only what its row of the table says."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = (
    "lb.errors",
    "lb.events",
    "lb.logs",
    "lb.notify",
    "lb.settings",
    "lb.stretches",
    "lb.doctor",
    "lb.model",
    "lb.store",
    "lb.dataplane",
    "lb.reconcile",
    "lb.feeds",
    "lb.health",
    "lb.cli",
    "lb.daemon",
    "api",
)
MAY_IMPORT = {
    "lb": set(),
    "lb.errors": set(),
    "lb.events": set(),
    "lb.logs": {"lb.events"},
    "lb.notify": set(),
    "lb.settings": set(),
    "lb.stretches": set(),
    "lb.doctor": set(),
    "lb.model": {"lb.errors", "lb.stretches"},
    "lb.store": {"lb.errors", "lb.model"},
    "lb.dataplane": {"lb.errors", "lb.events", "lb.settings", "lb.stretches", "lb.doctor"},
    "lb.reconcile": {
        *("lb", "lb.errors", "lb.events", "lb.settings", "lb.stretches"),
        *("lb.model", "lb.store", "lb.dataplane", "lb.doctor"),
    },
    "lb.feeds": {"lb.errors", "lb.events", "lb.model"},
    "lb.health": {"lb", "lb.errors", "lb.events", "lb.model"},
    "lb.cli": {"lb", "lb.errors", "lb.settings", "lb.daemon"},
    "lb.daemon": set(ROOMS) - {"lb.cli"},
    "api": {
        *("lb", "lb.errors", "lb.events", "lb.model", "lb.store"),
        *("lb.reconcile", "lb.feeds", "lb.health", "lb.doctor"),
    },
}
KERNEL = {"bcc", "pyroute2"}
"""What touches the kernel."""


def room_of(module: str) -> str:
    """The room a module is in."""
    return next((r for r in ROOMS if module == r or module.startswith(f"{r}.")), module.partition(".")[0])


def imports(path: Path) -> set[str]:
    """All modules a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


SOURCES = sorted(p for folder in ("lb", "api") for p in (CHECKOUT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    """Every import of Sluice's own goes to the room itself or to one that its row allows."""
    module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    ours = {name for name in imports(path) if name.split(".")[0] in ("lb", "api")}

    assert {room_of(name) for name in ours} - {room, "lb"} <= MAY_IMPORT[room] - {"lb"}
    if room != "lb.daemon":
        assert "lb.dataplane.kernel" not in ours or room == "lb.dataplane"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_only_the_data_plane_touches_the_kernel(path: Path) -> None:
    """bcc and netlink are imported in lb/dataplane/ alone."""
    touched = {name.split(".")[0] for name in imports(path)} & KERNEL

    assert not touched or path.is_relative_to(CHECKOUT / "lb" / "dataplane")
