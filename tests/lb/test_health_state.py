"""Rise and fall, the policies over a service's backends, and the curve of a slow start: pure."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK

from lb.health import policy
from lb.health.policy import Seen
from lb.health.state import Count
from lb.model import Service
from lb.model.standing import FULL, STEPS, WEIGHT_MOST, Health, Standing

UP, DOWN, UNKNOWN = Health.HEALTHY, Health.UNHEALTHY, Health.UNKNOWN
NOBODY: frozenset[bytes] = frozenset()
counts = st.integers(1, 6)


def service(number: int = 3, **check: object) -> Service:
    """A service with so many backends, 10.0.0.1 and up, whose check has these fields beside its type."""
    return Service.model_validate(
        {
            "name": "web",
            "vip": "192.0.2.1",
            "port": 80,
            "protocol": "tcp",
            "health_check": {"type": "tcp", **check},
            "backends": [{"address": f"10.0.0.{n}"} for n in range(1, number + 1)],
        }
    )


def at(number: int) -> bytes:
    """The packed address of a backend."""
    return bytes([10, 0, 0, number])


def seen(*healths: Health, failed_at: float = 0.0) -> Mapping[bytes, Seen]:
    """Backends 10.0.0.1 and up with these healths; all that failed did so at one moment."""
    return {at(n): Seen(health, failed_at if health is DOWN else None) for n, health in enumerate(healths, 1)}


@QUICK
@given(st.lists(st.booleans(), max_size=60), counts, counts)
def test_verdicts_need_so_many_in_a_row(checks: list[bool], rise: int, fall: int) -> None:
    """Unhealthy comes with `fall` bad checks in a row and no sooner; healthy again with `rise` good ones."""
    count, run, last, was_down = Count(), 0, None, False
    for ok in checks:
        before = count.health
        count = count.after(ok, rise, fall)
        run = run + 1 if ok is last else 1
        last = ok
        if count.health is not before and count.health is DOWN:
            assert not ok
            assert run == fall
        if count.health is not before and count.health is UP:
            assert ok
            assert run == rise if was_down else run >= 1
        if run >= (rise if ok else fall):
            assert count.health is (UP if ok else DOWN)
        was_down = count.health is DOWN
    assert (count.health is UNKNOWN) == (True not in checks and len(checks) < fall)


def test_one_bad_check_between_begins_anew() -> None:
    """Checks are counted in a row: what lies between starts the count again."""
    count = Count(UP)
    for ok in (False, False, True, False, False):
        count = count.after(ok, rise=2, fall=3)
    assert count.health is UP
    count = count.after(False, rise=2, fall=3)
    assert count.health is DOWN
    for ok in (True, False, True):
        count = count.after(ok, rise=2, fall=3)
    assert count.health is DOWN
    assert count.after(True, rise=2, fall=3).health is UP


def test_unhealthy_backend_has_no_share() -> None:
    """Who is unhealthy is out, who is healthy or unknown is in."""
    assert policy.standing(service(), seen(UP, DOWN, UNKNOWN), NOBODY, 0.0) == Standing({at(2): 0})
    assert policy.standing(service(), seen(UP, UP, UNKNOWN), NOBODY, 0.0) == FULL
    moving = policy.standing(service(established="move"), seen(UP, DOWN, UP), NOBODY, 0.0)
    assert moving == Standing({at(2): 0}, moving=True)


@pytest.mark.parametrize(("when_all_down", "in_ring"), [("open", 3), ("closed", 0)])
def test_all_down(when_all_down: str, in_ring: int) -> None:
    """All unhealthy: open has them all in the ring, closed has none."""
    one = service(when_all_down=when_all_down)
    standing = policy.standing(one, seen(DOWN, DOWN, DOWN), NOBODY, 0.0)

    assert policy.all_down(one, seen(DOWN, DOWN, DOWN), NOBODY)
    assert sum(not standing.is_out(at(n)) for n in (1, 2, 3)) == in_ring
    assert not policy.all_down(one, seen(DOWN, UP, DOWN), NOBODY)


def test_all_down_looks_at_those_who_would_take_flows() -> None:
    """A draining backend that is healthy does not make a service alive, and stays without new flows when it opens."""
    one = service(2)
    draining = one.backends[1].model_copy(update={"admin_state": "draining"})
    one = one.model_copy(update={"backends": (one.backends[0], draining)})

    assert policy.all_down(one, seen(DOWN, UP), NOBODY)
    assert policy.standing(one, seen(DOWN, DOWN), NOBODY, 0.0) == Standing({at(2): 0})
    assert not policy.all_down(service(0), {}, NOBODY)


def test_guard_holds_all_who_fail_at_once() -> None:
    """Over the share, all that failed within the time that checks take are held; those before stay out."""
    one = service(10, mass_failure_guard=0.5, interval_seconds=1, timeout_seconds=1, fall=2)
    early = {at(1): Seen(DOWN, failed_at=0.0)}
    few = early | {at(n): Seen(DOWN, failed_at=100.0) for n in range(2, 7)}
    many = few | {at(7): Seen(DOWN, failed_at=102.0)}
    rest = {at(n): Seen(UP) for n in range(1, 11)}

    assert policy.held(one, rest | few, NOBODY, 102.0) == NOBODY
    holding = policy.held(one, rest | many, NOBODY, 102.0)
    assert holding == {at(n) for n in range(2, 8)}
    standing = policy.standing(one, rest | many, holding, 102.0)
    assert standing == Standing({at(1): 0})

    # However long it lasts; until no more fail than may.
    assert policy.held(one, rest | many, holding, 10_000.0) == holding
    assert policy.held(one, rest | few, holding, 10_000.0) == NOBODY


def test_guard_looks_at_those_who_take_new_flows() -> None:
    """Backends that were drained and then switched off are no failure of many; what fails beside them is followed."""
    one = service(5, mass_failure_guard=0.5)
    draining = tuple(
        b.model_copy(update={"admin_state": "draining"}) if n < 3 else b for n, b in enumerate(one.backends)
    )
    one = one.model_copy(update={"backends": draining})
    off = {at(n): Seen(DOWN, failed_at=100.0) for n in (1, 2, 3)}
    rest = {at(n): Seen(UP) for n in range(1, 6)}

    assert policy.held(one, rest | off, NOBODY, 100.0) == NOBODY
    assert policy.held(one, rest | off | {at(4): Seen(DOWN, failed_at=100.0)}, NOBODY, 100.0) == NOBODY
    every = {at(n): Seen(DOWN, failed_at=100.0) for n in range(1, 6)}
    assert (
        policy.held(one, every, NOBODY, 100.0) == every.keys()
    )  # flows that those have stay where they are too


def test_guard_lets_slow_failures_pass() -> None:
    """Backends that fail one after the other, each long after the last, are all taken out."""
    one = service(4, mass_failure_guard=0.5)
    holding, states = NOBODY, dict(seen(UP, UP, UP, UP))
    for n in (1, 2, 3, 4):
        states[at(n)] = Seen(DOWN, failed_at=n * 1000.0)
        holding = policy.held(one, states, holding, n * 1000.0)
        assert holding == NOBODY


@QUICK
@given(st.floats(0, 200), st.integers(1, 100))
def test_slow_start_grows_in_few_steps(gone: float, seconds: int) -> None:
    """From one share to all of them, never less than before; next_share_at is when the next one comes."""
    share = policy.share_of(1000.0, seconds, 1000.0 + gone)

    assert 1 <= share <= STEPS
    assert (share == STEPS) == (gone >= seconds) or abs(gone - seconds) < 1e-6
    assert policy.share_of(1000.0, seconds, 1000.0 + gone + 1) >= share
    if share < STEPS:
        due = policy.next_share_at(1000.0, seconds, 1000.0 + gone)
        assert policy.share_of(1000.0, seconds, due + 1e-6) == share + 1
        assert policy.share_of(1000.0, seconds, due - 1e-6) == share
    assert policy.share_of(None, seconds, 0.0) == policy.share_of(1000.0, 0, 1000.0) == STEPS


@QUICK
@given(
    st.lists(st.integers(1, WEIGHT_MOST), min_size=1, max_size=8),
    st.lists(st.none() | st.integers(0, STEPS), min_size=8, max_size=8),
)
def test_weights_keep_their_proportions(weights: list[int], shares: list[int | None]) -> None:
    """What the ring sees is in proportion to weight times share, within what it takes; out is 0, in never."""
    plain = {at(n): weight for n, weight in enumerate(weights)}
    steps = {at(n): share for n, share in enumerate(shares) if share is not None and at(n) in plain}
    wanted = {address: weight * steps.get(address, STEPS) for address, weight in plain.items()}
    found = Standing(steps).weights(plain)

    assert found.keys() == plain.keys()
    assert all(0 <= weight <= WEIGHT_MOST for weight in found.values())
    assert all((found[address] == 0) == (wanted[address] == 0) for address in plain)
    most = max(wanted.values())
    if most:
        scale = max(found.values()) / most
        assert all(abs(found[a] - wanted[a] * scale) <= 1 for a in plain)


def test_full_standing_leaves_weights_alone() -> None:
    """Without slow starts the ring is that of the healthy backends' own weights: the same on every node."""
    plain = {at(1): 10, at(2): 30, at(3): 20}
    assert FULL.weights(plain) == plain
    assert Standing({at(2): 0}).weights(plain) == {at(1): 10, at(2): 0, at(3): 20}
    assert Standing({at(2): 0, at(1): STEPS}).weights(plain) == {at(1): 10, at(2): 0, at(3): 20}
