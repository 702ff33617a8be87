"""More writes than can be made: some wait, the rest are told to come again, and who reads is answered meanwhile."""

import importlib
import pkgutil
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest
from api_stack import Stack
from fastapi.routing import APIRoute
from live import serving

from api import bodies, deps, routes
from api.access import limits
from lb.model.columns import FAMILIES

WAITING, MORE = 40, 9


def test_who_comes_too_late_is_told_so(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the writer's lock held: of 49 callers nine get a 429 that says when, others wait, a reader is answered.

    What waited is made then, every one of it; what was refused changed nothing. Each has its line in the audit.
    """
    monkeypatch.setattr(limits, "WRITES_MOST", WAITING)
    path = tmp_path / "sluice.sock"

    def block(number: int) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as own:
            return own.post("http://sluice/v1/blocklist", json={"prefix": f"198.51.100.{number}"})

    with serving(stack.app, path) as client, ThreadPoolExecutor(WAITING + MORE) as pool:
        with stack.reconciler._lock:
            asked = [pool.submit(block, number) for number in range(WAITING + MORE)]
            refused = first_of(asked, MORE)
            for reads in range(20):
                assert client.get("/v1/services").json()["total"] == 0, reads
            assert sum(not each.done() for each in asked) == WAITING
        answers = [each.result() for each in asked]
        more = [block(number) for number in (100, 101)]

    late = [each.result() for each in refused]
    assert {(each.status_code, each.headers["Retry-After"]) for each in late} == {(429, "1")}
    assert all(
        f"{WAITING} writes are already being made or waiting" in each.json()["detail"] for each in late
    )
    assert [each.status_code for each in more] == [201, 201]  # there is room again
    made = [each for each in answers if each.status_code == 201]
    assert sorted(int(each.headers["Sluice-Revision"]) for each in made) == list(range(1, WAITING + 1))
    blocked = {entry["prefix"] for entry in stack.client.get("/v1/blocklist").json()["items"]}
    assert blocked == {each.json()["prefix"] for each in (*made, *more)}
    held = stack.reconciler._plans.deny.entries
    assert sum(len(held[FAMILIES.index(family)]) for family in FAMILIES) == len(blocked)
    lines = stack.app.state.access.tokens.audit(limit=1000)
    assert sorted(line.status for line in lines) == [201] * (WAITING + len(more)) + [429] * MORE


def first_of(asked: list[Future[httpx.Response]], count: int) -> list[Future[httpx.Response]]:
    """Those that are over first, so many."""
    done: set[Future[httpx.Response]] = set()
    while len(done) < count:
        more, _ = wait(set(asked) - done, timeout=60, return_when=FIRST_COMPLETED)
        assert more
        done |= more
    return list(done)


def test_a_write_waits_with_its_body_in_hand() -> None:
    """In every operation that writes, the body is read before the turn is asked for: a slow one holds up nobody."""
    modules = [
        importlib.import_module(f"api.routes.{each.name}") for each in pkgutil.iter_modules(routes.__path__)
    ]
    found = [route for module in modules if hasattr(module, "router") for route in module.router.routes]
    calls = [
        [inner.call for inner in each.dependant.dependencies] for each in found if isinstance(each, APIRoute)
    ]
    writes = [each for each in calls if deps._write in each]
    read = bodies.body_of.__qualname__
    with_body = [[getattr(call, "__qualname__", "").startswith(read) for call in each] for each in writes]

    assert len(writes) > 20
    assert sum(map(any, with_body)) > 10
    for each, is_body in zip(writes, with_body, strict=True):
        assert not any(is_body[each.index(deps._write) :])
