"""The rules of one configuration, in their order."""

from collections.abc import Iterator

from proxy.call import Call
from proxy.config import Config, is_glob
from proxy.errors import NotFound
from proxy.openai_format.estimate import Estimate
from proxy.providers.seam import Route, Target
from proxy.routing.choice import Choice, Passed, Sight
from proxy.routing.rule import REMEMBERED, Rule
from proxy.routing.strategies import Chance
from proxy.telemetry.prices import PriceList

DIRECT = "direct"  # the route of calls that name their upstream


class Router:
    """The rules of one configuration, made ready.

    Args:
        chance: uniform in [0, 1); where weighted rules begin their turns.
    """

    def __init__(self, config: Config, chance: Chance) -> None:
        server = config.server
        self._config = config
        self._direct = not server.callers if server.direct_models is None else server.direct_models
        self.prices = PriceList(config.upstreams)
        self.rules = tuple(Rule(rule, config, self.prices, chance) for rule in config.routes)
        by_name = {rule.name: rule for rule in self.rules}
        for rule in self.rules:
            rule.link(by_name)
        self._labels = {place for rule in self.rules for place in rule.places()}
        self._named: dict[str, tuple[Rule, ...]] = {}  # the rules that a model's name fits, as asked for lately

    @property
    def direct(self) -> bool:
        """Whether `upstream/model` addresses an upstream."""
        return self._direct

    def choose(self, call: Call, tokens: Estimate, sight: Sight, *, dry: bool = False) -> Choice:
        """Where a call goes.

        Args:
            dry: nothing is to change by it: it is asked what would be done.

        Raises:
            NotFound: no rule takes it.
        """
        direct = self.address(call.model) if self._direct else None
        if direct is not None:
            return Choice(direct)
        passed: list[Passed] = []
        for rule in self._rules_for(call.model):
            misfit = rule.matcher.misfit(call, tokens)
            if misfit is None:
                choice = rule.choose(call, tokens, sight, dry=dry)
                return Choice(choice.route, tuple(passed), choice.skipped, choice.scores) if passed else choice
            passed.append(misfit)
        raise NotFound(
            "The model does not exist here: no route takes it. GET /v1/models lists those that do.",
            param="model",
            code="model_not_found",
        )

    def passed(self, call: Call, tokens: Estimate) -> Iterator[Passed]:
        """Every rule before the one that takes the call, and the key that kept it away; all of them if none does."""
        for rule in self.rules:
            key = rule.matcher.model_key(call.model)
            misfit = Passed(rule.name, key) if key is not None else rule.matcher.misfit(call, tokens)
            if misfit is None:
                return
            yield misfit

    def rule(self, name: str) -> Rule | None:
        """A rule by its name."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def _rules_for(self, model: str) -> tuple[Rule, ...]:
        rules = self._named.get(model)
        if rules is None:
            if len(self._named) >= REMEMBERED:  # callers invent names
                self._named.clear()
            rules = self._named[model] = tuple(rule for rule in self.rules if rule.matcher.model_key(model) is None)
        return rules

    def labels(self) -> Iterator[tuple[str, str, str]]:
        """Route, upstream and model of every place that calls may go, as metrics name them."""
        for rule in self.rules:
            for upstream, label in dict.fromkeys(rule.places()):
                yield rule.name, upstream, label

    def takes(self, model: str) -> bool:
        """Whether some call for this model would be routed."""
        return (self._direct and self.address(model) is not None) or bool(self._rules_for(model))

    def reaches(self, model: str, upstream: str) -> bool:
        """Whether the first rule for this model, asked as it is, may lead to this upstream under the same name."""
        rules = self._rules_for(model)
        return bool(rules) and any(target == (upstream, model) for target in rules[0].leads(model))

    def address(self, model: str) -> Route | None:
        """Where a model's name leads that names an upstream; None: it names none."""
        name, slash, rest = model.partition("/")
        upstream = self._config.upstreams.get(name)
        if not slash or not rest or upstream is None:
            return None
        return Route(DIRECT, (Target(name, upstream, rest, rest if (name, rest) in self._labels else "other"),))

    def models(self) -> Iterator[str]:
        """The concrete names that the rules spell out, each once, in their order."""
        names: dict[str, None] = {}
        for rule in self._config.routes:
            names |= dict.fromkeys(name for name in (*rule.match.model, *rule.list) if not is_glob(name))
        return iter(names)
