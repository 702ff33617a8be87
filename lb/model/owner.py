"""The owner of a list entry: the operator, a feed, a rule, or any program that names itself."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema

from lb.model.service import NAME_PATTERN

OPERATOR: Final = "operator"
"""The owner of what people and scripts add by hand."""
FEED_PREFIX: Final = "feed:"
"""Stands before a feed's name."""
RULE_PREFIX: Final = "rule:"
"""Stands before the name of a rule that bans."""
EVERYONE: Final = "*"
"""Where owners are chosen: all of them."""
_PATTERN = f"[a-z0-9-]{{1,32}}|(feed|rule):{NAME_PATTERN}"


def parse_owner(text: str) -> str:
    """The owner of that name; ValueError says what one is."""
    if not re.fullmatch(_PATTERN, text):
        shown = text if text.isprintable() and len(text) <= 40 else ascii(text[:40])[1:-1]
        raise ValueError(
            f'"{shown}" is not an owner: write a word of a-z, 0-9 and "-" of up to 32 characters such as fail2ban, '
            'or "feed:NAME"'
        )
    return text


Owner = Annotated[
    str, AfterValidator(parse_owner), WithJsonSchema({"type": "string", "pattern": f"^({_PATTERN})$"})
]
