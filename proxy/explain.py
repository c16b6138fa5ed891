"""Why a call goes where it goes: of one that might be made, by the code that would route it; of one that was, from
what was noted of it. Nothing is sent, counted or changed, and no content is told.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.admission.parsing import parse
from proxy.cache.control import control_of
from proxy.cache.key import Key
from proxy.call import Call, Caller, Json, Operation
from proxy.errors import InvalidRequest, NotFound, ProxyError
from proxy.openai_format.encoding import encode
from proxy.openai_format.estimate import Estimate
from proxy.pipeline import Snapshot
from proxy.providers.seam import Route, Target
from proxy.resilience.circuits import STATES
from proxy.resilience.plan import Plan
from proxy.routing import DIRECT, Choice
from proxy.telemetry import CallRecord, Told

OPERATIONS: tuple[Operation, ...] = ("chat", "completions", "embeddings")
_KEYS = frozenset({"model", "stream", "headers", "caller", "operation", "body"})
_BODIES = {"chat": "messages", "completions": "prompt", "embeddings": "input"}


def explain(snapshot: Snapshot, asked: Mapping[str, Any]) -> Json:
    """What would become of a call.

    Args:
        asked: `model`, `stream`, `headers`, `caller` (a name), `operation` (chat) and `body`, the last in place of a
            short message; or a whole body of a call and nothing else.

    Raises:
        CallerError: what is asked is no call.
    """
    call = _call(snapshot, asked)
    tokens = Estimate(call)
    told: Json = {
        "generation": snapshot.generation,
        "model": call.model,
        "stream": call.stream,
        "caller": call.caller.name,
        "tokens": {"prompt": tokens.prompt, "answer": tokens.answer},
        "passed_over": [],
        "route": None,
        "targets": [],
    }
    try:
        snapshot.auth.check_model(call.caller, call.model)
        choice = snapshot.router.choose(call, tokens, snapshot.means, dry=True)
    except ProxyError as error:
        told["refused"] = _refused(error)
        if isinstance(error, NotFound):
            told["passed_over"] = _passed(snapshot, call, tokens)
        return told
    route, plan = choice.route, Plan(choice.route, snapshot.means.standings, tokens, snapshot.means.clock, dry=True)
    if route.name != DIRECT:
        told["passed_over"] = _passed(snapshot, call, tokens)
    rule = snapshot.router.rule(route.name)
    told["route"] = route.name
    told["strategy"] = rule.rule.strategy if rule is not None else "ordered"
    first = plan.next(0, float("inf"))
    told["first"] = _named(route.targets[first.place]) if first is not None else None
    if first is None:
        told["refused"] = _refused(plan.give_up(float("inf")))
    told["targets"] = [_target(snapshot, choice, plan, place, call, tokens) for place in range(len(route.targets))]
    told["skipped"] = [{**_named(target), "because": f"{because} of the route"} for target, because in choice.skipped]
    if route.copies is not None:
        told["mirror"] = {**_named(route.copies.target), "share": route.copies.share}
    told["cache"] = _cache(snapshot, call, choice)
    return told


def _refused(error: ProxyError) -> Json:
    return {"status": error.status, "code": error.code, "message": error.message}


def _is_fallback(route: Route, target: Target) -> bool:
    return bool(route.primary) and all(target is not each for each in route.primary)


def _call(snapshot: Snapshot, asked: Mapping[str, Any]) -> Call:
    if any(name in asked for name in _BODIES.values()):
        operation: Operation = next(each for each in OPERATIONS if _BODIES[each] in asked)
        asked = {"body": asked, "operation": operation}
    unknown = sorted(set(asked) - _KEYS)
    if unknown:
        raise InvalidRequest(
            f"unknown key {unknown[0][:64]!r}; known: {', '.join(sorted(_KEYS))}", param=unknown[0][:64]
        )
    operation = asked.get("operation", "chat")
    if operation not in OPERATIONS:
        raise InvalidRequest(f"'operation' is one of {', '.join(OPERATIONS)}", param="operation")
    headers, body = ({} if asked.get(name) is None else asked[name] for name in ("headers", "body"))
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise InvalidRequest("'headers' is an object of texts", param="headers")
    if not isinstance(body, dict):
        raise InvalidRequest("'body' is a call's body, an object", param="body")
    example = [{"role": "user", "content": "Hello"}] if operation == "chat" else "Hello"
    fields = {_BODIES[operation]: example, **body}
    for name in ("model", "stream"):
        if name in asked:
            fields[name] = asked[name]
    return parse(
        encode(fields),
        caller=_caller(snapshot, asked.get("caller")),
        headers={name.lower(): value for name, value in headers.items()},
        call_id="explained",
        received_at=time.time(),
        operation=operation,
    )


def _caller(snapshot: Snapshot, name: object) -> Caller:
    if name is None:
        return Caller()
    known = next((caller for caller in snapshot.config.server.callers if caller.name == name), None)
    if known is None:
        names = ", ".join(caller.name for caller in snapshot.config.server.callers) or "none"
        raise InvalidRequest(f"there is no such caller; known: {names}", param="caller")
    return Caller(known.name, known.models)


def _passed(snapshot: Snapshot, call: Call, tokens: Estimate) -> list[Json]:
    return [{"route": name, "because": f"match.{key}"} for name, key in snapshot.router.passed(call, tokens)]


def _named(target: Target) -> Json:
    return {"upstream": target.name, "model": target.model}


def _target(snapshot: Snapshot, choice: Choice, plan: Plan, place: int, call: Call, tokens: Estimate) -> Json:
    """One target: how it stands, and what of the call it would carry."""
    target, means = choice.route.targets[place], snapshot.means
    standing, obstacle = means.standings[target.name], plan.obstacle(place)
    prices = snapshot.router.prices
    price = prices.price(target.name, target.model)
    told: Json = {
        **_named(target),
        "fallback": _is_fallback(choice.route, target),
        "labels": dict(target.upstream.labels),
        "circuit": STATES[standing.circuit(target).state],
        "can_be_tried": obstacle is None,
        "because": obstacle.message if obstacle is not None else None,
        "in_flight": means.in_flight(target),
        "median_seconds": standing.latency[call.stream].quantile(0.5),
        "limits": standing.limiter.describe() if standing.limiter is not None else None,
        "price": price.model_dump(exclude_none=True) if price is not None else None,
        "estimated_cost_usd": prices.estimate(target.name, target.model, tokens.prompt, tokens.answer),
        "max_context_tokens": target.max_context_tokens,
    }
    rule = snapshot.router.rule(choice.route.name)
    if rule is not None and rule.rule.strategy in ("weighted", "least_busy"):
        told["weight"] = rule.weight_of(target)
    if choice.scores:
        told["score"] = choice.scores[place]
    return {**told, **_carried(standing.endpoint.provider, target, call)}


def _carried(provider: Any, target: Target, call: Call) -> Json:
    changed = target.overrides.apply(call) if target.overrides is not None else call
    try:
        request = provider.build_request(changed, target)
    except (ProxyError, RecursionError) as error:
        message = error.message if isinstance(error, ProxyError) else "it is nested too deeply"
        return {"dropped": [], "refuses": message}
    return {"dropped": [*request.dropped, *changed.amended], "refuses": None}


def _cache(snapshot: Snapshot, call: Call, choice: Choice) -> Json:
    """Whether the answer may be kept, under which key, and whether this process's memory holds it."""
    answers = snapshot.answers
    if answers is None or choice.route.cache is None:
        return {"cacheable": False, "because": "the route has no cache"}
    control, record = control_of(call.headers.get("cache-control", "")), CallRecord("explained", 0.0)
    question = answers.question(call, choice.route, control, record)
    if question is None:
        return {"cacheable": False, "because": "it has neither temperature 0 nor a seed, or asks not to be kept"}
    key, kept, now = question.key, answers.shelf.memory.peek(question.key.digest), answers.clock()
    state = "none" if kept is None else "good" if kept.good_until > now else "stale"
    return {"cacheable": True, "key": key.digest.hex(), "tenant": key.tenant, "memory": state, "redis": None}


async def look_into_redis(snapshot: Snapshot, told: Json) -> None:
    """Complete what `explain` has told: whether Redis has an entry (true, false, or null: nobody can tell)."""
    cache, answers = told.get("cache"), snapshot.answers
    if cache and cache["cacheable"] and answers is not None and answers.shelf.redis is not None:
        key = Key(bytes.fromhex(cache["key"]), told["route"], cache["tenant"])
        cache["redis"] = await answers.shelf.redis.holds(key)


def describe_call(call: Told) -> Json:
    """What was noted of a call that was served: its access line, and why it went there."""
    choice = call.choice if isinstance(call.choice, Choice) else None
    told: Json = {
        **call.fields(),
        "generation": call.generation,
        "cache_key": call.cache_key.hex() or None,
        "dropped": list(call.dropped),
        "failed_attempts": [failed._asdict() for failed in call.tries],
    }
    if choice is not None:
        told["passed_over"] = [{"route": name, "because": f"match.{key}"} for name, key in choice.passed]
        told["targets"] = list(_targets(choice))
        told["skipped"] = [{**_named(target), "because": because} for target, because in choice.skipped]
    return told


def _targets(choice: Choice) -> Iterator[Json]:
    for place, target in enumerate(choice.route.targets):
        told = {**_named(target), "fallback": _is_fallback(choice.route, target)}
        if choice.scores:
            told["score"] = choice.scores[place]
        yield told
