"""sluice rule: drop, count, limit or allow packets by their own fields."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import click

from lb.cli.names import RULE
from lb.cli.output import Row, cell, count, emit, fields, table, when
from lb.cli.session import Group, Named, Session, confirm, force_option, forced, pass_session, yes_option
from lb.cli.watch import Watched

_ACTIONS = ("drop", "count", "limit", "allow")
_UNITS = ("packets", "bytes", "new-flows")
_MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_FORMS = "1000/s, 10k/s, 500/m or 10MB/s"
_HEADER = ("name", "priority", "action", "matches", "limit", "packets", "dropped", "last match", "reason")


class Rate(click.ParamType[tuple[int, str | None]]):
    """So many a second or minute, as (a second, unit or None): 1000/s, 10k, 300/m, 10MB/s."""

    name = "n/s"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, str | None]:
        """The rate, or a usage error."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([0-9]{1,12})([kMG]?)(B?)(?:/([sm]))?", str(value))
        if not match:
            self.fail(f'"{value}" is not a rate: write {_FORMS}', parameter, context)
        number, multiple, octets, per = match.groups()
        many, rest = divmod(int(number) * _MULTIPLES[multiple], 60 if per == "m" else 1)
        if rest or not many:
            self.fail(f'"{value}" is not a whole number per second: write {_FORMS}', parameter, context)
        return many, "bytes" if octets else None


class Sharing(click.ParamType[dict[str, str | int]]):
    """source, source/24, source/24/56 or rule, as the fields of a limit."""

    name = "source|source/n|rule"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> dict[str, str | int]:
        """{"per", "ipv4_length"?, "ipv6_length"?}, or a usage error."""
        if isinstance(value, dict):
            return value
        match = re.fullmatch(r"source(?:/([0-9]{1,3}))?(?:/([0-9]{1,3}))?|rule", str(value))
        if not match:
            self.fail(
                f'"{value}" is none of the choices: write source, source/24, source/24/56 or rule',
                parameter,
                context,
            )
        if match[0] == "rule":
            return {"per": "rule"}
        lengths = {"ipv4_length": match[1], "ipv6_length": match[2]}
        return {"per": "source", **{name: int(bits) for name, bits in lengths.items() if bits}}


@click.group(cls=Group, example="sluice rule list")
def rule() -> None:
    """Rules: drop, count, limit or allow packets.

    They match addresses, ports, protocol, TCP flags, length and fragments. Rules that allow are evaluated first, then
    those that drop, then all others; within a kind by priority, lowest first.
    """


def match_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which packets a rule means."""
    options = (
        click.option("--source", metavar="PREFIX", help="Prefix of the source address."),
        click.option("--destination", metavar="PREFIX", help="Prefix of the destination address."),
        click.option("--service", metavar="NAME", help="A service: its VIP, port and protocol."),
        click.option(
            "--protocol", metavar="NAME|N", help="tcp, udp, icmp, icmpv6, sctp, gre, esp, ah, or a number."
        ),
        click.option("--port", "ports", metavar="N|A-B|…", help="Destination ports: 53, 80,443, 1-1023."),
        click.option("--source-port", "source_ports", metavar="N|A-B|…", help="Source ports."),
        click.option(
            "--tcp-flags", metavar="FLAGS", help='TCP flags that are set, or with "!" clear: syn,!ack.'
        ),
        click.option("--length", metavar="N|A-B|…", help="Length of the IP packet in bytes: 0-64."),
        click.option("--fragments", type=click.Choice(["only", "none"]), help="Only fragments, or none."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@rule.command(
    example=(
        "sluice rule add no-dns-answers --action drop --protocol udp --source-port 53 --length 512-65535\n"
        "sluice rule add syn-rate --service web --tcp-flags 'syn,!ack' --rate 100/s --burst 500 \\\n"
        "  --per source/24 --ban 10m --count-only\n"
        "sluice rule add office --action allow --source 198.51.100.0/24"
    )
)
@click.argument("name", type=Named())
@click.option(
    "--action", type=click.Choice(_ACTIONS), help="What to do with the packets; default with --rate: limit."
)
@match_options
@click.option("--rate", type=Rate(), help=f"How many may pass: {_FORMS}.")
@click.option(
    "--unit",
    type=click.Choice(_UNITS),
    help="What the rate counts; default packets, unless the rate is in bytes.",
)
@click.option("--burst", type=click.IntRange(1), help="How many at once; default: as many as in a second.")
@click.option("--per", type=Sharing(), help="Who shares a rate; default: each source has its own.")
@click.option("--ban", metavar="TIME", help="Block sources over the rate for this long: 90s, 10m, 1h.")
@click.option("--count-only", is_flag=True, help="On trial: only count what would be dropped.")
@click.option(
    "--priority", type=click.IntRange(0, 65535), help="The lowest is evaluated first; default 1000."
)
@click.option("--reason", help="The reason, for the record.")
@force_option
@pass_session
def add(
    session: Session,
    /,
    *,
    name: str,
    action: str | None,
    rate: tuple[int, str | None] | None,
    unit: str | None,
    burst: int | None,
    per: dict[str, str | int] | None,
    ban: str | None,
    force: bool,
    **said: Any,
) -> None:
    """Add a rule.

    What is not given matches anything. A name that is taken is a conflict (exit code 4).
    """
    if rate is None and (unit or burst or per or ban):
        raise click.UsageError("--unit, --burst, --per and --ban need --rate")
    if action is None and rate is None:
        raise click.UsageError("say what to do with the packets: --action, or --rate")
    if rate and rate[1] and unit not in (None, rate[1]):
        raise click.UsageError(f"the rate is in bytes, but --unit says {unit}: leave one out")
    document = {"name": name, "action": action or "limit", "ban_seconds": ban, **said}
    if rate is not None:
        document["limit"] = _without_none({"rate": rate[0], "unit": unit or rate[1], "burst": burst}) | (
            per or {}
        )
    made = session.client.call("POST", "/rules", body=_without_none(document), query=forced(force)).document
    warn(made)
    emit(session, made, lambda: [f"rule {made['name']} added: {sentence(made)}"])


def _without_none(said: dict[str, Any]) -> dict[str, Any]:
    """What was not said is left out: its default is the daemon's to choose."""
    return {key: value for key, value in said.items() if value is not None and value is not False}


def warn(document: dict[str, Any]) -> None:
    """What was accepted, but can hardly be meant, to standard error."""
    for text in document.get("warnings", ()):
        click.echo(f"sluice: warning: {cell(text)}", err=True)


def sentence(one: dict[str, Any]) -> str:
    """What a rule does, in one line."""
    trial = " (count only)" if one["count_only"] else ""
    limit = f" to {limit_words(one)}" if one["limit"] else ""
    return f"{one['action']}s {match_words(one)}{limit}{trial}"


def match_words(one: dict[str, Any]) -> str:
    """Which packets a rule means."""
    named = {
        "service": "service",
        "protocol": "",
        "source": "from",
        "source_ports": "source port",
        "destination": "to",
        "ports": "port",
        "tcp_flags": "flags",
        "length": "length",
    }
    parts = [f"{word} {one[key]}".strip() for key, word in named.items() if one[key] is not None]
    if one["fragments"] is not None:
        parts.append("fragments" if one["fragments"] == "only" else "no fragments")
    return " ".join(parts) or "everything"


def limit_words(one: dict[str, Any]) -> str | None:
    """A rule's limit, or None."""
    limit = one["limit"]
    if limit is None:
        return None
    text = f"{limit['rate']} {limit['unit']}/s"
    if limit["burst"] is not None:
        text += f", {limit['burst']} at once"
    if limit["per"] == "source":
        text += f", each source /{limit['ipv4_length']} /{limit['ipv6_length']}"
    return text if one["ban_seconds"] is None else f"{text}, ban {one['ban_seconds']}s"


@rule.command(name="list", cls=Watched, example="sluice rule list\nsluice rule list -o json")
@pass_session
def list_rules(session: Session) -> None:
    """List all rules, in the order in which they are evaluated."""
    document = session.client.call("GET", "/rules").document

    def lines() -> Iterable[str]:
        counts = session.client.call("GET", "/stats").document["rules"]
        return table(_HEADER, (_row(one, counts.get(one["name"], {})) for one in document["items"]))

    emit(session, document, lines)


def _row(one: dict[str, Any], counts: dict[str, Any]) -> Row:
    return (
        one["name"],
        one["priority"],
        f"{one['action']}{' (count only)' if one['count_only'] else ''}",
        match_words(one),
        limit_words(one),
        count(counts.get("packets", 0)),
        count(counts.get("dropped_packets", 0)),
        when(counts.get("last_match_at")),
        one["reason"],
    )


@rule.command(example="sluice rule show no-dns-answers")
@click.argument("name", type=RULE)
@pass_session
def show(session: Session, name: str) -> None:
    """Show one rule, and what it has matched."""
    from lb.cli.client import quoted

    one = session.client.call("GET", f"/rules/{quoted(name)}").document

    def lines() -> Iterable[str]:
        seen = session.client.call("GET", f"/rules/{quoted(name)}/status").document
        said = "that would have been dropped" if one["count_only"] else "dropped"
        return fields(
            [
                ("name", one["name"]),
                ("action", one["action"]),
                ("count only", one["count_only"]),
                ("matches", match_words(one)),
                ("limit", limit_words(one)),
                ("priority", f"{one['priority']}, evaluated as number {seen['position']}"),
                ("reason", one["reason"]),
                ("matched", f"{count(seen['packets'])} packets, {count(seen['bytes'], 'B')}"),
                (said, f"{count(seen['dropped_packets'])} packets, {count(seen['dropped_bytes'], 'B')}"),
                ("last match", when(seen["last_match_at"])),
            ]
        )

    emit(session, one, lines)


@rule.command(example="sluice rule promote syn-rate")
@click.argument("name", type=RULE)
@force_option
@pass_session
def promote(session: Session, name: str, force: bool) -> None:
    """Put a count-only rule in force.

    What it has only counted, it drops from now on.
    """
    from lb.cli.client import quoted

    made = session.client.call("POST", f"/rules/{quoted(name)}/promote", query=forced(force)).document
    warn(made)
    emit(session, made, lambda: [f"rule {made['name']} is in force: {sentence(made)}"])


@rule.command(example="sluice rule remove no-dns-answers")
@click.argument("name", type=RULE)
@yes_option
@pass_session
def remove(session: Session, name: str, yes: bool) -> None:
    """Remove a rule and its counters."""
    from lb.cli.client import quoted

    confirm(f"Remove rule {name}?", yes)
    answer = session.client.call("DELETE", f"/rules/{quoted(name)}")
    emit(session, answer.document, lambda: [f"rule {name} removed"])
