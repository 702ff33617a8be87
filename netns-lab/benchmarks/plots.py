"""Plots of a bench.json: bars beside peers, and lines of cost as something grows. One message each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.cases import MEMORY

OURS, PEER, RECORD, FLOOR, SECOND = "#1f6f8b", "#c9a26b", "#e6d5b8", "#c4c9cd", "#b5532a"
"""Colours: Sluice, a peer measured beside it, one on record, an empty program or one load, our second line."""
_INK = "#333333"
_NONE_AT = 0.2
"""Where 0 stands on an axis of powers of ten."""

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "tcp_established_1flow": "TCP established, 1 flow",
        "tcp_established_10kflows": "TCP established, 10,000 flows",
        "tcp_established_100kflows": "TCP established, 100,000 flows",
        "tcp_established_800kflows_random": "TCP established, 800,000 flows at random",
        "udp_established_1flow": "UDP established, 1 flow",
        "tcp6_established_1flow": "IPv6 TCP established, 1 flow",
        "tcp_new_flows_tracked": "TCP, every packet a new flow",
        "pass_no_service": "not for a VIP, passed",
        "drop_deny_1prefix": "denied, 1 prefix",
        "drop_deny_100k_random": "denied, 100,000 prefixes at random",
        "drop_deny_1m_random": "denied, 1,000,000 prefixes at random",
        "established_behind_1m_prefixes": "800,000 flows past 1,000,000 prefixes",
        "established_behind_1_rule": "1 flow past 1 rule",
        "established_behind_1k_rules": "1 flow past 1,000 rules",
        "drop_by_1k_rules": "dropped by one of 1,000 rules",
        "drop_over_limit": "a source over its limit",
        "nat_forward_1flow": "NAT, 1 flow",
        "nat_reply_1flow": "NAT, 1 flow, the way back",
        "nat_forward_100kflows": "NAT, 100,000 flows",
        "nat_reply_100kflows": "NAT, 100,000 flows, the way back",
        "nat_forward_100kflows_random": "NAT, 100,000 flows at random",
        "nat_reply_100kflows_random": "NAT, 100,000 flows at random, the way back",
        "empty_drop": "an empty program that drops",
        "empty_tx": "an empty program that sends back",
        "drop_deny": "Sluice drops",
        "forward_ipip": "Sluice forwards, ipip",
        "forward_l2": "Sluice forwards, l2",
        "forward_nat": "Sluice forwards, nat",
        "xdp_filter_drop": "xdp-filter drops",
        "nft_drop": "nftables drops",
        "nft_dnat": "nftables forwards, DNAT",
    }
)


def titles(found: Mapping[str, Any]) -> dict[str, str]:
    """The plots that a document has data for: file name and what it says."""
    return {name: title for name, title, _ in _plots(found)}


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots that there is data for, and remove those of an earlier run that there is none for."""
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    drawn = []
    for name, title, paint in _plots(found):
        figure = paint()
        figure.axes[0].set_title(title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=12)
        machine = found["machine"]
        figure.text(
            0.995,
            0.008,
            f"{machine['cpu']}, one core, Linux {machine['kernel']}",
            ha="right",
            fontsize=8,
            color="#888888",
        )
        figure.savefig(folder / name, dpi=110)
        drawn.append(folder / name)
    return drawn


NAMES = ("program.png", "lab.png", "flows.png", "prefixes.png", "services.png")


def _plots(found: Mapping[str, Any]) -> list[tuple[str, str, Callable[[], Any]]]:
    """File name, title and painter of each plot."""
    program = [case for case in found["cases"] if case["group"] == "program" and case["unit"] == "ns"]
    lab = [case for case in found["cases"] if case["group"] == "lab"]
    sweeps = {sweep["name"]: sweep["points"] for sweep in found["sweeps"]}
    made: list[tuple[str, str, Callable[[], Any]]] = []
    if program:
        made.append(("program.png", "What one packet costs in the program", partial(_program_bars, program)))
    if lab:
        made.append(("lab.png", "What one packet costs on its whole way", partial(_lab_bars, lab)))
    lines = (
        (
            "flows.png",
            "Cost as flows become more",
            "established flows, drawn at random",
            {"flows": "forwarded"},
        ),
        (
            "prefixes.png",
            "Cost as the blocklist grows",
            "blocked prefixes",
            {
                "prefixes_passed": "not blocked, forwarded (4,096 flows)",
                "prefixes_blocked": "blocked, dropped",
            },
        ),
        (
            "services.png",
            "Cost as services and backends become more",
            "services, or backends of one service (4,096 flows)",
            {"services": "services, 10 backends each", "backends": "backends of one service"},
        ),
    )
    for name, title, across, series in lines:
        there = {label: sweeps[key] for key, label in series.items() if key in sweeps}
        if there:
            made.append((name, title, partial(_lines, there, across)))
    return made


def _canvas(height: float) -> tuple[Any, Any]:
    """An empty figure and its axes, in the common style."""
    from matplotlib.figure import Figure  # takes long to import

    figure = Figure(figsize=(8.6, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.95))
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=10)
    return figure, axes


def _program_bars(cases: Sequence[Mapping[str, Any]]) -> Any:
    names = {case["name"] for case in cases}
    rows: list[tuple[float, float, str, str]] = []  # where, how long, colour, what it is
    at, ticks = 0.0, []
    for case in cases:
        rows.append((at, case["min"], OURS, "Sluice"))
        ticks.append((at, LABELS.get(case["name"], case["name"])))
        for other, (colour, label) in _others(case):
            if other["name"] not in names:
                at += 0.8
                rows.append((at, other["min"], colour, label))
        at += 1.25
    figure, axes = _canvas(1.6 + 0.27 * len(rows) + 0.1 * len(cases))
    _bars(axes, rows, 0.8)
    axes.set_yticks([where for where, _ in ticks], [label for _, label in ticks])
    _legend(axes, rows)
    axes.set_xlabel("ns a packet over an empty program (minimum of all rounds; less is better)", color=_INK)
    return figure


def _others(case: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], tuple[str, str]]]:
    """What stands below a case's bar: the figure, its colour and what it is."""
    found = []
    if "versus" in case:
        memory = case["versus"]["name"] in MEMORY
        what = (
            (FLOOR, "one load from as large a table") if memory else (PEER, "xdp-filter, in the same rounds")
        )
        found.append((case["versus"], what))
    if "recorded" in case:
        found.append((case["recorded"], (RECORD, "Katran, on record from another run")))
    return found


def _lab_bars(cases: Sequence[Mapping[str, Any]]) -> Any:
    def colour(name: str) -> str:
        if name.startswith("empty"):
            return FLOOR
        return PEER if name.startswith(("nft", "xdp_filter")) else OURS

    ordered = sorted(cases, key=lambda case: case["min"])
    rows = [(float(at), case["min"], colour(case["name"]), "") for at, case in enumerate(ordered)]
    figure, axes = _canvas(1.7 + 0.36 * len(rows))
    _bars(axes, rows, 0.7)
    axes.set_yticks(range(len(ordered)), [LABELS.get(case["name"], case["name"]) for case in ordered])
    axes.set_xlabel("ns a packet over a veth pair, one core, generator included (less is better)", color=_INK)
    return figure


def _bars(axes: Any, rows: Sequence[tuple[float, float, str, str]], height: float) -> None:
    """Bars from top to bottom, each with its figure at the end."""
    longest = max(value for _, value, _, _ in rows)
    axes.barh([r[0] for r in rows], [r[1] for r in rows], height=height, color=[r[2] for r in rows])
    for where, value, _, _ in rows:
        text = f"{value:.0f}" if value >= 10 else f"{value:.1f}"
        axes.text(max(value, 0) + longest * 0.008, where, text, va="center", fontsize=9, color=_INK)
    axes.set_xlim(0, longest * 1.08)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#eeeeee")


def _legend(axes: Any, rows: Sequence[tuple[float, float, str, str]]) -> None:
    from matplotlib.patches import Patch

    known = {label: colour for _, _, colour, label in rows}
    patches = [Patch(color=colour, label=label) for label, colour in known.items()]
    axes.legend(handles=patches, loc="lower right", frameon=False, fontsize=10, labelcolor=_INK)


def _lines(series: Mapping[str, Sequence[Mapping[str, Any]]], across: str) -> Any:
    figure, axes = _canvas(4.6)
    ticks = sorted({point["x"] for points in series.values() for point in points})
    for (label, points), colour in zip(series.items(), (OURS, SECOND), strict=False):
        xs = [point["x"] or _NONE_AT for point in points]
        ys = [point["min"] for point in points]
        axes.plot(xs, ys, "o-", color=colour, linewidth=2, markersize=5, label=label)
    if len(series) > 1:
        axes.legend(loc="upper left", frameon=False, fontsize=10.5, labelcolor=_INK, ncols=len(series))
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks([tick or _NONE_AT for tick in ticks], [_short(tick) for tick in ticks])
    axes.set_ylim(0, max(point["min"] for points in series.values() for point in points) * 1.25)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_xlabel(across, color=_INK)
    axes.set_ylabel("ns a packet over an empty program", color=_INK)
    return figure


def _short(count: int) -> str:
    if count >= 1_000_000:
        return f"{count // 1_000_000} M"
    return f"{count // 1000} k" if count >= 10_000 else f"{count:,}"
