"""What sluice service says of health checks: options, the part of a document that they make, and words."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import click

FIELD = "health_check"
TYPES = ("tcp", "http", "https", "udp", "dns", "command")
_ASKS = {
    "http": "path",
    "https": "path",
    "udp": "request",
    "dns": "dns_name",
    "command": "command",
}
"""The field that says most of what a check asks."""


_HTTP = ("http", "https")
OWN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("path", "method", "host", "status", "body", "body_regex"), _HTTP),
    **dict.fromkeys(("server_name", "verify", "ca_file"), ("https",)),
    **dict.fromkeys(("request", "reply"), ("udp",)),
    **dict.fromkeys(("dns_name", "dns_type", "dns_rcode"), ("dns",)),
    "command": ("command",),
}
"""Fields that only some types have: with another type they go."""


class CommandLine(click.ParamType[list[str]]):
    """A command and its arguments, quoted as a shell would have them; no shell ever sees it."""

    name = "command"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> list[str]:
        """The words, or a usage error."""
        if isinstance(value, list):
            return value
        try:
            return shlex.split(value)
        except ValueError as error:
            self.fail(f"{value} cannot be taken apart into words: {error}", parameter, context)


_SECONDS = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)
_OPTIONS: tuple[tuple[str, str, Any, str | None, str], ...] = (
    # option, field, type, metavar, help
    ("interval", "interval_seconds", _SECONDS, "SECONDS", "Seconds between checks of a backend (5)."),
    ("timeout", "timeout_seconds", _SECONDS, "SECONDS", "Seconds within which an answer must come (2)."),
    ("rise", "rise", _COUNT, "N", "Consecutive good checks that make a backend healthy (2)."),
    ("fall", "fall", _COUNT, "N", "Consecutive bad checks that make it unhealthy (3)."),
    ("port", "port", click.IntRange(1, 65535), "N", "The port to check (the service's)."),
    ("via", "via", click.Choice(["data-path", "direct"]), None,
     "To the VIP, encapsulated as clients' packets are (default), or to the backend's own address."),
    ("path", "path", str, "/PATH", "http, https: the path to request (/)."),
    ("method", "method", click.Choice(["GET", "HEAD", "POST", "OPTIONS"]), None, "http, https: the method (GET)."),
    ("host", "host", str, "NAME", "http, https: the Host header (the VIP)."),
    ("status", "status", str, "CODES", "http, https: the good status codes, as 200-299,301 (200-299)."),
    ("body", "body", str, "TEXT", "http, https: text that the body must contain."),
    ("body-regex", "body_regex", str, "REGEX", "http, https: an RE2 expression that the body must match."),
    ("server-name", "server_name", str, "NAME", "https: the server name in TLS (the host)."),
    ("ca-file", "ca_file", str, "FILE", "https: a file of trusted CAs, on the daemon's machine."),
    ("request", "request", str, "TEXT", 'udp: what to send; "hex:" and digits for any bytes.'),
    ("reply", "reply", str, "TEXT", "udp: what the answer must begin with, in the same form (any answer)."),
    ("dns-name", "dns_name", str, "NAME", "dns: the name to query."),
    ("dns-type", "dns_type", str, "TYPE", "dns: the record type to query (A)."),
    ("dns-rcode", "dns_rcode", str, "CODE", "dns: the expected response code (NOERROR)."),
    ("command", "command", CommandLine(), '"/PROGRAM ARG…"', "command: what to run, without a shell, as nobody."),
    ("all-down", "when_all_down", click.Choice(["open", "closed"]), None,
     "If all backends are unhealthy: packets go to all of them (open, default), or are dropped."),
    ("guard", "mass_failure_guard", click.FloatRange(0, 1, min_open=True, max_open=True), "SHARE",
     "If more than this share of the backends fail at once, their states are held."),
    ("established", "established", click.Choice(["keep", "move"]), None,
     "Flows of an unhealthy backend stay until they end (keep, default), or move at once."),
)  # fmt: skip


def health_options(on_or_off: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of health checks; on_or_off: what is there can be taken away too."""
    verify = "--health-verify/--no-health-verify" if on_or_off else "--health-verify"
    options = [
        click.option("--health-check", type=click.Choice(TYPES), help="Check every backend in this way."),
        *(
            click.option(f"--health-{name}", type=kind, metavar=metavar, help=says)
            for name, _, kind, metavar, says in _OPTIONS
        ),
        click.option(verify, is_flag=True, default=None, help="https: verify the certificate."),
        click.option(
            "--health-passive",
            type=click.Choice(["watch", "vote", "off"]),
            help="Count repeated SYNs and ICMP unreachables per backend; vote: too many fail the check.",
        ),
        click.option(
            "--slow-start",
            type=click.IntRange(min=0),
            metavar="SECONDS",
            help="Seconds over which a returning backend's share grows to its full size (0).",
        ),
    ]
    if on_or_off:
        options.append(click.option("--no-health-check", is_flag=True, help="Stop checking."))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def take_health_document(said: dict[str, Any], *, new: bool) -> dict[str, Any]:
    """Take the options out of what was said: {} or {"health_check": …}, null to take it away. A usage error.

    new: there is no check yet to which they could be added.
    """
    none, kind = said.pop("no_health_check", False), said.pop("health_check", None)
    given: dict[str, Any] = {} if kind is None else {"type": kind}
    for name, field, *_ in _OPTIONS:
        if (value := said.pop(f"health_{name.replace('-', '_')}", None)) is not None:
            given[field] = value
    for option, field in (("health_verify", "verify"), ("slow_start", "slow_start_seconds")):
        if (value := said.pop(option, None)) is not None:
            given[field] = value
    if (passive := said.pop("health_passive", None)) is not None:
        given["passive"] = None if passive == "off" else {"vote": passive == "vote"}
    if none and given:
        raise click.UsageError(
            "--no-health-check contradicts the other --health options: give one or the other"
        )
    if kind is not None and not new:
        given = {field: None for field, kinds in OWN.items() if kind not in kinds} | given
    if given and new and kind is None:
        raise click.UsageError(f"say how to check: --health-check {'|'.join(TYPES)}")
    return {FIELD: None} if none else {FIELD: given} if given else {}


def health_check_words(wanted: Mapping[str, Any] | None) -> str:
    """A check as it is wanted, on one line; "" for none."""
    if wanted is None:
        return ""
    asks = wanted.get(_ASKS.get(wanted["type"], ""))
    what = " ".join(asks) if isinstance(asks, list) else asks
    parts = [f"{wanted['type']}{f' {what}' if what else ''}"]
    if wanted["port"]:
        parts.append(f"port {wanted['port']}")
    if wanted["via"] == "direct":
        parts.append("direct")
    parts.append(f"every {wanted['interval_seconds']:g} s")
    parts.append(f"{wanted['fall']} bad are unhealthy, {wanted['rise']} good are healthy")
    if wanted["slow_start_seconds"]:
        parts.append(f"slow start {wanted['slow_start_seconds']} s")
    if wanted["when_all_down"] == "closed":
        parts.append("closed when all are down")
    return ", ".join(parts)
