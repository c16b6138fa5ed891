"""One rule of a configuration: which calls it takes, and in which order their targets are tried."""

from collections.abc import Iterator, Mapping, Sequence

from proxy.call import Call
from proxy.config import Config, RouteRule, TargetRule, is_glob
from proxy.openai_format.estimate import Estimate
from proxy.openai_format.features import text_of
from proxy.providers.seam import Copies, Route, Target
from proxy.routing.choice import Choice, Sight, Skipped
from proxy.routing.match import Matcher
from proxy.routing.places import Labels, Leaf, Places, is_same, or_dear, overrides_of, that_fit, turns_of
from proxy.routing.strategies import (
    Chance,
    Turns,
    better_of_two,
    drawn,
    latency_scores,
    least_first,
    share_of,
    sticky_scores,
)
from proxy.telemetry.prices import PriceList

REMEMBERED = 1024  # model names


class Rule:
    """A rule, made ready.

    Args:
        chance: where weighted rules begin their turns.
    """

    def __init__(self, rule: RouteRule, config: Config, prices: PriceList, chance: Chance) -> None:
        self.name = rule.name or ""
        self.rule = rule
        self.matcher = Matcher(rule.match, self.name)
        self.spelled = {name for name in (*rule.match.model, *rule.list) if not is_glob(name)}
        self._upstreams = config.upstreams
        self._prices = prices
        self._required = Labels(rule.require)
        near = {"region": (config.server.region,)} if rule.prefer_own_region and config.server.region else {}
        self._preferred = [Labels({name: globs}) for name, globs in (*rule.prefer.items(), *near.items())]
        self.tiers = self._tiered([target for target in rule.targets if self.allows(target.upstream)])
        self._turns = [turns_of(tier, chance) if rule.strategy == "weighted" else None for tier in self.tiers]
        self._overrides = {id(leaf): overrides_of(leaf) for leaf in self._leaves()}
        self._canary_turns = Turns([rule.canary.share, 1 - rule.canary.share], chance) if rule.canary else None
        self._next: dict[str, Rule] = {}  # the rules that fallbacks lead to
        self._plain: bool | None = None
        self._choices: dict[str, Choice] = {}  # by model, where the order is always the same
        self._ready: dict[str, Places] = {}  # by model

    def link(self, rules: Mapping[str, "Rule"]) -> None:
        """Find the rules that fallbacks lead to."""
        self._next = {each.route: rules[each.route] for each in self.rule.fallback if each.route is not None}

    def allows(self, upstream: str) -> bool:
        """Whether an upstream has the labels that the rule requires."""
        return self._required.fit(self._upstreams[upstream])

    def _tiered(self, targets: list[TargetRule]) -> list[list[TargetRule]]:
        """The targets in groups, those first whose upstreams have most of what is preferred."""
        tiers: dict[int, list[TargetRule]] = {}
        for target in targets:
            upstream = self._upstreams[target.upstream]
            tiers.setdefault(sum(labels.fit(upstream) for labels in self._preferred), []).append(target)
        return [tiers[liked] for liked in sorted(tiers, reverse=True)]

    def _leaves(self) -> Iterator[Leaf]:
        """Whatever of the rule names an upstream."""
        rule = self.rule
        fallbacks = (each for each in rule.fallback if each.upstream is not None)
        yield from (*rule.targets, *([rule.canary] if rule.canary else ()), *fallbacks)
        if rule.mirror is not None:
            yield rule.mirror

    def places(self, names: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
        """Upstream and model's label of every place that a call may go or be copied to, as metrics name them.

        Args:
            names: models that rules spell out which fall back to this one.
        """
        others = ["other"] if not self.spelled or names - self.spelled else []
        for leaf in self._leaves():
            for label in [leaf.model] if leaf.model else [*sorted(self.spelled), *others]:
                yield str(leaf.upstream), label
        for following in self._next.values():
            yield from following.places(names | self.spelled)

    def weight_of(self, target: Target) -> int | None:
        """The weight of a target; None for one that has none."""
        for each in self.rule.targets:
            if each.upstream == target.name and each.model in (None, target.model):
                return each.weight
        return None

    def leads(self, model: str) -> Iterator[tuple[str, str]]:
        """Upstream and model of every place that calls for a model may go."""
        places = self._places(model)
        for each in (*places.primary, *places.fallback):
            if isinstance(each, Target):
                yield each.name, each.model
            else:
                yield from (place for place in self._next[each].leads(model) if self.allows(place[0]))

    def choose(self, call: Call, tokens: Estimate, sight: Sight, *, dry: bool = False) -> Choice:
        """Where a call goes that the rule takes.

        Args:
            dry: nothing is to change by it: it is asked what would be done.
        """
        if not self.is_plain:
            return self._choose(call, tokens, sight, dry=dry)
        choice = self._choices.get(call.model)
        if choice is None:
            if len(self._choices) >= REMEMBERED:
                self._choices.clear()
            choice = self._choices[call.model] = self._choose(call, tokens, sight, dry=True)
        return choice

    @property
    def is_plain(self) -> bool:
        """Whether every call for a model goes the same way."""
        if self._plain is None:
            sized = any(leaf.max_context_tokens for leaf in self._leaves())
            moving = self.rule.strategy != "ordered" or self.rule.canary is not None or sized
            self._plain = not moving and all(following.is_plain for following in self._next.values())
        return self._plain

    def _choose(self, call: Call, tokens: Estimate, sight: Sight, *, dry: bool) -> Choice:
        places, rule = self._places(call.model), self.rule
        key = self._sticky_key(call) if rule.sticky is not None else None
        order: list[Target] = []
        scores: list[float | None] = []
        if places.canary is not None and self._is_canary(key, dry=dry):
            order.append(places.canary)
            scores.append(None)
        targets, reckoned = self._ordered(places, key, call, tokens, sight, dry=dry, in_turn=not order)
        order += targets
        scores += reckoned
        first = len(order)
        for target in self._behind(places, call, tokens, sight):
            if not any(is_same(target, each) for each in order):
                order.append(target)
                scores.append(None)
        skipped = list(places.excluded)
        if any(target.max_context_tokens for target in order):
            order, scores, first = that_fit(order, scores, first, tokens(), skipped)
        copies = places.copies
        if copies is not None and (most := copies.target.max_context_tokens) is not None and tokens() > most:
            copies = None
        known = tuple(scores) if any(score is not None for score in scores) else ()
        return Choice(self._route(tuple(order), first, places.primary, copies), (), tuple(skipped), known)

    def _ordered(
        self, places: Places, key: str | None, call: Call, tokens: Estimate, sight: Sight, *, dry: bool, in_turn: bool
    ) -> tuple[list[Target], list[float | None]]:
        """The rule's own targets in the order to try, and what was reckoned for each."""
        order: list[Target] = []
        scores: list[float | None] = []
        for number, tier in enumerate(places.tiers):
            ordered, reckoned = self._order(number, tier, key, call, tokens, sight, dry=dry, in_turn=in_turn)
            order += [tier[place] for place in ordered]
            scores += [reckoned[place] for place in ordered] if reckoned else [None] * len(tier)
        return order, scores

    def _behind(self, places: Places, call: Call, tokens: Estimate, sight: Sight) -> Iterator[Target]:
        """The fallbacks; those of another rule as chance orders them, since it is not its turn."""
        for each in places.fallback:
            if isinstance(each, Target):
                yield each
            else:
                yield from self._next[each].chained(self, call, tokens, sight)

    def chained(self, before: "Rule", call: Call, tokens: Estimate, sight: Sight) -> Iterator[Target]:
        """The targets of this rule for a call of another one's that falls back to it; not the canary."""
        places = self._places(call.model)
        key = self._sticky_key(call) if self.rule.sticky is not None else None
        targets, _ = self._ordered(places, key, call, tokens, sight, dry=True, in_turn=False)
        for target in (*targets, *self._behind(places, call, tokens, sight)):
            if before.allows(target.name) and self.allows(target.name):
                yield target

    def _route(
        self, targets: tuple[Target, ...], first: int, primary: tuple[Target, ...], copies: Copies | None
    ) -> Route:
        rule = self.rule
        return Route(
            self.name, targets, rule.retry, first, rule.fallback_on, rule.hedge, rule.total_seconds, rule.cache,
            primary, copies,
        )  # fmt: skip

    def _places(self, model: str) -> Places:
        places = self._ready.get(model)
        if places is None:
            if len(self._ready) >= REMEMBERED:  # callers invent names
                self._ready.clear()
            places = self._ready[model] = self._place(model)
        return places

    def _place(self, model: str) -> Places:
        rule = self.rule
        tiers = tuple(tuple(self._target(target, model) for target in tier) for tier in self.tiers)
        canary = self._target(rule.canary, model) if rule.canary and self.allows(rule.canary.upstream) else None
        fallback = tuple(
            each.route if each.route is not None else self._target(each, model)
            for each in rule.fallback
            if each.upstream is None or self.allows(each.upstream)
        )
        copies = None
        if rule.mirror is not None and self.allows(rule.mirror.upstream):
            copies = Copies(self._target(rule.mirror, model), rule.mirror.share, rule.mirror.concurrent)
        excluded = tuple(
            Skipped(self._target(leaf, model), "require")
            for leaf in self._leaves()
            if leaf is not rule.mirror and not self.allows(str(leaf.upstream))
        )
        primary = tuple(target for tier in tiers for target in tier) + ((canary,) if canary else ())
        return Places(tiers, canary, fallback, copies, primary, excluded)

    def _target(self, leaf: Leaf, model: str) -> Target:
        upstream = str(leaf.upstream)
        label = leaf.model or (model if model in self.spelled else "other")
        return Target(
            upstream, self._upstreams[upstream], leaf.model or model, label, self._overrides[id(leaf)], leaf.headers,
            leaf.max_context_tokens,
        )  # fmt: skip

    def _sticky_key(self, call: Call) -> str | None:
        """What the call is kept together with others by; None: it has nothing of the kind."""
        by = self.rule.sticky or ""
        if by == "caller":
            return call.caller.name
        if by.startswith("header:"):
            return call.headers.get(by.removeprefix("header:")) or None
        return text_of(call, by)

    def _is_canary(self, key: str | None, *, dry: bool) -> bool:
        if key is not None and self.rule.canary is not None:
            return share_of(key, f"canary of {self.name}") < self.rule.canary.share
        turns = self._canary_turns
        return turns is not None and (turns.peek() if dry else turns.take()) == 0

    def _order(
        self, number: int, tier: tuple[Target, ...], key: str | None, call: Call, tokens: Estimate, sight: Sight,
        *, dry: bool, in_turn: bool,
    ) -> tuple[Sequence[int], Sequence[float | None]]:  # fmt: skip
        """The places of a tier in the order to try, and what was reckoned for each."""
        strategy, in_order = self.rule.strategy, range(len(tier))
        if strategy == "weighted":
            weights, turns = [target.weight for target in self.tiers[number]], self._turns[number]
            if turns is None:
                return in_order, ()
            if key is not None:
                names = [f"{target.upstream}/{target.model or ''}" for target in self.tiers[number]]
                scores = sticky_scores(key, names, weights)
                return sorted(in_order, key=scores.__getitem__), scores
            first = None if not in_turn else turns.peek() if dry else turns.take()
            return drawn(weights, first, sight.chance), ()
        if strategy == "least_latency":
            seconds = [sight.seconds(target, stream=call.stream) for target in tier]
            scores = latency_scores(seconds, [sight.in_flight(target) for target in tier])
            return better_of_two(scores, sight.chance), scores
        if strategy == "least_busy":
            weights = [target.weight for target in self.tiers[number]]
            scores = [
                sight.in_flight(target) / weight if weight else float("inf")
                for target, weight in zip(tier, weights, strict=True)
            ]
            return least_first(scores, sight.chance), scores
        if strategy == "least_cost":
            costs = [self._prices.estimate(each.name, each.model, tokens.prompt, tokens.answer) for each in tier]
            return sorted(in_order, key=lambda place: or_dear(costs[place])), costs
        return in_order, ()
