"""/explain: what becomes of packets, by the loaded program's own source over the live maps."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from api.bodies import Body, Media
from api.deps import JsonOrPcapDep, ReconcilerDep
from api.explained import Explanation, explanation
from api.inputs import object_of, validated
from api.openapi import BODY, OBSERVED, documented, takes
from lb.errors import InvalidError
from lb.model.capture import Captured, read_capture
from lb.model.question import (
    LONGEST,
    SOURCE_PORT,
    HexQuestion,
    TupleQuestion,
    frame_of_hex,
    frame_of_tuple,
    tuple_of,
)

router = APIRouter(prefix="/v1", tags=[OBSERVED])

_HEX, _TUPLE = TypeAdapter(HexQuestion), TypeAdapter(TupleQuestion)
_EXAMPLE = {"src": "198.51.100.7:40000", "dst": "192.0.2.10:80", "protocol": "tcp", "syn": True}

Asked = tuple[list[bytes], list[str | None], int]
"""Frames, what was done to each before it runs, and how many there are in all."""


@router.post(
    "/explain",
    summary="What becomes of packets",
    response_model=Explanation,
    responses=documented(*BODY, 404, 409, 503),
    openapi_extra=takes({Media.JSON: HexQuestion | TupleQuestion, Media.PCAP: bytes}, _EXAMPLE),
)
def explain(
    body: JsonOrPcapDep,
    reconciler: ReconcilerDep,
    interface: Annotated[
        str | None, Query(description="by which packets come in; required if there are several")
    ] = None,
    after: Annotated[
        int, Query(ge=0, description="of a capture: packets to skip, the `next` of the previous page")
    ] = 0,
    limit: Annotated[
        int, Query(ge=1, le=10000, description="of a capture: packets per page, at most")
    ] = 5000,
) -> Response:
    """Verdict, backend, what chose it, the steps and the frame out. Changes nothing: no counter, no flow, no budget.

    One packet as JSON, in hex or by its five-tuple; many as a pcap or pcapng of Ethernet. The first request after a
    change of the program compiles its traced build, which takes a second.
    """
    state = reconciler.interface(interface)
    if body.media is Media.PCAP:
        frames, notes, total = _of_capture(body, after, limit)
    else:
        mac = bytes.fromhex((state.mac or "").replace(":", ""))
        frames, notes, total = _of_json(object_of(body.json()), mac)
    found = reconciler.explain(frames, state.name)
    document = explanation(found, notes, total, after if body.media is Media.PCAP else 0)
    return Response(json.dumps(document), media_type=Media.JSON)


def _of_json(data: dict[str, Any], mac: bytes) -> Asked:
    if "hex" in data:
        if data.keys() & {"src", "dst", "protocol", "syn"}:
            raise InvalidError.one("/hex", "give either hex, or src, dst and protocol")
        return [frame_of_hex(validated(_HEX, data).hex)], [None], 1
    asked = tuple_of(validated(_TUPLE, data))
    note = None
    if not asked.source_port_given:
        note = f"no source port was given: {SOURCE_PORT} was used; another may lead to another backend"
    return [frame_of_tuple(asked, mac)], [note], 1


def _of_capture(body: Body, after: int, limit: int) -> Asked:
    """A page of a capture, all of which is looked through first: it is explained as a whole or not at all."""
    frames: list[bytes] = []
    notes: list[str | None] = []
    total = 0
    for total, captured in enumerate(read_capture(body.data), 1):
        if captured.length > LONGEST:
            raise InvalidError.one(
                "",
                f"packet {total} of the capture has {captured.length} bytes, but at most "
                f"{LONGEST} are possible: leave it out",
            )
        if after < total <= after + limit:
            frames.append(captured.data.ljust(captured.length, b"\0"))
            notes.append(_note_of(captured))
    return frames, notes, total


def _note_of(captured: Captured) -> str | None:
    kept = len(captured.data)
    if kept == captured.length:
        return None
    return f"{kept} of {captured.length} bytes were captured: the rest is taken as zeros"
