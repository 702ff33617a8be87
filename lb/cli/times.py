"""Times as people give them on a command line."""

from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds_of(text: str) -> int:
    """The seconds that a time is; ValueError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f'"{text}" is not a time: write 10m, 1h or 1d, or seconds')
    return int(number) * _UNITS[unit]


class Seconds(click.ParamType[int]):
    """Seconds, as 90, 90s, 10m, 1h, 1d or 2w, between two bounds."""

    name = "time"

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """The seconds, or a usage error."""
        text = str(value).strip()
        try:
            seconds = seconds_of(text)
        except ValueError as error:
            self.fail(str(error), parameter, context)
        if not self._least <= seconds <= self._most:
            self.fail(f"it is {self._least} s to {self._most} s, not {text}", parameter, context)
        return seconds
