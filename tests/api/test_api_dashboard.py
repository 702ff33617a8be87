"""The page at / as files: their types, their headers, and that nothing in them comes from elsewhere."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_stack import running_stack
from fastapi.testclient import TestClient

from api.routes.dashboard import FOLDER

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
OURS = [path for path in FILES if path.parent.name != "vendor"]
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    """A client of an API that is only read."""
    with running_stack() as stack:
        yield stack.client


def url_of(path: Path) -> str:
    name = path.relative_to(FOLDER).as_posix()
    return "/" if name == "index.html" else f"/dashboard/{name}"


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_served_as_it_is(page: TestClient, path: Path) -> None:
    """Each has its type and a tag by which it is not sent twice; HEAD is GET without the body."""
    answer = page.get(url_of(path))

    assert answer.status_code == 200
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == TYPES[path.suffix]
    again = page.get(url_of(path), headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert page.get(url_of(path), headers={"If-None-Match": '"other"'}).status_code == 200
    head = page.head(url_of(path))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_headers_let_nothing_in(page: TestClient, path: Path) -> None:
    """Scripts, styles and requests are of this host alone, nothing is inline, and no other page frames this one."""
    headers = page.get(url_of(path)).headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/",
        "/dashboard/js",
        "/dashboard/index.html",
        "/dashboard/../routes/dashboard.py",
        "/dashboard/%2e%2e/app.py",
        "/dashboard/..%2fapp.py",
        "/dashboard/%2fetc/passwd",
        "/dashboard/js/main.js%00",
    ],
)
def test_nothing_else_is_served(page: TestClient, path: str) -> None:
    """What is no file of the page is a 404, wherever its path leads."""
    answer = page.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_names_another_host(path: Path) -> None:
    """The only addresses in the files are names of XML formats, and where the chart library's source is told of."""
    found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", path.read_text()))

    assert found <= {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"} or (
        path.parent.name == "vendor"
        and all(line.lstrip().startswith(("//", "*", "/*")) for line in lines_with(path, found))
    )


def lines_with(path: Path, words: set[str]) -> list[str]:
    return [line for line in path.read_text().splitlines() if any(word in line for word in words)]


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_no_text_becomes_markup(path: Path) -> None:
    """Nothing is inline, and no script makes markup or code of text, so that names and labels cannot be either."""
    text = path.read_text()

    if path.suffix == ".html":
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
    if path.suffix == ".js":
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|"
            r"setAttribute\(\"style|createContextualFragment|DOMParser"
        )
        assert re.findall(forbidden, text) == []


def test_every_file_is_packaged() -> None:
    """The wheel takes them along: the pattern of the package's data fits each."""
    patterns = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "api"
    ]
    packaged = {path for pattern in patterns for path in (CHECKOUT / "api").glob(pattern)}

    assert set(FILES) <= packaged
    assert FOLDER / "vendor" / "uplot-LICENSE.txt" in FILES


def test_what_the_page_asks_for_is_there() -> None:
    """Every file that the page or a module names exists, and every one that exists is named."""
    named = {"index.html", "vendor/uplot-LICENSE.txt"}
    for path in OURS:
        text = path.read_text()
        named |= set(re.findall(r"\"/dashboard/([^\"]+)\"", text))
        imported = re.findall(r"from \"(\.[^\"]+)\"", text)
        named |= {
            (path.parent / name).resolve().relative_to(FOLDER.resolve()).as_posix() for name in imported
        }

    assert named == {name_of(path) for path in FILES}
