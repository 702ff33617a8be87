"""Which of JSON and YAML the Accept header asks for."""

_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
_JSON = frozenset({"application/json", "application/*", "*/*"})


def prefers_yaml(accept: str) -> bool:
    """Whether YAML is asked for above JSON; JSON where neither is named."""
    best: dict[bool, float] = {True: 0.0, False: 0.0}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        if kind in _YAML or kind in _JSON:
            is_yaml = kind in _YAML
            best[is_yaml] = max(best[is_yaml], _weight(parameters))
    return best[True] > best[False]


def _weight(parameters: list[str]) -> float:
    """The q of one item: 1 unless it says a number."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
