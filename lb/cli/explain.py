"""sluice explain: what becomes of a packet, and why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lb.cli.output import bold, cell, emit, fields, plural, say, span, table, when
from lb.cli.session import Command, Named, Session, pass_session

PCAP = "application/vnd.tcpdump.pcap"
_SHOWN = 96
"""Hex digits of a frame that a person is shown."""
_ONE = ("src", "dst", "protocol")

Document = dict[str, Any]


@click.command(
    cls=Command,
    example=(
        "sluice explain --src 198.51.100.7:40000 --dst 192.0.2.10:80 --protocol tcp --syn\n"
        "sluice explain --src 198.51.100.7:4242 --dst 192.0.2.11 --protocol icmp\n"
        "sluice explain --hex 0200000000010200000000020806\n"
        "tcpdump -i eth0 -c 100 -w trouble.pcap; sluice explain --pcap trouble.pcap"
    ),
)
@click.option("--src", type=Named(), metavar="ADDR[:PORT]", help="The source; [ADDR]:PORT for IPv6.")
@click.option(
    "--dst", type=Named(), metavar="ADDR[:PORT]", help="The destination; TCP and UDP need the port."
)
@click.option(
    "--protocol", type=Named(), metavar="P", help="tcp, udp or icmp: an echo request, --src ADDR:IDENTIFIER."
)
@click.option("--syn", is_flag=True, help="The packet opens a TCP connection; without this, it is an ACK.")
@click.option("--hex", "frame", metavar="FRAME", help="An Ethernet frame in hex, broken ones too.")
@click.option(
    "--pcap",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Frames of a pcap or pcapng file, up to 64 MiB.",
)
@click.option("--interface", "-i", type=Named(), help="The interface it arrives on, if there are several.")
@pass_session
def explain(
    session: Session,
    *,
    src: str | None,
    dst: str | None,
    protocol: str | None,
    syn: bool,
    frame: str | None,
    pcap: Path | None,
    interface: str | None,
) -> None:
    """Say what would become of a packet, and why.

    The loaded program's own source runs over the live tables, and changes nothing: no counter, no flow.
    Give a packet by its addresses, or a frame in hex, or a capture.
    """
    asked = {"src": src, "dst": dst, "protocol": protocol}
    given = [any(asked.values()) or syn, frame is not None, pcap is not None]
    if sum(given) != 1:
        raise click.UsageError("give either --src, --dst and --protocol, or --hex, or --pcap")
    if pcap is not None:
        document = _of_capture(session, pcap, interface)
        if session.output == "json":
            say(capture_json(document))
        else:
            emit(session, document, lambda: capture_lines(document))
        return
    if frame is not None:
        body: Document = {"hex": frame}
    else:
        missing = [f"--{name}" for name in _ONE if asked[name] is None]
        if missing:
            raise click.UsageError(f"also give {' and '.join(missing)}: a packet has all three")
        body = {**asked, "syn": syn}
    document = session.client.call("POST", "/explain", query={"interface": interface}, body=body).document
    emit(session, document, lambda: packet_lines(document["packets"][0]))


def _of_capture(session: Session, pcap: Path, interface: str | None) -> Document:
    """The explanation of a whole capture, which the daemon gives in pages."""
    packets: list[Document] = []
    after: int | None = 0
    with pcap.open("rb") as stream:
        while after is not None:
            stream.seek(0)
            query = {"interface": interface, "after": after}
            page = session.client.call(
                "POST", "/explain", query=query, stream=stream, content_type=PCAP
            ).document
            packets += page["packets"]
            after = page["next"]
    return {"packets": packets, "total": page["total"], "next": None}


def capture_json(document: Document) -> Iterator[str]:
    """The document, a packet a line: indenting a capture takes as long as explaining it."""
    last = len(document["packets"]) - 1
    yield '{"packets": ['
    for at, packet in enumerate(document["packets"]):
        yield json.dumps(packet, ensure_ascii=False) + ("," if at < last else "")
    yield f'], "total": {document["total"]}, "next": null}}'


def packet_lines(packet: Document) -> Iterator[str]:
    """One packet for people: the verdict first, then what decided, then the steps."""
    yield f"{bold(packet['verdict'])} ({packet['action']}): {packet['reason']}"
    known = [
        ("service", packet["service"]),
        ("backend", packet["backend"]),
        ("chosen by", _VIAS.get(packet["via"])),
        ("entry", _entry(packet["entry"])),
        ("frame out", _frame(packet["frame_out"])),
    ]
    lines = [(name, value) for name, value in known if value is not None]
    if lines:
        yield ""
        yield from fields(lines)
    yield ""
    yield from table(
        ("stage", "result", "detail"), ((s["stage"], s["result"], s["detail"]) for s in packet["steps"])
    )


_VIAS = {
    "flow": "the flow table",
    "ring": "the ring",
    "quic-cid": "the QUIC connection id",
}


def _frame(frame: str | None) -> str | None:
    """A frame's headers and its length."""
    if frame is None:
        return None
    return f"{frame[:_SHOWN]}{'…' if len(frame) > _SHOWN else ''} ({len(frame) // 2} bytes)"


def _entry(entry: Document | None) -> str | None:
    """An entry in one line."""
    if entry is None:
        return None
    if entry["kind"] == "flow":
        return f"{entry['class']} flow, last seen {span(entry['age_seconds'])} ago"
    if entry["kind"] == "rule":
        matched = entry["matched"]
        return f"rule {entry['name']} ({entry['action']}), {plural(matched['packets'], 'packet')} matched"
    left = "no expiry" if entry["expires_at"] is None else f"until {when(entry['expires_at'])}"
    reason = f', "{cell(entry["reason"])}"' if entry["reason"] else ""
    return (
        f"{entry['kind']} {entry['prefix']} by {', '.join(entry['owners'])}{reason}, created "
        f"{span(entry['age_seconds'])} ago, {left}, {plural(entry['hits']['packets'], 'packet')}"
    )


def capture_lines(document: Document) -> Iterator[str]:
    """Packets of a capture for people, one a line; of each the last step."""
    yield from table(
        ("packet", "verdict", "service", "backend", "via", "why"),
        (
            (number, p["verdict"], p["service"], p["backend"], p["via"], p["steps"][-1]["detail"])
            for number, p in enumerate(document["packets"], 1)
        ),
    )
