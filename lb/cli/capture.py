"""sluice capture: packets as they come, with what became of each and why."""

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from lb.cli.filters import Filter, FilterError
from lb.cli.frame_line import frame_line, ip_frame_length
from lb.cli.names import SERVICE, VERDICT
from lb.cli.output import bold, cell, count, plural, say
from lb.cli.pcapng import PcapngWriter, comment_of, nanoseconds, reasons_of
from lb.cli.session import Command, Named, Session, pass_session

BYTES_MOST = 256
"""Of each packet."""
RATE_MOST = 10_000

Record = dict[str, Any]


@click.command(
    cls=Command,
    example=(
        "sluice capture --verdict drop\n"
        "sluice capture --service web -c 20 tcp port 80 and 'tcp[tcpflags] & tcp-syn != 0'\n"
        "sluice capture --verdict DROP_BLOCKLIST --seconds 60 -w blocked.pcapng"
    ),
)
@click.option(
    "--verdict", "-v", "verdicts", type=VERDICT, multiple=True, metavar="V", help="A name, or pass, tx, drop."
)
@click.option("--service", type=SERVICE, metavar="S", help="Only packets for this service.")
@click.option("--prefix", type=Named(), metavar="P", help="Only packets from this prefix or address.")
@click.option("--count", "-c", "most", type=click.IntRange(1), metavar="N", help="Stop after N packets.")
@click.option(
    "--seconds", type=click.FloatRange(0, 86400, min_open=True), metavar="S", help="Stop after this time."
)
@click.option(
    "--rate",
    type=click.IntRange(1, RATE_MOST),
    default=1000,
    show_default=True,
    help="At most this many packets per second.",
)
@click.option(
    "--bytes", "octets", type=click.IntRange(0, BYTES_MOST), default=BYTES_MOST, show_default=True,
    help="At most this many bytes of each packet.",
)  # fmt: skip
@click.option(
    "--write",
    "-w",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write pcapng to this file; - is stdout.",
)
@click.argument("expression", nargs=-1)
@pass_session
def capture(
    session: Session,
    *,
    verdicts: tuple[str, ...],
    service: str | None,
    prefix: str | None,
    most: int | None,
    seconds: float | None,
    rate: int,
    octets: int,
    write: str | None,
    expression: tuple[str, ...],
) -> None:
    """Show packets as they come, with what became of each.

    EXPRESSION is a tcpdump filter. A packet is shown as it leaves: a forwarded one has its outer header, so a filter
    for what is inside must look behind that ("ip proto 4" finds IP in IP). With -w each packet has a comment: its
    verdict, and the entry, rule, service and backend that decided.

    Without --count or --seconds it runs until Ctrl-C. Packets that were not shown are counted and reported at the end.
    """
    wanted = _filter(" ".join(expression))
    query: dict[str, object] = {
        "verdict": list(verdicts), "service": service, "prefix": prefix, "seconds": seconds, "rate": rate,
        "bytes": octets, "count": most if wanted is None else None,
    }  # fmt: skip
    shown, figures = 0, Record()
    with contextlib.ExitStack() as stack:
        records = stack.enter_context(session.client.stream("/capture", query=query))
        show = stack.enter_context(_shower(session, write, octets))
        try:
            for record in map(json.loads, records):
                if record["record"] == "began":
                    _note("looking; Ctrl-C ends it")
                elif record["record"] != "packet":
                    figures = record
                elif wanted is None or wanted.matches(base64.b64decode(record["bytes"]), record["length"]):
                    shown += 1
                    show(record)
                    if wanted is not None and shown == most:
                        break
        except KeyboardInterrupt:
            pass
    _note(end_line(shown, figures))


def _filter(expression: str) -> Filter | None:
    if not expression:
        return None
    try:
        return Filter(expression)
    except FilterError as error:
        raise click.UsageError(f'"{expression}" is not a filter: {error}') from error


def _note(text: str) -> None:
    click.echo(f"sluice: {text}", err=True)


@contextlib.contextmanager
def _shower(session: Session, write: str | None, octets: int) -> Iterator[Any]:
    """What shows a packet: a file, or lines."""
    if write is None:
        yield lambda packet: say([packet_line(packet) if session.is_table else json.dumps(packet)])
        return
    from lb import __version__

    try:
        stream: BinaryIO = click.open_file(write, "wb")  # type: ignore[assignment]
    except OSError as error:
        raise click.ClickException(f"{write} cannot be written ({error.strerror})") from error
    with stream:
        file = PcapngWriter(stream, snap=octets, application=f"sluice {__version__}")
        yield lambda packet: write_packet(file, packet)


def write_packet(file: PcapngWriter, packet: Record) -> None:
    """A packet with its comment. What is forwarded is as long as its outer header says, and not as it came."""
    data, length = base64.b64decode(packet["bytes"]), packet["length"]
    if packet["action"] in ("tx", "redirect"):
        length = ip_frame_length(data) or length
    file.write(
        data,
        length=length,
        time_ns=nanoseconds(packet["time"]),
        interface=packet["interface"] or "unknown",
        comment=comment_of(packet),
    )


def packet_line(packet: Record) -> str:
    """A packet in one line for people: when, verdict, headers, what decided."""
    data = base64.b64decode(packet["bytes"])
    line = frame_line(data, packet["length"])
    reasons = cell("; ".join(reasons_of(packet))) if reasons_of(packet) else ""
    moment = packet["time"].partition("T")[2][:15]
    return f"{moment} {bold(packet['verdict'])} {line}" + (f" ({reasons})" if reasons else "")


def end_line(shown: int, figures: Record) -> str:
    """What was shown, and what was not."""
    line = f"{plural(shown, 'packet')} shown"
    if not figures:
        return line
    parts = {
        "unseen": "not handed out: over the rate, or too fast for the queue",
        "over_rate": "left out: over the rate",
        "lost": "lost: not read in time",
    }
    missing = [f"{count(figures[name])} {text}" for name, text in parts.items() if figures[name]]
    return f"{line}, of {count(figures['came'])} that came with these verdicts" + "".join(
        f"; {m}" for m in missing
    )
