"""Ports, as the operator writes those of services and of the NAT pool."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

PORT_MAX = 65535
PORT_FORMS = 'a port is a number, a range such as "8000-8010", or "any"'


class Port(BaseModel):
    """A port, a closed range of ports, or any: low and high are host-order numbers, any is 0 to 65535.

    Of a protocol without ports both are 0 (NO_PORT).
    """

    model_config = ConfigDict(frozen=True)

    low: int
    high: int

    @property
    def is_any(self) -> bool:
        """Whether no port is looked at: the service takes every port, or its protocol has none."""
        return self.low == 0

    def __str__(self) -> str:
        """The form the API and the CLI use: "any", "80" or "8000-8010"; "none"."""
        if self == NO_PORT:
            return "none"
        if self.is_any:
            return "any"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    @classmethod
    def parse(cls, value: object) -> "Port":
        """Read 80, "80", "8000-8010" or "any"; ValueError says what is wrong."""
        if isinstance(value, Port):
            return value
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(PORT_FORMS)
        text = str(value).strip()
        if text == "any":
            return cls(low=0, high=PORT_MAX)
        match = re.fullmatch(r"(-?[0-9]{1,9})(?:-([0-9]{1,9}))?", text)
        if not match:
            raise ValueError(f'"{text}" is not a port: write a number, a range such as "8000-8010", or "any"')
        low, high = int(match[1]), int(match[2] or match[1])
        for port in (low, high):
            if not 1 <= port <= PORT_MAX:
                raise ValueError(f"port {port} is out of range: 1 to {PORT_MAX}")
        if low > high:
            raise ValueError(f"the range {text} is backwards: write {high}-{low}")
        return cls(low=low, high=high)

    def to_json(self) -> int | str | None:
        """A number where it is one port, else the text form; None where there is none."""
        if self == NO_PORT:
            return None
        return self.low if self.low == self.high else str(self)


NO_PORT = Port(low=0, high=0)

PortField = Annotated[
    Port,
    BeforeValidator(Port.parse, json_schema_input_type=int | str),
    PlainSerializer(Port.to_json, return_type=int | str),
]


LEFT_OUT = object()
"""What stands for a port that a document should have and has not."""


def _port_if_any(value: object) -> Port:
    if value is LEFT_OUT:
        raise ValueError("this key is needed")
    return NO_PORT if value is None else Port.parse(value)


ServicePort = Annotated[
    Port,
    BeforeValidator(_port_if_any, json_schema_input_type=int | str | None),
    PlainSerializer(Port.to_json, return_type=int | str | None),
]
