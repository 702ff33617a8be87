"""The bench's pure parts: statistics, the document, the tables, and the README's section."""

import contextlib
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "netns-lab"))

from benchmarks import cases, figures, plots, report, snapshot
from benchmarks.figures import Figure
from benchmarks.report import Point, Report, Result, Versus

from lb.dataplane.layout import layout
from lb.dataplane.twin import TwinDataPlane
from lb.errors import NotFoundError
from lb.model import Config
from lb.model.document import from_mapping
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore

MACHINE = {"cpu": "Example 9000", "cpus": 2, "kernel": "6.18"}


def example() -> Report:
    """A run of three cases, a sweep and a case left out."""
    beside = Versus("xdp-filter", Figure(23.0, 24.0, 15))
    recorded = Versus("Katran, on record", Figure(57.6, 57.6, 1))
    made = Report("quick", seconds=1.25)
    made.results = [
        Result("program", "drop_deny_1prefix", "ns", Figure(7.25, 8.0, 15), versus=beside, goal=8),
        Result("program", "tcp_established_1flow", "ns", Figure(28.8, 30.0, 15), recorded=recorded),
        Result("control", "block_to_enforced", "ms", Figure(2.0, 3.0, 200, p99=9.12345), goal=20),
    ]
    made.sweeps = {"flows": [Point(1, Figure(28.0, 29.0, 5)), Point(1000, Figure(40.0, 41.0, 5))]}
    made.programs = {"plain": {"instructions": 900, "features": ["HAVE_VIP4"]}}
    made.left_out = {"nft_dnat": "nft is not installed"}
    return made


def test_figure_of_samples_is_minimum_median_and_tail() -> None:
    """Minimum and median of what was sampled; the 99th percentile is a sample, and only where it is asked for."""
    samples = [float(n) for n in range(200, 0, -1)]

    assert figures.of_samples(samples, tail=True) == Figure(1.0, 100.5, 200, p99=198.0)
    assert figures.of_samples(samples).p99 is None
    with pytest.raises(ValueError, match="without samples"):
        figures.of_samples([])


def test_net_figure_takes_off_the_mean_of_the_floors() -> None:
    """Minimum less the mean of minima, median less the mean of medians: rounds need not match."""
    assert figures.net([90.0, 70.0, 80.0], [[10.0, 12.0, 11.0], [20.0, 30.0, 40.0]]) == Figure(55.0, 59.5, 3)


@pytest.mark.parametrize(("percent", "wanted"), [(1, 1.0), (50, 5.0), (99, 10.0), (100, 10.0)])
def test_percentile_is_the_nearest_rank(percent: float, wanted: float) -> None:
    """The smallest sample that so many percent do not exceed."""
    assert figures.percentile([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], percent) == wanted


def test_document_has_the_agreed_shape() -> None:
    """Every case has group, name, unit, rounds, minimum and median; beside it what it is compared with."""
    found = report.document(example(), MACHINE)

    assert found["machine"] == MACHINE
    assert found["cases"][0] == {
        "group": "program",
        "name": "drop_deny_1prefix",
        "unit": "ns",
        "min": 7.25,
        "median": 8.0,
        "rounds": 15,
        "versus": {"name": "xdp-filter", "min": 23.0, "median": 24.0},
        "goal": 8,
    }
    assert found["cases"][1]["recorded"] == {"name": "Katran, on record", "min": 57.6, "median": 57.6}
    assert found["cases"][2]["p99"] == 9.123
    assert found["sweeps"][0]["points"][1] == {"x": 1000, "min": 40.0, "median": 41.0, "rounds": 5}
    assert found["programs"] == [{"name": "plain", "instructions": 900, "features": ["HAVE_VIP4"]}]
    assert found["left_out"] == [{"name": "nft_dnat", "reason": "nft is not installed"}]


def test_tables_show_each_case_once_with_its_ratio() -> None:
    """A row a case, the peer's figure and the ratio to it; what was left out is said with the reason."""
    found = report.document(example(), MACHINE)

    rows = [line for line in report.markdown(found).splitlines() if line.startswith("| drop_deny")]
    assert rows == ["| drop_deny_1prefix | ns | 7.25 | 8 | 8 | xdp-filter | 23 | 0.32 |"]
    assert "| tcp_established_1flow | ns | 28.8 | 30 |  | Katran, on record | 57.6 |  |" in report.markdown(
        found
    )
    text = report.table(found)
    assert text.count("tcp_established_1flow") == 1
    assert "3 (p99 9.12)" in text
    assert "Left out (nft is not installed): nft_dnat." in text


def test_case_names_are_the_agreed_ones() -> None:
    """Scripts rely on these names; a case may be left out with a reason, but not be called otherwise."""
    agreed = {
        "program": "tcp_established_1flow tcp_established_10kflows tcp_established_100kflows "
        "tcp_established_800kflows_random udp_established_1flow tcp6_established_1flow tcp_new_flows_tracked "
        "new_flows_under_attack_refused new_flows_under_attack_tested "
        "pass_no_service drop_deny_1prefix drop_deny_100k_random drop_deny_1m_random "
        "established_behind_1m_prefixes established_behind_1_rule established_behind_1k_rules drop_by_1k_rules "
        "drop_over_limit nat_forward_1flow nat_reply_1flow nat_forward_100kflows nat_reply_100kflows "
        "nat_forward_100kflows_random nat_reply_100kflows_random",
        "lab": "empty_drop empty_tx drop_deny forward_ipip forward_l2 forward_nat nft_drop nft_dnat xdp_filter_drop",
        "control": "import_1m clear_1m block_to_enforced api_write_200_readers event_to_last_reader "
        "api_write_8_writers block_beside_1m_under_flood expire_10k "
        "entries_lifecycle ring_1000_backends backend_change_to_enforced apply_400x50 "
        "start_full memory_1m",
    }
    known = {
        "program": {case.name for case in cases.PROGRAM},
        "lab": {case.name for case in cases.LAB},
        "control": {case.name for case in cases.CONTROL},
    }

    for group, names in agreed.items():
        assert set(names.split()) == known[group]


def test_cases_name_what_there_is() -> None:
    """Setups, and cases to compare with, exist; a goal as a multiple has something to be a multiple of."""
    program = {case.name for case in cases.PROGRAM}
    lab = {case.name for case in cases.LAB}

    assert {case.setup for case in (*cases.PROGRAM, *cases.SWEEPS)} <= set(cases.SETUPS)
    assert {case.versus for case in cases.PROGRAM} - {None} <= program
    assert {case.versus for case in cases.LAB} - {None} <= lab
    assert all(case.versus for case in cases.LAB if case.goal)


@pytest.mark.parametrize("name", cases.SETUPS)
def test_setups_are_valid_desired_state(name: str) -> None:
    """What a setup asks of the balancer is accepted, with one service or with thousands."""
    services = cases.services_of(cases.SETUPS[name], ["10.1.16.1", "10.1.16.2"], count=300)

    settings = cases.settings_of(cases.SETUPS[name])
    config = from_mapping({"services": services, "settings": settings}, now=0.0, have=Config())

    assert len(config.services) == 300 * len(cases.SETUPS[name].protocols)


def test_everything_needs_every_feature() -> None:
    """The document that is to make use of all features does, but for several interfaces, a large MTU, and who looks."""
    with contextlib.closing(SqliteStore(":memory:")) as store:
        twin = TwinDataPlane()
        reconciler = Reconciler(store, twin)
        reconciler.start()
        reconciler.change(
            lambda config: from_mapping(dict(cases.EVERYTHING), now=0.0, have=config),
            actor="test",
            summary="",
        )
        reconciler.stop()

    assert set(layout().features) - twin.wishes[-1].features <= {
        "HAVE_FRAGS",
        "HAVE_REDIRECT",
        "HAVE_SAMPLES",
    }


def test_no_flow_is_in_a_blocked_prefix() -> None:
    """A million prefixes and a million flows lie in two million /24s, all of them a client's."""
    found = cases.addresses(cases.FIRST_PREFIX, 2_000_000)

    assert cases.FIRST_FLOW == cases.FIRST_PREFIX + 1_000_000
    assert len(np.unique(found >> 8)) == len(found)
    assert (int(found.min()) >> 24, int(found.max()) >> 24) == (128, 223)


def test_prefixes_hold_their_sources() -> None:
    """The file has a line a prefix, and the address of the same number lies in it."""
    lines = cases.prefixes_text(1000).split()
    sources = [cases.source_of(cases.FIRST_PREFIX + n) for n in range(1000)]

    assert all(ip_address(source) in ip_network(line) for source, line in zip(sources, lines, strict=True))


def test_readme_is_filled_between_its_marks() -> None:
    """What stood between the marks is replaced, all else is left; a page without marks is refused."""
    page = f"before\n{snapshot.BEGIN}\nold\n{snapshot.END}\nafter\n"

    assert snapshot.filled(page, "new") == f"before\n{snapshot.BEGIN}\nnew\n{snapshot.END}\nafter\n"
    with pytest.raises(NotFoundError):
        snapshot.filled("no marks", "new")


def test_readme_section_shows_plots_that_there_is_data_for() -> None:
    """A run without lab cases has no plot of them, and the section links none."""
    text = snapshot.section(report.document(example(), MACHINE), Path("results"))

    assert "(results/flows.png)" in text
    assert "(results/program.png)" in text
    assert "lab.png" not in text


def test_plots_are_drawn_for_what_was_measured(tmp_path: Path) -> None:
    """A picture for each part that has figures; one of an earlier run is not left beside them."""
    (tmp_path / "lab.png").write_bytes(b"of an earlier run")

    drawn = plots.draw(report.document(example(), MACHINE), tmp_path)

    assert sorted(path.name for path in drawn) == ["flows.png", "program.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flows.png", "program.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
