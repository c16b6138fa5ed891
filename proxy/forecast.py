"""What another configuration would have done with calls that were served: from access lines, which know no content.

Of a call it is known who made it, for which model, in which mode, and where it went. What a rule asks beside that can
be told where the old configuration has the same rule; elsewhere, the call is counted as one of which nobody knows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from proxy.call import Call, Caller, Json
from proxy.config import Config
from proxy.openai_format.estimate import Estimate
from proxy.routing import DIRECT, Router
from proxy.routing.rule import Rule

Place = tuple[str, str]  # upstream and model
_TOLD = frozenset({"stream", "caller"})  # keys of a match that an access line answers


class Served(NamedTuple):
    """A call that was served."""

    model: str
    stream: bool
    caller: str | None
    route: str
    upstream: str
    there: str  # the model's name at the upstream


class Forecast(NamedTuple):
    """How many calls would have gone where.

    Args:
        same: to the same place, as far as can be told.
        elsewhere: the number to be expected, by route and place before and after.
        refused: by route, those that no rule would take.
        unknown: by route, those of which it cannot be told.
    """

    calls: int
    same: float
    elsewhere: dict[tuple[str, str], float]
    refused: Counter[str]
    unknown: Counter[str]


def read_served(lines: Iterable[Json]) -> Iterator[Served]:
    """The calls among access lines, or among what /admin/calls tells; those that were not routed are left out."""
    for line in lines:
        texts = [line.get(name) for name in ("model_asked", "route", "upstream", "model")]
        if all(isinstance(text, str) and text for text in texts):
            model, route, upstream, there = map(str, texts)
            caller = line.get("caller")
            yield Served(
                model, line.get("stream") is True, caller if isinstance(caller, str) else None, route, upstream, there
            )


def forecast(old: Config, new: Config, calls: Iterable[Served]) -> Forecast:
    """What would have become of the calls that `old` has served."""
    before, after = Router(old, _zero), Router(new, _zero)
    told = Forecast(0, 0.0, defaultdict(float), Counter(), Counter())
    count, same = 0, 0.0
    for served in calls:
        count += 1
        stays = _stays(before, after, served, told)
        same += stays
    return told._replace(calls=count, same=same)


def _zero() -> float:
    return 0.0


def _stays(before: Router, after: Router, served: Served, told: Forecast) -> float:
    """The odds that a call goes where it went; the rest is noted."""
    call, place = _call(served), (served.upstream, served.there)
    if after.direct and after.address(served.model) is not None:
        name, shares = DIRECT, {place: 1.0} if served.route == DIRECT else {_direct(served.model): 1.0}
    else:
        rule, is_known = _rule(before, after, served, call)
        if rule is None:
            (told.refused if is_known else told.unknown)[served.route] += 1
            return 0.0
        name, shares = rule.name, _shares(rule, served.model)
    known = before.rule(served.route)
    were = _shares(known, served.model) if known is not None else {place: 1.0}
    if were.get(place):
        stays = min(1.0, shares.get(place, 0.0) / were[place])
        others = {each: share for each, share in shares.items() if each != place and share}
    else:  # another was tried before it
        stays = max(shares.get(place, 0.0), sum(min(share, shares.get(each, 0.0)) for each, share in were.items()))
        others = {each: share - were.get(each, 0.0) for each, share in shares.items() if share > were.get(each, 0.0)}
    for other, share in others.items() if stays < 1 else ():
        way = f"{served.route}: {'/'.join(place)}", f"{name}: {'/'.join(other)}"
        told.elsewhere[way] += (1 - stays) * share / sum(others.values())
    return stays if others else 1.0


def _direct(model: str) -> Place:
    upstream, _, rest = model.partition("/")
    return upstream, rest


def _call(served: Served) -> Call:
    return Call("served", 0.0, b"{}", {}, served.model, served.stream, wants_usage=False, caller=Caller(served.caller))


def _rule(before: Router, after: Router, served: Served, call: Call) -> tuple[Rule | None, bool]:
    """The rule that would take a call, if one would, and whether that can be told."""
    names = [rule.name for rule in before.rules]
    tokens = Estimate(call)
    for rule in after.rules:
        matcher = rule.matcher
        if matcher.model_key(served.model) is not None or not matcher.holds(_TOLD, call, tokens):
            continue
        if matcher.keys <= _TOLD:
            return rule, True
        known = before.rule(rule.name)
        if known is None or known.rule.match != rule.rule.match or served.route not in names:
            return None, False
        if known.name == served.route:
            return rule, True
        if names.index(known.name) > names.index(served.route):  # it was never asked
            return None, False
    return None, True


def _shares(rule: Rule, model: str) -> dict[Place, float]:
    """How often each place is tried first; where the load decides, as if all were alike."""
    shares: dict[Place, float] = {}
    canary, rest = rule.rule.canary, 1.0
    if canary is not None and rule.allows(canary.upstream):
        shares[canary.upstream, canary.model or model] = canary.share
        rest -= canary.share
    tier = rule.tiers[0]
    weights = [float(target.weight) for target in tier] if rule.rule.strategy == "weighted" else [1.0] * len(tier)
    if rule.rule.strategy == "ordered" or not sum(weights):
        weights = [1.0, *[0.0] * (len(tier) - 1)]
    for target, weight in zip(tier, weights, strict=True):
        place = target.upstream, target.model or model
        shares[place] = shares.get(place, 0.0) + rest * weight / sum(weights)
    return shares
