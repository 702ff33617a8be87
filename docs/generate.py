#!/usr/bin/env python3
"""Writes docs/reference/ from the code: commands, REST, the document, verdicts and metrics.

Run by `make docs`; a test holds the files against what this makes.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lb.cli.main import cli

REFERENCE = Path(__file__).resolve().parent / "reference"
_NOTE = "<!-- Written by docs/generate.py from the code: `make docs`. -->"
_VERBS = ("get", "post", "put", "patch", "delete")


def pages() -> dict[str, str]:
    """Each page's name and text."""
    document = _openapi()
    made = {
        "cli.md": _page("Commands", _commands(cli, ("sluice",))),
        "rest.md": _page("REST", _rest(document)),
        "document.md": _page("The document and all schemas", _document(document)),
        "verdicts.md": _page("Verdicts", _verdicts()),
        "metrics.md": _page("Metrics", _metrics()),
    }
    return {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in made.items()}


def main() -> None:
    """Write them all."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
    for path in set(REFERENCE.glob("*.md")) - {REFERENCE / name for name in pages()}:
        path.unlink()


def _page(title: str, lines: Iterable[str]) -> str:
    return "\n".join([_NOTE, "", f"# {title}", "", *lines]).rstrip() + "\n"


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield from ("", _row(*header), _row(*("---" for _ in header)))
    for row in rows:
        yield _row(*row)
    yield ""


# ---- commands ------------------------------------------------------------------------------------------------------


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[str]:
    """The help of a command as `--help` prints it, and of all below it."""
    context = click.Context(command, info_name=" ".join(words), terminal_width=100, max_content_width=100)
    yield from (f"## {' '.join(words)}", "", "```", *command.get_help(context).splitlines(), "```", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _commands(below, (*words, name))


# ---- REST ----------------------------------------------------------------------------------------------------------


def _openapi() -> dict[str, Any]:
    from api.app import create_app
    from lb.dataplane.twin import TwinDataPlane
    from lb.reconcile.loop import Reconciler
    from lb.store import SqliteStore

    return create_app(Reconciler(SqliteStore(":memory:"), TwinDataPlane())).openapi()


def _rest(document: dict[str, Any]) -> Iterator[str]:
    yield "The content of `/openapi.json` as a page. [document.md](document.md) describes the fields."
    for path, operations in document["paths"].items():
        for verb in _VERBS:
            if verb in operations:
                yield from _operation(document, f"{verb.upper()} {path}", operations[verb])


def _operation(document: dict[str, Any], title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield from ("", f"## {title}", "", f"{operation['summary']}.", "")
    described = operation.get("description", "")
    if described:
        yield from (described, "")
    if "parameters" in operation:
        yield from _table(
            ("parameter", "in", "type", "means"),
            (
                (f"`{p['name']}`", p["in"], _type(p["schema"], document), p.get("description", ""))
                for p in operation["parameters"]
            ),
        )
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        kinds = (f"{media} ({_type(one.get('schema', {}), document)})" for media, one in body.items())
        yield f"Takes {', '.join(kinds)}."
    good, bad = [], []
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if status < "4":
            kinds = ", ".join(
                sorted({_type(one.get("schema", {}), document) for one in content.values()} - {"any"})
            )
            good.append(f"{status}{f' ({kinds})' if kinds else ''}")
        else:
            bad.append(status)
    yield from ("", f"Answers {', '.join(good)}; problems {', '.join(bad) or 'none'}.")


def _type(schema: dict[str, Any], document: dict[str, Any]) -> str:
    """A schema in a few words; named ones as links."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](document.md#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one, document) for one in schema[key]))
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return _type(schema["allOf"][0], document)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}), document)}"
    kind = schema.get("format") or schema.get("type") or "any"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        kind += f", {'' if low is None else low}…{'' if high is None else high}"
    return str(kind)


def _document(document: dict[str, Any]) -> Iterator[str]:
    yield "Every schema of the API, by name. `Config` is the desired state, as `apply`, `diff` and `export` use it."
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from ("", f"## {name}", "", *schema.get("description", "").splitlines(), "")
        if "enum" in schema:
            yield f"One of {_type(schema, document)}."
        required = schema.get("required", ())
        properties = schema.get("properties", {})
        if properties:
            yield from _table(
                ("field", "type", "default", "means"),
                (
                    (
                        f"`{key}`",
                        _type(one, document),
                        _default(key, one, required),
                        one.get("description", ""),
                    )
                    for key, one in properties.items()
                ),
            )


def _default(key: str, schema: dict[str, Any], required: Iterable[str]) -> str:
    if key in required:
        return "required"
    if "default" not in schema and "$ref" in schema:
        return "its own defaults"
    value = schema.get("default")
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


# ---- verdicts, metrics ---------------------------------------------------------------------------------------------


def _verdicts() -> Iterator[str]:
    from lb.dataplane.layout import layout

    yield "`xdp/verdicts.h` is the list; `GET /v1/verdicts` shows it, `/v1/stats` counts each."
    rows = ((v.number, f"`{v.name}`", v.action, v.sentence) for v in layout().verdicts)
    yield from _table(("number", "verdict", "action", "means"), rows)


def _metrics() -> Iterator[str]:
    from api import metrics

    yield "`GET /metrics`, in Prometheus' text format. No label holds a client's address."
    found = [one for one in vars(metrics).values() if isinstance(one, metrics.Definition)]
    rows = (
        (
            f"`{one.name}{'_total' if one.kind is metrics.COUNTER else ''}`",
            "counter"
            if one.kind is metrics.COUNTER
            else "gauge"
            if one.kind is metrics.GAUGE
            else "histogram",
            ", ".join(f"`{label}`" for label in one.labels),
            one.help,
        )
        for one in sorted(found, key=lambda one: one.name)
    )
    yield from _table(("metric", "type", "labels", "means"), rows)


if __name__ == "__main__":
    main()
