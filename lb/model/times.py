"""Timestamps and durations as people write them."""

import re
from datetime import UTC, datetime

SECONDS_MAX = 10 * 365 * 86400
"""Ten years: an entry that stays longer has no deadline."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile("(?:[0-9]{1,9}[smhdw])+")


def parse_duration(value: object) -> int:
    """Seconds, from a whole number or a text such as "90s", "1h", "1h30m", "7d" or "2w"; ValueError."""
    if isinstance(value, str):
        text = value.strip()
        if _DURATION.fullmatch(text):
            seconds = sum(int(n) * _UNITS[unit] for n, unit in re.findall("([0-9]+)([smhdw])", text))
        elif re.fullmatch("[0-9]{1,10}", text):
            seconds = int(text)
        else:
            raise ValueError(
                f'"{text[:40]}" is not a duration: write seconds, or a text such as 90s, 1h, 7d or 2w'
            )
    elif isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    else:
        raise ValueError("a duration is a whole number of seconds, or a text such as 90s, 1h, 7d or 2w")
    if not 1 <= seconds <= SECONDS_MAX:
        raise ValueError(f"a duration is 1 second to 10 years ({SECONDS_MAX} seconds), not {value}")
    return seconds


def parse_moment(value: object) -> float:
    """Seconds since the epoch, from an RFC 3339 text such as "2030-01-31T12:00:00Z"; ValueError."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip().upper())
        except ValueError:
            raise ValueError(
                f'"{value[:40]}" is not a timestamp: write RFC 3339, such as 2030-01-31T12:00:00Z'
            ) from None
    elif isinstance(value, datetime):
        moment = value
    else:
        raise ValueError("a timestamp is a text in RFC 3339, such as 2030-01-31T12:00:00Z")
    if moment.tzinfo is None:
        raise ValueError(f"{value} lacks its offset: write {moment.isoformat()}Z if it is UTC")
    return moment.timestamp()


def format_moment(seconds: float) -> str:
    """RFC 3339 in UTC: whole seconds where they are whole, else to the millisecond or microsecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    precision = (
        "seconds" if not moment.microsecond else "auto" if moment.microsecond % 1000 else "milliseconds"
    )
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
