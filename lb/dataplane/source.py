"""The XDP program's text: local headers joined into one file, because bcc rewrites map calls only in its main file."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

XDP_DIR = Path(__file__).resolve().parents[2] / "xdp"

_LOCAL_INCLUDE = re.compile(r'^#include "([^"]+)"\s*$')


def _texts(directory: Path) -> Mapping[str, str]:
    return {path.name: path.read_text() for path in directory.glob("*.[ch]")}


@cache
def _own_texts() -> Mapping[str, str]:
    """As they were when the first was asked for.

    A daemon goes on while an upgrade puts others in their place, which may not fit its maps.
    """
    return _texts(XDP_DIR)


def join_source(name: str, directory: Path = XDP_DIR) -> str:
    """The text of a program with its local headers in place, and #line marks so that errors name file and line.

    A header is taken once. KeyError if a file is missing.
    """
    texts = _own_texts() if directory == XDP_DIR else _texts(directory)
    seen: set[str] = set()

    def expand(file: str) -> list[str]:
        seen.add(file)
        lines = [f'#line 1 "{file}"']
        for number, line in enumerate(texts[file].splitlines(), 1):
            include = _LOCAL_INCLUDE.match(line)
            if not include:
                lines.append(line)
            elif include[1] not in seen:
                lines += [*expand(include[1]), f'#line {number + 1} "{file}"']
        return lines

    return "\n".join(expand(name)) + "\n"
