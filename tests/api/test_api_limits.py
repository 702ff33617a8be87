"""How much a caller may ask for: requests, guesses, and answers that go on."""

import pytest
from api_guarded import Guarded

from lb.errors import TooManyError
from lb.model.access import Limits

PROBLEM = "application/problem+json"


def test_a_caller_that_asks_too_often_waits(daemon: Guarded) -> None:
    """429 with Retry-After, for it alone, until its bucket has some again; root is exempt."""
    daemon.allow(limits={"requests_per_second": 2, "request_burst": 3})
    token = daemon.token("viewer")
    client, other = daemon.tls(token), daemon.tls(daemon.token("viewer", "other"))

    assert [client.get("/v1/verdicts").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = client.get("/v1/verdicts")
    assert (refused.headers["retry-after"], refused.headers["content-type"]) == ("1", PROBLEM)
    assert other.get("/v1/verdicts").status_code == 200
    assert all(daemon.unix().get("/v1/verdicts").is_success for _ in range(10))
    daemon.steady.now += 0.5
    assert [client.get("/v1/verdicts").status_code for _ in range(2)] == [200, 429]


def test_who_guesses_tokens_waits(daemon: Guarded) -> None:
    """An address without good credentials has a bucket of its own: good ones from there still count."""
    guess = daemon.tls("sluice_guess")
    found = [guess.get("/v1/services").status_code for _ in range(101)]

    assert found == [401] * 100 + [429]
    assert daemon.tls("sluice_guess", address="198.51.100.8").get("/v1/services").status_code == 401
    assert daemon.tls(daemon.token("viewer")).get("/v1/services").status_code == 200
    six = [daemon.tls("x", address=f"2001:db8::{n:x}").get("/v1/services").status_code for n in range(101)]
    assert six[-1] == 429


def test_answers_that_go_on_are_few(daemon: Guarded) -> None:
    """So many for each caller, and so many in all; what has ended makes room."""
    daemon.allow(limits={"streams_per_caller": 2, "streams": 3})
    quotas = daemon.control.quotas
    for _ in range(2):
        quotas.hold("token viewer", is_exempt=False)

    mine = daemon.tls(daemon.token("viewer")).get("/v1/events?follow=true")
    assert (mine.status_code, mine.headers["retry-after"]) == (429, "1")
    assert "has 2 streaming answers open" in mine.json()["detail"]
    quotas.hold("uid 0", is_exempt=True)
    for path in ("/v1/events?follow=true", "/v1/capture?seconds=1", "/v1/top?seconds=0.1"):
        all_of_them = daemon.unix().get(path)
        assert (all_of_them.status_code, all_of_them.headers["retry-after"]) == (429, "10")

    quotas.let_go("uid 0", 1)
    assert daemon.unix().get("/v1/top?seconds=0.1").status_code == 200
    assert daemon.unix().get("/v1/top?seconds=0.1").status_code == 200  # the one before was let go
    assert daemon.unix().get("/v1/events").status_code == 200  # a page is no stream


def test_a_bucket_fills_by_time_and_no_further() -> None:
    """And what was longest quiet is forgotten first, so that no number of addresses takes memory."""
    now = [0.0]
    from api.access.limits import BUCKETS_MAX, Buckets, Quotas

    buckets = Buckets(lambda: now[0])
    assert [buckets.take("a", 1, 2) for _ in range(3)] == [0, 0, 1]
    now[0] = 100
    assert [buckets.take("a", 1, 2) for _ in range(3)] == [0, 0, 1]
    now[0] = 99  # a clock that goes back gives nothing
    assert buckets.take("a", 1, 2) == 1
    for number in range(BUCKETS_MAX):
        buckets.take(f"other {number}", 1, 2)
    assert len(buckets._levels) == BUCKETS_MAX
    assert buckets.take("a", 1, 2) == 0
    quotas = Quotas(lambda: Limits(streams=1), lambda: now[0])
    quotas.hold("a", is_exempt=False)
    with pytest.raises(TooManyError):
        quotas.hold("b", is_exempt=True)
    quotas.let_go("a", 1)
    assert not quotas._streams
