"""What a route may say, and what of it could not work, each with its place and what to write instead."""

from collections.abc import Callable

import pytest

from proxy.config import Config

UPS = (
    "upstreams:\n"
    "  up: {provider: openai, labels: {region: eu-1, tier: gold}}\n"
    "  priced: {provider: openai, prices: {'*': {input_per_million: 1}}}\n"
)
ROUTE = UPS + "routes:\n  - "  # a route begins on line 5, column 5
TARGETS = "targets: [{upstream: up}]"
Mistakes = Callable[..., list[str]]


def way(settings: str) -> str:
    """A route whose only target has these settings; they begin at column 29."""
    return "{targets: [{upstream: up, " + settings + "}]}"


@pytest.mark.parametrize(
    ("route", "told"),
    [
        (
            "{require: {regoin: eu}, " + TARGETS + "}",
            '5:16: routes[0].require.regoin: no upstream has a label "regoin"; did you mean "region"?',
        ),
        (
            "{prefer: {zone: eu}, " + TARGETS + "}",
            '5:15: routes[0].prefer.zone: no upstream has a label "zone"; known: region, tier',
        ),
        (
            "{require: {region: us-*}, " + TARGETS + "}",
            "5:6: routes[0].require: no target's upstream has these labels: every call would fail",
        ),
        (
            "{require: {region: eu-*, tier: tin}, " + TARGETS + ", fallback: [{upstream: up}]}",
            "5:6: routes[0].require: no target's upstream has these labels: every call would fail",
        ),
        (
            "{require: {tier: [tin, gold]}, targets: [{upstream: priced}], fallback: [{upstream: up}]}",
            "5:6: routes[0].require: no target's upstream has these labels: every call would fail",
        ),
        (
            "{prefer_own_region: true, " + TARGETS + "}",
            "5:6: routes[0].prefer_own_region: needs server.region, which is not set",
        ),
        (
            "{sticky: user, " + TARGETS + "}",
            "5:6: routes[0].sticky: does nothing without strategy: weighted, or a canary",
        ),
        (
            "{strategy: least_busy, sticky: caller, " + TARGETS + "}",
            "5:28: routes[0].sticky: does nothing without strategy: weighted, or a canary",
        ),
        (
            "{strategy: least_cost, " + TARGETS + ", fallback: [{upstream: priced}]}",
            "5:6: routes[0].strategy: least_cost needs prices at the targets' upstreams; there are none",
        ),
        (
            "{strategy: weighted, targets: [{upstream: up, weight: 0}, {upstream: priced, weight: 0}]}",
            "5:26: routes[0].targets: every weight is 0: no target could ever be chosen",
        ),
        (
            "{match: {min_prompt_tokens: 9, max_prompt_tokens: 8}, " + TARGETS + "}",
            "5:36: routes[0].match.max_prompt_tokens: is below min_prompt_tokens: no call is of that size",
        ),
        ("{match: {caller: [x]}, " + TARGETS + "}", '5:23: routes[0].match.caller[0]: unknown caller "x"'),
        (
            "{" + TARGETS + ", fallback: [{}]}",
            "5:44: routes[0].fallback[0]: name an upstream, or another route; one of the two",
        ),
        (
            "{name: r, " + TARGETS + ", fallback: [{upstream: up, route: x}]}",
            "5:53: routes[0].fallback[0]: name an upstream, or another route; one of the two",
        ),
        (
            "{name: first, " + TARGETS + ", fallback: [{route: frist}]}",
            '5:58: routes[0].fallback[0].route: unknown route "frist"; did you mean "first"?',
        ),
        (
            "{name: r, " + TARGETS + ", fallback: [{route: r}]}",
            "5:54: routes[0].fallback[0].route: leads in a circle: r -> r",
        ),
        (
            "{" + TARGETS + ", canary: {upstream: upp, share: 0.5}}",
            '5:42: routes[0].canary.upstream: unknown upstream "upp"; did you mean "up"?',
        ),
        (
            "{" + TARGETS + ", mirror: {upstream: xyz}}",
            '5:42: routes[0].mirror.upstream: unknown upstream "xyz"; known: priced, up',
        ),
        (
            "{" + TARGETS + ", mirror: {upstream: up}, hedge: {}}",
            "5:57: routes[0].hedge: does nothing: there is no second target",
        ),
        (way("set: {seed: 1}, remove: seed"), "5:47: routes[0].targets[0].remove: seed is set here too; keep one"),
        (way("defaults: {n: 1}, remove: [n]"), "5:49: routes[0].targets[0].remove: n is set here too; keep one of"),
        (
            way("set: {seed: 1}, defaults: {seed: 2}"),
            "5:58: routes[0].targets[0].defaults.seed: does nothing: it is set anyway",
        ),
    ],
)
def test_what_could_not_work(mistakes: Mistakes, route: str, told: str) -> None:
    """Names that lead nowhere, what contradicts itself, and what would stand there in vain."""
    (mistake,) = mistakes(ROUTE + route)
    assert mistake.startswith("octet.yaml:" + told)


@pytest.mark.parametrize("key", ["model: m", "max_context_tokens: 1", "set: {a: 1}", "defaults: {a: 1}", "remove: a",
                                 "headers: {x-a: '1'}"])  # fmt: skip
def test_another_route_is_not_changed_from_here(mistakes: Mistakes, key: str) -> None:
    """What differs at a target is written there, not beside the name of its route."""
    text = "{name: a, match: {model: a}, " + TARGETS + ", fallback: [{route: b, " + key + "}]}\n  - {name: b, "
    name = key.partition(":")[0]
    assert mistakes(ROUTE + text + TARGETS + "}") == [
        f"octet.yaml:5:83: routes[0].fallback[0].{name}: does nothing beside route: write it at that route's targets"
    ]


def test_fallbacks_come_to_an_end(mistakes: Mistakes) -> None:
    """Every step of a circle is told, with the whole way; a route that only leads into it is not at fault."""
    rule = "  - {{name: {}, match: {{model: {}}}, targets: [{{upstream: up}}], fallback: [{}]}}\n"
    ways = {"in": "{route: a}", "a": "{upstream: up}, {route: b}", "b": "{route: c}", "c": "{route: end}, {route: a}"}
    text = "".join(rule.format(name, name, way) for name, way in ways.items())
    text += rule.format("end", "end", "{upstream: up}")
    assert [mistake.partition(": ")[2] for mistake in mistakes(UPS + "routes:\n" + text)] == [
        "routes[1].fallback[1].route: leads in a circle: a -> b -> c -> a",
        "routes[2].fallback[0].route: leads in a circle: b -> c -> a -> b",
        "routes[3].fallback[1].route: leads in a circle: c -> a -> b -> c",
    ]


def test_a_route_may_be_named_none(mistakes: Mistakes) -> None:
    """Its circle is told, whatever routes without a name come after it."""
    rule = "{{name: {}, match: {{model: {}}}, targets: [{{upstream: up}}], fallback: [{{route: {}}}]}}\n  - "
    told = mistakes(ROUTE + rule.format("None", "a", "b") + rule.format("b", "b", "None") + "{" + TARGETS + "}")
    assert ["leads in a circle" in mistake for mistake in told] == [True, True]


def test_two_ways_to_a_route_are_no_circle(config: Callable[..., Config]) -> None:
    """Routes may meet again, and lead to one that stands before them."""
    rule = "{{name: {}, match: {{model: {}}}, targets: [{{upstream: up}}], fallback: [{}]}}\n  - "
    text = rule.format("end", "e", "") + rule.format("b", "b", "{route: end}")
    text += rule.format("a", "a", "{route: b}, {route: end}") + "{" + TARGETS + "}"
    assert len(config(ROUTE + text).routes) == 4


@pytest.mark.parametrize("place", ["targets: [{%s}]", TARGETS + ", fallback: [{%s}]",
                                   TARGETS + ", canary: {share: 1, %s}", TARGETS + ", mirror: {%s}"])  # fmt: skip
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *((f"set: {{{name}: 1}}", f"{name} cannot be changed on the way") for name in ("model", "messages", "prompt")),
        *((f"defaults: {{{name}: 1}}", f"{name} cannot be changed on the way") for name in ("input", "stream")),
        ("remove: [stream_options]", "stream_options cannot be changed on the way"),
        ("remove: model", "model cannot be changed on the way"),
        ("headers: {Host: x}", "the header Host is the sidecar's own and cannot be set"),
        ("headers: {via: x}", "the header via is the sidecar's own and cannot be set"),
        ("headers: {'x y': x}", "is not a header name"),
        ('headers: {x-a: "a\\nb"}', "a header's value is printable ASCII on one line"),
        ("max_context_tokens: 0", "greater than or equal to 1"),
        ("max_contxt_tokens: 1", "max_context_tokens"),
    ],
)
def test_what_cannot_be_changed_on_the_way(mistakes: Mistakes, place: str, settings: str, told: str) -> None:
    """Nowhere: not at a target, a fallback, a canary or a mirror."""
    found = mistakes(ROUTE + "{" + place % ("upstream: up, " + settings) + "}")
    assert len(found) == 1
    assert told in found[0]
    assert "octet.yaml:5:" in found[0]


@pytest.mark.parametrize(
    ("match", "column", "told"),
    [
        ("model_regex: '('", 14, "model_regex: is no regular expression: missing )"),
        ("model_regex: 'a{2,1}'", 14, "model_regex: is no regular expression: min repeat greater than max repeat"),
        ("model_regex: '*'", 14, "model_regex: is no regular expression: nothing to repeat"),
        ("model: 'gpt-[45'", 14, 'model[0]: the glob "gpt-[45" has a [ without its ]; [[] stands for a plain ['),
        ("model: [a, 'gpt-[']", 25, 'model[1]: the glob "gpt-[" has a [ without its ]'),
        ("model: 'gpt-[9-4]'", 14, 'model[0]: the glob "gpt-[9-4]" has a range that runs backwards: 9-4'),
        ("model: '[!z-a]'", 14, 'model[0]: the glob "[!z-a]" has a range that runs backwards: z-a'),
        ("model: '[]'", 14, 'model[0]: the glob "[]" has a [ without its ]'),
        ("model: '[!]'", 14, 'model[0]: the glob "[!]" has a [ without its ]'),
        ("headers: {x-a: 'b[c'}", 24, 'headers.x-a: the glob "b[c" has a [ without its ]'),
        ("metadata: {a: '[c-b]'}", 25, 'metadata.a: the glob "[c-b]" has a range that runs backwards: c-b'),
        ("min_prompt_tokens: 0", 14, "min_prompt_tokens: "),
        ("models: a", 14, 'models: unknown key "models"; did you mean "model"?'),
        ("tools: some", 14, "tools: "),
        ("model: []", 14, "model: "),
    ],
)
def test_what_could_never_match(mistakes: Mistakes, match: str, column: int, told: str) -> None:
    """Globs and regular expressions that are none, and values of another kind."""
    (mistake,) = mistakes(ROUTE + "{match: {" + match + "}, " + TARGETS + "}")
    place, _, rest = mistake.partition(": ")
    assert rest.startswith("routes[0].match." + told)
    assert place == f"octet.yaml:5:{column}"


@pytest.mark.parametrize("glob", ["[[]x", "[]]", "[!]]", "[]-a]", "[a-]", "[-a]", "[a-c]", "[a-a]", "a]", "[!-]", "*?"])
def test_odd_globs_that_fit_something(config: Callable[..., Config], glob: str) -> None:
    """A bracket in the first place stands for itself, and so does a hyphen at an end."""
    assert config(ROUTE + "{match: {model: '" + glob + "'}, " + TARGETS + "}").routes[0].match.model == (glob,)


def test_a_hyphen_after_a_range_stands_for_itself(config: Callable[..., Config]) -> None:
    """As in a shell, and as globs are read here: `[b-d-a]` is b, c, d, a hyphen or a."""
    assert config(ROUTE + "{match: {model: '[b-d-a]'}, " + TARGETS + "}").routes


@pytest.mark.parametrize("label", ["require: {region: 'eu-[12'}", "prefer: {region: ['eu-[2-1]']}"])
def test_globs_of_labels_are_looked_at_too(mistakes: Mistakes, label: str) -> None:
    """An unclosed bracket or a backwards range fits nothing there either."""
    told = [mistake for mistake in mistakes(ROUTE + "{" + label + ", " + TARGETS + "}") if "the glob" in mistake]
    assert len(told) == 1
    assert f"routes[0].{label.partition(':')[0]}.region[0]" in told[0]


@pytest.mark.parametrize("sticky", ["user", "prompt_cache_key", "safety_identifier", "caller", "header:X-Session"])
def test_what_calls_may_be_kept_together_by(config: Callable[..., Config], sticky: str) -> None:
    """Beside weights, or a canary whatever the strategy; a header's name in small letters."""
    for beside in ("strategy: weighted", "strategy: least_busy, canary: {upstream: up, share: 0.1}"):
        rule = config(ROUTE + "{sticky: '" + sticky + "', " + beside + ", " + TARGETS + "}").routes[0]
        assert rule.sticky == (sticky.lower() if sticky.startswith("header") else sticky)


@pytest.mark.parametrize("sticky", ["User", "header:", "header:a b", "ip", "header", "model", "metadata.user"])
def test_what_they_may_not_be_kept_together_by(mistakes: Mistakes, sticky: str) -> None:
    """The mistake says what may stand there."""
    (told,) = mistakes(ROUTE + "{sticky: '" + sticky + "', strategy: weighted, " + TARGETS + "}")
    assert told.startswith("octet.yaml:5:6: routes[0].sticky: write user, prompt_cache_key, safety_identifier, caller,")


@pytest.mark.parametrize("settings", ["canary: {upstream: up}", "canary: {upstream: up, share: 0}",
                                      "canary: {upstream: up, share: 1.1}", "mirror: {upstream: up, share: 0}",
                                      "mirror: {upstream: up, concurrent: 0}", "strategy: fastest"])  # fmt: skip
def test_shares_and_strategies(mistakes: Mistakes, settings: str) -> None:
    """A canary says its share; a share is above 0 and at most 1; strategies are those there are."""
    (told,) = mistakes(ROUTE + "{" + TARGETS + ", " + settings + "}")
    assert told.startswith("octet.yaml:5:")
    assert f"routes[0].{settings.partition(':')[0]}" in told


def test_what_is_right_is_no_mistake(config: Callable[..., Config]) -> None:
    """A route that says everything, and what it means where it says nothing."""
    text = (
        "{name: r, match: {min_prompt_tokens: 8, max_prompt_tokens: 8}, "
        "require: {tier: gold}, prefer: {region: [eu-1]}, prefer_own_region: true, strategy: least_cost, "
        "targets: [{upstream: priced}, {upstream: up, set: {a: 1}, defaults: {b: [x]}, remove: c, headers: {X-A: '1'}}]"
        ", canary: {upstream: up, share: 1}, mirror: {upstream: up}}"
    )
    (rule,) = config("server: {region: eu-1}\n" + ROUTE + text).routes
    target = rule.targets[1]
    assert (target.set, target.defaults, target.remove, target.headers) == (
        {"a": 1},
        {"b": ["x"]},
        ("c",),
        {"x-a": "1"},
    )
    assert (target.weight, rule.sticky) == (1, None)
    assert rule.mirror is not None
    assert (rule.mirror.share, rule.mirror.concurrent) == (1.0, 10)
    assert "X-A" not in repr(rule)
