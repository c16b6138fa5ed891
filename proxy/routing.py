"""Call -> Route: which rule serves a call, and its targets in the order to try. Pure: chance is an argument."""

from collections.abc import Callable, Iterable, Iterator

from proxy.call import Call
from proxy.config import Config, Globs, Match, RouteRule, TargetRule, is_glob
from proxy.errors import NotFound
from proxy.providers.seam import Route, Target

REMEMBERED = 1024  # model names
DIRECT = "direct"  # the route of calls that name their upstream

Chance = Callable[[], float]  # uniform in [0, 1)


class Router:
    """The rules of one configuration, made ready."""

    def __init__(self, config: Config) -> None:
        server = config.server
        self._config = config
        self._direct = not server.callers if server.direct_models is None else server.direct_models
        self._rules = tuple(_Rule(rule, config) for rule in config.routes)
        self._named: dict[str, tuple[_Rule, ...]] = {}  # the rules that a model's name fits, as asked for lately

    @property
    def direct(self) -> bool:
        """Whether `upstream/model` addresses an upstream."""
        return self._direct

    def choose(self, call: Call, chance: Chance) -> Route:
        """The route of a call.

        Raises:
            NotFound: no rule takes it.
        """
        direct = self._address(call.model) if self._direct else None
        if direct is not None:
            return direct
        for rule in self._rules_for(call.model):
            if rule.takes(call):
                return rule.route(call.model, chance)
        raise NotFound(
            "The model does not exist here: no route takes it. GET /v1/models lists those that do.",
            param="model",
            code="model_not_found",
        )

    def _rules_for(self, model: str) -> tuple["_Rule", ...]:
        rules = self._named.get(model)
        if rules is None:
            if len(self._named) >= REMEMBERED:  # callers invent names
                self._named.clear()
            rules = self._named[model] = tuple(rule for rule in self._rules if rule.names(model))
        return rules

    def labels(self) -> Iterator[tuple[str, str, str]]:
        """Route, upstream and model of every target, as metrics name them."""
        for rule in self._rules:
            for upstream in self._config.upstreams:
                for target in rule.targets_of(upstream):
                    for model in [target.model] if target.model else sorted(rule.spelled) or ["other"]:
                        yield rule.name, upstream, model

    def takes(self, model: str) -> bool:
        """Whether some call for this model would be routed."""
        return (self._direct and self._address(model) is not None) or any(rule.names(model) for rule in self._rules)

    def reaches(self, model: str, upstream: str) -> bool:
        """Whether the first rule for this model, asked as it is, may lead to this upstream under the same name."""
        rule = next((rule for rule in self._rules if rule.names(model)), None)
        return rule is not None and any(target.model in (None, model) for target in rule.targets_of(upstream))

    def _address(self, model: str) -> Route | None:
        name, slash, rest = model.partition("/")
        upstream = self._config.upstreams.get(name)
        if not slash or not rest or upstream is None:
            return None
        known = any(rest == target.model for rule in self._rules for target in rule.targets_of(name))
        return Route(DIRECT, (Target(name, upstream, rest, rest if known else "other"),))

    def models(self) -> Iterator[str]:
        """The concrete names that the rules spell out, each once, in their order."""
        names: dict[str, None] = {}
        for rule in self._config.routes:
            names |= dict.fromkeys(name for name in (*rule.match.model, *rule.list) if not is_glob(name))
        return iter(names)


class _Rule:
    def __init__(self, rule: RouteRule, config: Config) -> None:
        self.name = rule.name or ""
        self._rule = rule
        self._config = config
        self._fits = _Fit(rule.match)
        self._routes: dict[str, Route] = {}  # by model, where the order is always the same
        self.spelled = {name for name in (*rule.match.model, *rule.list) if not is_glob(name)}

    def names(self, model: str) -> bool:
        return self._fits.model(model)

    def takes(self, call: Call) -> bool:
        """Whether a call whose model fits is for this rule."""
        return self._fits.call(call)

    def route(self, model: str, chance: Chance) -> Route:
        if self._rule.strategy == "weighted":
            return self._route(model, chance)
        route = self._routes.get(model)
        if route is None:
            if len(self._routes) >= REMEMBERED:
                self._routes.clear()
            route = self._routes[model] = self._route(model, chance)
        return route

    def _route(self, model: str, chance: Chance) -> Route:
        rule = self._rule
        targets = tuple(self.order(model, chance))
        first = len(rule.targets)
        return Route(
            self.name, targets, rule.retry, first, rule.fallback_on, rule.hedge, rule.total_seconds, rule.cache
        )

    def targets_of(self, upstream: str) -> Iterator[TargetRule]:
        return (target for target in (*self._rule.targets, *self._rule.fallback) if target.upstream == upstream)

    def order(self, model: str, chance: Chance) -> Iterator[Target]:
        targets: Iterable[TargetRule] = self._rule.targets
        if self._rule.strategy == "weighted":
            targets = weighted(self._rule.targets, chance)
        for target in (*targets, *self._rule.fallback):
            label = target.model or (model if model in self.spelled else "other")
            yield Target(target.upstream, self._config.upstreams[target.upstream], target.model or model, label)


class _Fit:
    def __init__(self, match: Match) -> None:
        self._model = Globs(match.model)
        self._headers = [(name.lower(), Globs([glob])) for name, glob in match.headers.items()]
        self._callers = frozenset(match.caller)
        self._stream = match.stream

    def model(self, model: str) -> bool:
        return self._model.fit(model)

    def call(self, call: Call) -> bool:
        if self._stream is not None and self._stream is not call.stream:
            return False
        if self._callers and call.caller.name not in self._callers:
            return False
        for name, globs in self._headers:
            value = call.headers.get(name)
            if value is None or not globs.fit(value):
                return False
        return True


def weighted(targets: Iterable[TargetRule], chance: Chance) -> list[TargetRule]:
    """Draw the targets one after another, each with the odds of its weight; those of weight 0 come last."""
    left, drawn = list(targets), list[TargetRule]()
    while left:
        total = sum(target.weight for target in left)
        if total == 0:
            return drawn + left
        point = chance() * total
        for index, target in enumerate(left):
            point -= target.weight
            if point < 0:
                drawn.append(left.pop(index))
                break
    return drawn
