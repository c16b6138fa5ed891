"""What calls have used and cost: told by upstreams where they tell it, else reckoned from what has passed by.

No tokeniser: how much text a model puts into a token is learnt from the answers that say how many they had.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry

from proxy.call import Json, count_of
from proxy.config import Price
from proxy.telemetry.prices import PriceList, cost_of
from proxy.telemetry.record import CallRecord
from proxy.telemetry.tallies import Cell, Counter, Known

Source = Literal["provider", "partial", "estimated"]

MOST_ACCOUNTS = 4096  # callers invent models; what was learnt of them is forgotten beyond this
MOST_PAYERS = 200  # series of costs; a caller beyond them is `other`
FEW_CALLERS = 10  # whose series are there before their first call
MANY_LESSONS = 200  # after which one call of RARELY is learnt from: it takes 2 us
RARELY = 16
USUAL_BYTES = 4.0  # of a token of English
MOST_APART = 1024  # bytes of a token, or tokens of a byte (thoughts that are not shown)
REMEMBERED_BYTES = 1e6  # older answers count for half beyond them
DIRECTIONS = ("prompt", "completion")


class Used(NamedTuple):
    """What one call has used; None: nobody knows.

    Args:
        source: `provider` told it; `partial`: of an answer that did not come to its end; `estimated`: of one that did,
            and told nothing.
    """

    prompt: int | None = None
    completion: int | None = None
    source: Source | None = None
    cost: float | None = None  # US dollars


UNKNOWN = Used()
NOTHING = Used(cost=0.0)


class Ratio:
    """How many of something make a token, as far as has been seen."""

    __slots__ = ("_things", "_tokens")

    def __init__(self, usual: float) -> None:
        self._things, self._tokens = usual, 1.0  # worth one token: whatever is seen counts for more

    def learn(self, things: int, tokens: int) -> None:
        """So many were so many tokens, if that can be believed."""
        if not things <= tokens * MOST_APART or not tokens <= things * MOST_APART:
            return
        if self._things > REMEMBERED_BYTES:
            self._things, self._tokens = self._things / 2, self._tokens / 2
        self._things += things
        self._tokens += tokens

    def tokens(self, things: int) -> int:
        """How many tokens these may be."""
        return round(things * self._tokens / self._things)


class _Account:
    """A model of an upstream, asked on one route by one caller."""

    __slots__ = ("answers", "cost", "lessons", "price", "prompts", "tokens", "unpriced")

    def __init__(self, prompts: Ratio, answers: Ratio) -> None:
        self.price: Price | None = None
        self.prompts, self.answers = prompts, answers  # guessed tokens, and bytes, for each token
        self.tokens: dict[Source, tuple[Cell, Cell]] = {}
        self.cost: Cell = [0.0]
        self.unpriced: Cell = [0.0]
        self.lessons = 0  # calls that told what they used

    def learn(self, record: CallRecord, prompt: int, completion: int) -> None:
        """A call told how many tokens its request and its answer had."""
        if prompt and record.tokens is not None:
            self.prompts.learn(record.tokens.prompt, prompt)
        if completion and record.facts.text_bytes:
            self.answers.learn(record.facts.text_bytes, completion)


class Ledger:
    """The counters of tokens and money.

    `on_cost` is told who pays: the caller, the route, and how many US dollars.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter(
            registry, "octet_tokens",
            "Tokens of `prompt` and `completion`: as the `provider` told, of a `partial` answer, or `estimated` where "
            "a whole one told nothing.",
            ("upstream", "model", "direction", "source"),
        )  # fmt: skip
        self.cost = Counter(
            registry, "octet_cost_usd", "What calls have cost, where prices are known.",
            ("route", "upstream", "model", "caller"),
        )  # fmt: skip
        self.unpriced = Counter(
            registry, "octet_unpriced",
            "Answers of unknown cost: no `price` is configured, or nobody knows the `usage` of an attempt that was "
            "given up.",
            ("upstream", "model", "reason"),
        )  # fmt: skip
        self.on_cost: Callable[[str, str, float], object] | None = None
        self._prices = PriceList({})
        self._accounts: dict[tuple[str, str, str, str], _Account] = {}
        self._ratios: dict[tuple[str, str], tuple[Ratio, Ratio]] = {}

    def follow(self, prices: PriceList) -> None:
        """Go by these prices from now on; what was learnt of models holds."""
        self._prices = prices
        self._accounts.clear()

    def bind(self, route: str, upstream: str, model: str, callers: Sequence[str]) -> None:
        """Begin the series of a target's good calls at 0, but for those of many callers."""
        for direction in DIRECTIONS:
            self.tokens.bind((upstream, model, direction, "provider"))
        if self._prices.price(upstream, model) is None:
            self.unpriced.bind((upstream, model, "price"))
            return
        for caller in callers if len(callers) <= FEW_CALLERS else ():
            if len(self.cost) < MOST_PAYERS:
                self.cost.bind((route, upstream, model, caller))
        if not callers:
            self.cost.bind((route, upstream, model, "none"))

    def prune(self, known: Known) -> None:
        """Forget the series of what is known no longer."""
        for tally in (self.tokens, self.cost, self.unpriced):
            tally.prune(known)
        self._accounts.clear()

    def settle(self, record: CallRecord) -> Used:
        """Count what a call has used that an upstream has answered."""
        if not record.attempts:
            return NOTHING
        if record.first_token is None:
            return UNKNOWN
        facts = record.facts
        usage = facts.usage
        if not usage or not (facts.finished or facts.finish_reason):
            return self._reckon(record, self._account(record))
        account = self._accounts.get((record.route, record.upstream, record.model, record.caller))
        if account is None:
            account = self._account(record)
        prompt, completion = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
        if prompt is None and completion is None:
            return self._reckon(record, account)
        account.lessons += 1
        if account.lessons <= MANY_LESSONS or not account.lessons % RARELY:
            account.learn(record, prompt or 0, completion or 0)
        return self._book(record, account, Used(prompt, completion, "provider"), usage, facts.copies)

    def lost(self, record: CallRecord, upstream: str, model: str, label: str) -> int:
        """Count the prompt of an attempt of the call that another was quicker than; its tokens."""
        lost = CallRecord(
            record.request_id, record.started, record.caller, record.route, upstream, model=model, model_label=label,
            tokens=record.tokens,
        )  # fmt: skip
        lost.facts.finished = True  # what is counted is not a part of an answer
        return self._reckon(lost, self._account(lost)).prompt or 0

    def unknown(self, upstream: str, label: str) -> None:
        """Count an attempt of which nobody knows what it has used."""
        self.unpriced.add((upstream, label, "usage"))

    def _reckon(self, record: CallRecord, account: _Account) -> Used:
        """What an answer has used that did not tell, or not all."""
        facts = record.facts
        told = facts.usage or facts.begun or {}
        prompt = count_of(told.get("prompt_tokens"))
        if prompt is None:
            prompt = max(1, account.prompts.tokens(record.tokens.prompt)) if record.tokens is not None else 0
        completion = max(account.answers.tokens(facts.text_bytes), count_of(told.get("completion_tokens")) or 0)
        source: Source = "estimated" if facts.finished else "partial"
        usage = {**told, "prompt_tokens": prompt, "completion_tokens": completion}
        return self._book(record, account, Used(prompt, completion, source), usage, facts.copies)

    def _book(self, record: CallRecord, account: _Account, used: Used, usage: Json, copies: int) -> Used:
        source = used.source or "provider"
        cells = account.tokens.get(source)
        if cells is None:
            one, other = (
                self.tokens.bind((record.upstream, record.model_label, direction, source)) for direction in DIRECTIONS
            )
            cells = account.tokens[source] = one, other
        cells[0][0] += (used.prompt or 0) * copies
        cells[1][0] += used.completion or 0
        if account.price is None:
            account.unpriced[0] += 1
            return used
        cost = cost_of(account.price, usage, copies)
        account.cost[0] += cost
        if self.on_cost is not None:
            self.on_cost(record.caller, record.route, cost)
        return used._replace(cost=cost)

    def _account(self, record: CallRecord) -> _Account:
        """What is known of the call's model, and where its money is counted."""
        key = record.route, record.upstream, record.model, record.caller
        account = self._accounts.get(key)
        if account is not None:
            return account
        if max(len(self._accounts), len(self._ratios)) >= MOST_ACCOUNTS:
            self._accounts.clear()
            self._ratios.clear()
        ratios = self._ratios.setdefault((record.upstream, record.model), (Ratio(1.0), Ratio(USUAL_BYTES)))
        account = self._accounts[key] = _Account(*ratios)
        account.price = self._prices.price(record.upstream, record.model)
        if account.price is None:
            account.unpriced = self.unpriced.bind((record.upstream, record.model_label, "price"))
        else:
            account.cost = self.cost.bind(self._payer(record))
        return account

    def _payer(self, record: CallRecord) -> tuple[str, str, str, str]:
        route, upstream, model = record.route or "none", record.upstream, record.model_label
        payer = route, upstream, model, record.caller or "none"
        return payer if payer in self.cost or len(self.cost) < MOST_PAYERS else (route, upstream, model, "other")
