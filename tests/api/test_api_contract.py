"""The application against its own OpenAPI document, by schemathesis: examples, edges, random and chained requests."""

import pytest
from contract import conformance


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_answer_is_as_the_document_says() -> None:
    """No 5xx, no status, header or body that is not documented, nothing taken that the schema forbids, and more.

    The same cases each time, as many as there is time for; tests/api/contract.py goes on for longer.
    """
    done = conformance("--max-time=20", "--generation-deterministic")

    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout
