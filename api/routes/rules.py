"""/rules: what is dropped, counted, limited or allowed by packets' own fields."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import TypeAdapter

from api.bodies import Media
from api.bulk import Added
from api.deps import JsonDep, ReadDep, ReconcilerDep, WriteDep
from api.etags import etag_of
from api.exchange import Write
from api.inputs import object_of, validated
from api.observed_schemas import RuleCounts
from api.openapi import BODY, DESIRED, OBSERVED, WRITE, documented, takes
from api.pages import PAGE_MOST, AfterDep, LimitDep, page
from api.schemas import RuleAnswer, Rules, RulesAnswer, RuleSet
from lb.errors import ConflictError, InvalidError
from lb.model import Config, Rule
from lb.model.merge_patch import merge_patch
from lb.model.rule import RuleAction
from lb.model.rule_match import in_order, warnings

router = APIRouter(prefix="/v1/rules")

RuleDep = Annotated[str, Path(description="name of the rule", examples=["no-dns-answers"])]

_RULE = TypeAdapter(Rule)
_EXAMPLE = {
    "name": "no-dns-answers",
    "action": "drop",
    "protocol": "udp",
    "source_ports": "53",
    "length": "512-65535",
}
_LIMIT_EXAMPLE = {
    "action": "limit",
    "service": "web",
    "tcp_flags": "syn,!ack",
    "limit": {"rate": 50, "burst": 200, "per": "source", "ipv4_length": 24},
    "ban_seconds": 600,
    "count_only": True,
}


def document_of(rule: Rule) -> dict[str, Any]:
    """The rule as JSON."""
    return rule.model_dump(mode="json")


def _etag(config: Config, name: str) -> str | None:
    """The tag of a rule, None if there is none of that name."""
    rule = config.rules.get(name)
    return None if rule is None else etag_of(document_of(rule))


def _etag_of_all(config: Config) -> str:
    return etag_of([document_of(rule) for rule in in_order(config.rules.values())])


def _kept_name(rule: Rule, name: str) -> Rule:
    """Itself, if it has the name of its path; InvalidError otherwise."""
    if rule.name != name:
        raise InvalidError.one("/name", f'the path names "{name}": leave the name out, or write the same')
    return rule


def _answer(write: Write, config: Config, name: str) -> RuleAnswer:
    """The rule as it now is, with what may not be meant."""
    document = document_of(config.rule(name))
    said = warnings(config.rules, config.services, [name])
    return write.answer(etag_of(document), RuleAnswer.model_validate({**document, "warnings": said}))


@router.get("", tags=[DESIRED], summary="All rules", response_model=Rules, responses=documented(422))
def list_rules(
    read: ReadDep,
    *,
    action: Annotated[RuleAction | None, Query(description="only those with this action")] = None,
    service: Annotated[
        str | None, Query(description="only those that name this service", examples=["web"])
    ] = None,
    count_only: Annotated[bool | None, Query(description="only count-only rules, or only others")] = None,
    after: AfterDep = None,
    limit: LimitDep = PAGE_MOST,
) -> Rules | Response:
    """Rules that match all filters, in the order of evaluation. The ETag is that of all rules."""
    found = [
        rule
        for rule in in_order(read.config.rules.values())
        if action in (None, rule.action)
        and service in (None, rule.service)
        and count_only in (None, rule.count_only)
    ]
    items, following = page(found, lambda rule: rule.name, after, limit)
    return read.answer(_etag_of_all(read.config), Rules(items=items, total=len(found), next=following))


@router.post(
    "",
    tags=[DESIRED],
    summary="Add a rule, or several",
    status_code=201,
    response_model=RuleAnswer | RulesAnswer,
    responses=documented(*BODY, *WRITE),
    openapi_extra=takes({Media.JSON: Rule | list[Rule] | RuleSet}, _EXAMPLE),
)
def add_rule(body: JsonDep, write: WriteDep) -> RuleAnswer | RulesAnswer:
    """One, an array or `{"items": […]}`: all or none, with what is wrong with each. 409 if a name is taken.

    If-Match means the collection's ETag.
    """
    wanted = Added.read(Rule, body.json())

    def add(config: Config, rule: Rule) -> Config:
        if rule.name in config.rules:
            raise ConflictError(
                f'there is a rule "{rule.name}" already: change it (PUT or PATCH), remove it, or take another name'
            )
        return config.with_rule(rule)

    def edit(config: Config) -> Config:
        write.check(_etag_of_all(config))
        return wanted.added(config, add)

    config = write.change(edit)
    if not wanted.is_single:
        items = list(wanted.values)
        said = warnings(config.rules, config.services, [rule.name for rule in items])
        answer = RulesAnswer(items=items, total=len(items), warnings=said)
        return write.answer(_etag_of_all(config), answer)
    (rule,) = wanted.values
    write.created(f"/v1/rules/{rule.name}")
    return _answer(write, config, rule.name)


@router.get("/{name}", tags=[DESIRED], summary="One rule", response_model=Rule, responses=documented(404))
def get_rule(name: RuleDep, read: ReadDep) -> Rule | Response:
    """The desired rule; /status has what it has matched."""
    rule = read.config.rule(name)
    return read.answer(etag_of(document_of(rule)), rule)


@router.put(
    "/{name}",
    tags=[DESIRED],
    summary="Create or replace a rule",
    responses=documented(*BODY, *WRITE) | {201: {"description": "created", "model": RuleAnswer}},
    openapi_extra=takes({Media.JSON: Rule}, _LIMIT_EXAMPLE),
)
def put_rule(name: RuleDep, body: JsonDep, write: WriteDep) -> RuleAnswer:
    """The whole rule: what is left out takes its default. Its name may be left out."""
    rule = _kept_name(validated(_RULE, {"name": name, **object_of(body.json())}), name)
    existed = False

    def edit(config: Config) -> Config:
        nonlocal existed
        existed = name in config.rules
        write.check(_etag(config, name))
        return config.with_rule(rule)

    config = write.change(edit)
    if not existed:
        write.created(f"/v1/rules/{name}")
    return _answer(write, config, name)


@router.patch(
    "/{name}",
    tags=[DESIRED],
    summary="Change some fields of a rule",
    responses=documented(404, *BODY, *WRITE),
    openapi_extra=takes({Media.JSON: dict[str, Any]}, {"priority": 10}),
)
def patch_rule(name: RuleDep, body: JsonDep, write: WriteDep) -> RuleAnswer:
    """A JSON merge patch (RFC 7396): null puts a field back to its default."""
    patch = object_of(body.json())

    def edit(config: Config) -> Config:
        present = document_of(config.rule(name))
        write.check(etag_of(present))
        return config.with_rule(_kept_name(validated(_RULE, merge_patch(present, patch)), name))

    return _answer(write, write.change(edit), name)


@router.post(
    "/{name}/promote",
    tags=[DESIRED],
    summary="Put a rule on trial in force",
    responses=documented(404, *WRITE),
)
def promote_rule(name: RuleDep, write: WriteDep) -> RuleAnswer:
    """Ends its count-only mode: what it only counted, it does from now on. Otherwise it stays as it is."""

    def edit(config: Config) -> Config:
        rule = config.rule(name)
        write.check(etag_of(document_of(rule)))
        return config.with_rule(rule.promoted())

    return _answer(write, write.change(edit), name)


@router.delete(
    "/{name}",
    tags=[DESIRED],
    summary="Remove a rule",
    status_code=204,
    response_class=Response,
    responses=documented(404, *WRITE),
)
def delete_rule(name: RuleDep, write: WriteDep) -> None:
    """Its counters are removed too."""

    def edit(config: Config) -> Config:
        write.check(etag_of(document_of(config.rule(name))))
        return config.without_rule(name)

    write.change(edit)


@router.get("/{name}/status", tags=[OBSERVED], summary="What a rule has matched", responses=documented(404))
def get_rule_status(name: RuleDep, reconciler: ReconcilerDep) -> RuleCounts:
    """Packets and bytes that it matched and dropped, and when the last came."""
    return RuleCounts.of(reconciler.rule_tally(name))
