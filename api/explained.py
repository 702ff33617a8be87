"""The documents of /explain: their schemas, and how they are made from the reconciler's answer."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.entry_schemas import AllowlistEntry, BlocklistEntry, EntryHits
from api.observed_schemas import RuleCounts
from lb.model import Rule
from lb.model.entry_view import AllowlistView, BlocklistView
from lb.reconcile.explained import Explained, FlowEntry, ListEntry, MetRule, Step

Document = dict[str, Any]


class StepDocument(BaseModel):
    """What one stage of the packet path did."""

    stage: str = Field(description="input, parse, admit, icmp, service, select or forward")
    result: str = Field(description='"continue", or the verdict that ended the way there')
    detail: str = Field(description="in words")


class FlowEntryDocument(BaseModel):
    """The flow table's entry, where that decided."""

    model_config = ConfigDict(serialize_by_alias=True)

    kind: Literal["flow"]
    age_seconds: int = Field(description="since the flow's last packet")
    flow_class: Literal["probation", "established"] = Field(
        alias="class", description="probation: only one packet has come"
    )


class BlocklistEntryDocument(BlocklistEntry):
    """The blocklist's entry, as /blocklist/{prefix} has it."""

    kind: Literal["blocklist"]
    age_seconds: int = Field(description="since it was created")
    ttl_left_seconds: int | None = Field(description="null if it does not expire")


class AllowlistEntryDocument(AllowlistEntry):
    """The allowlist's entry, as /allowlist/{prefix} has it."""

    kind: Literal["allowlist"]
    age_seconds: int = Field(description="since it was created")
    ttl_left_seconds: int | None = Field(description="null if it does not expire")


class RuleDocument(Rule):
    """The rule that decided, as /rules/{name} has it, and what it has matched."""

    kind: Literal["rule"]
    matched: RuleCounts


class PacketDocument(BaseModel):
    """What becomes of one packet."""

    verdict: str = Field(description="one of /verdicts", examples=["TX_IPIP"])
    action: Literal["pass", "tx", "redirect", "drop"]
    reason: str = Field(description="the verdict's sentence")
    service: str | None = Field(description="its name, if it is for one")
    backend: str | None = Field(description="its address, if one was chosen")
    via: Literal["flow", "ring", "quic-cid"] | None = Field(description="what chose the backend")
    entry: FlowEntryDocument | BlocklistEntryDocument | AllowlistEntryDocument | RuleDocument | None = Field(
        description="the entry or rule that decided: the one that drops, else the flow's, else the one that let it in"
    )
    frame_out: str | None = Field(description="the frame that leaves, in hex; null if none")
    steps: list[StepDocument]


class Explanation(BaseModel):
    """What becomes of packets, in order. Nothing was changed or counted."""

    packets: list[PacketDocument]
    total: int = Field(description="how many the capture holds in all")
    next: int | None = Field(description="`after` of the next page; null on the last")


def explanation(
    packets: Sequence[Explained], notes: Sequence[str | None], total: int, after: int
) -> Document:
    """The document of a page that begins behind `after` packets; notes: what was done to each frame before it ran."""
    entries: dict[int, Document] = {}
    end = after + len(packets)
    return {
        "packets": [_packet(p, note, entries) for p, note in zip(packets, notes, strict=True)],
        "total": total,
        "next": end if end < total else None,
    }


def _packet(packet: Explained, note: str | None, entries: dict[int, Document]) -> Document:
    steps = packet.steps if note is None else (Step("input", "continue", note), *packet.steps)
    return {
        "verdict": packet.verdict.name,
        "action": packet.verdict.action,
        "reason": packet.verdict.sentence,
        "service": packet.service,
        "backend": packet.backend,
        "via": packet.via,
        "entry": _entry(packet.entry, entries),
        "frame_out": None if packet.frame_out is None else packet.frame_out.hex(),
        "steps": [{"stage": s.stage, "result": s.result, "detail": s.detail} for s in steps],
    }


def _entry(entry: FlowEntry | ListEntry | MetRule | None, seen: dict[int, Document]) -> Document | None:
    """seen: documents by identity of the list entry, which many packets of a capture share."""
    if isinstance(entry, FlowEntry):
        named = "established" if entry.established else "probation"
        return {"kind": "flow", "age_seconds": entry.age_seconds, "class": named}
    if entry is None:
        return None
    if isinstance(entry, MetRule):
        counts = RuleCounts.of(entry.tally).model_dump(mode="json")
        return {"kind": "rule", **entry.rule.model_dump(mode="json"), "matched": counts}
    if id(entry) not in seen:
        view = (AllowlistView if entry.allow else BlocklistView).of(entry.entry)
        left = entry.ttl_left_seconds
        seen[id(entry)] = {
            "kind": "allowlist" if entry.allow else "blocklist",
            **view.model_dump(mode="json"),
            "hits": EntryHits.of(entry.hits).model_dump(mode="json"),
            "age_seconds": int(entry.age_seconds),
            "ttl_left_seconds": None if left is None else int(left),
        }
    return seen[id(entry)]
