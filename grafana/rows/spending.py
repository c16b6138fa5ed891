"""Tokens, and the money they cost."""

from grafana import looks
from grafana.layout import Row
from grafana.panels import bars, good_until, series, table
from grafana.queries import (
    CALLS,
    HERE,
    UPSTREAM_MODEL,
    in_the_time_shown,
    instant,
    per_hour,
    rate,
    target,
)
from grafana.thresholds import BUDGET

_NO_PRICES = "No cost: no calls, or no prices configured"
_TOKENS = "count:tokens/s"

ROW = Row(
    "Tokens and cost",
    [
        series(
            "Token usage by provider", "Tokens per second, prompts and completions, by upstream. Normal follows the "
            "request rate. Prompts that grow while calls do not are conversations that nobody shortens.",
            [target(rate("octet_tokens_total", UPSTREAM_MODEL, "upstream", "direction"), "{{upstream}} {{direction}}")],
            _TOKENS, stacked=True, links=looks.ONLY_UPSTREAM, empty="No tokens", legend=("mean", "max"), size=(12, 9),
        ),
        series(
            "Cost per provider", "Dollars per hour at the pace of each moment, by upstream. Only what has a price "
            "counts. Normal is your budget by 24. OctetDailyCostHigh looks at a whole day; a jump here comes first: "
            "see who calls, below.",
            [target(per_hour("octet_cost_usd_total", CALLS, "upstream"), "{{upstream}}")], "currencyUSD", stacked=True,
            links=looks.ONLY_UPSTREAM, empty=_NO_PRICES, legend=("mean", "max"), size=(12, 9), decimals=2,
        ),
        series(
            "Token usage by model", "Tokens per second, prompts and completions together, by the model asked upstream. "
            "Normal is steady shares; a dear model that grows is worth a question.",
            [target(rate("octet_tokens_total", UPSTREAM_MODEL, "model"), "{{model}}")], _TOKENS, stacked=True,
            links=looks.ONLY_MODEL, empty="No tokens",
        ),
        series(
            "Cost by model", "Dollars per hour at the pace of each moment, by the model asked upstream. Normal is "
            "steady shares. Compare with its tokens: the difference is its price.",
            [target(per_hour("octet_cost_usd_total", CALLS, "model"), "{{model}}")], "currencyUSD", stacked=True,
            links=looks.ONLY_MODEL, empty=_NO_PRICES, decimals=2,
        ),
        series(
            "Cost by caller", "Dollars per hour at the pace of each moment, by caller (server.callers). Normal is what "
            "you agreed with each; budget.daily_usd and monthly_usd hold them to it.",
            [target(per_hour("octet_cost_usd_total", CALLS, "caller"), "{{caller}}")], "currencyUSD", stacked=True,
            empty=_NO_PRICES, decimals=2,
        ),
        bars(
            "Budgets used", "What is spent of each budget of a caller or a route, of this day or month. Normal grows "
            "evenly. Orange from 80 %, like OctetBudgetNearlyUsed; at 100 % its calls are refused until the period "
            "ends: raise it, or let it hold.",
            [
                instant(
                    f"sort_desc(max by (scope, name, period) (octet_budget_spent_usd{{{HERE}}} / "
                    f"octet_budget_limit_usd{{{HERE}}}))",
                    "{{scope}} {{name}}, {{period}}",
                )
            ],
            "percentunit", limit=1, empty="No budgets configured",
            steps=[*good_until(1)[:1], {"color": "orange", "value": BUDGET}, *good_until(1)[1:]],
        ),
        table(
            "Spent in the time shown", "Dollars in the whole time range of the dashboard, by caller, upstream and "
            "model. Normal is no surprise in the first line.",
            [instant(in_the_time_shown("octet_cost_usd_total", CALLS, "caller", "upstream", "model"), format="table")],
            "currencyUSD", sort="Cost", empty=_NO_PRICES,
            transformations=[
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": {"Time": True}, "includeByName": {},
                        "indexByName": {"caller": 0, "upstream": 1, "model": 2, "Value": 3},
                        "renameByName": {
                            "caller": "Caller", "upstream": "Upstream", "model": "Model", "Value": "Cost",
                        },
                    },
                }
            ],
        ),
        series(
            "Answers of unknown cost", "Per second, by upstream, model and why: price, none is configured; usage, "
            "nobody says what an attempt that was given up has used. Normal is none of price: give the upstream "
            "prices, or the cost above is too low.",
            [
                target(
                    rate("octet_unpriced_total", UPSTREAM_MODEL, "upstream", "model", "reason"),
                    "{{upstream}} {{model}}: {{reason}}",
                )
            ],
            "ops", stacked=True, links=looks.ONLY_UPSTREAM, empty="Every cost is known",
        ),
    ],
)  # fmt: skip
