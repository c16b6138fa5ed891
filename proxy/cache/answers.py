"""What the cache knows under one configuration: the keys of calls, what may be kept, and what is kept already."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.cache.control import USUAL, Control, control_of
from proxy.cache.entry import Entry
from proxy.cache.flight import Flight
from proxy.cache.key import (
    Key,
    digest_of_body,
    is_answered_by,
    is_cacheable,
    key_of,
    place_of,
    takes_callers_keys,
    tenant_of,
    upstream_digest,
)
from proxy.cache.memory import Kept
from proxy.call import Call, Facts
from proxy.config import Config, RouteCache
from proxy.openai_format.transcript import Form, Transcript, Untellable, form_of
from proxy.providers.seam import Route
from proxy.telemetry import CallRecord, Telemetry
from proxy.telemetry.prices import PriceList

if TYPE_CHECKING:  # it loads the Redis client: for those who keep answers
    from proxy.cache.tiers import Tiers

REMEMBERED = 4096  # bodies that have been answered from memory
_FILTERED = (b'"finish_reason":"content_filter"', b'"finish_reason": "content_filter"')

Flights = dict[tuple[bytes, bool], Flight]  # by digest, and whether they are streams


class Question:
    """One call that the cache may answer, or learn the answer of."""

    __slots__ = ("call", "control", "form", "key", "record", "route", "rules")

    def __init__(
        self, call: Call, route: Route, rules: RouteCache, key: Key, control: Control, record: CallRecord
    ) -> None:
        self.call = call
        self.route = route
        self.rules = rules
        self.key = key
        self.control = control
        self.record = record
        self.form: Form = form_of(stream=call.stream, wants_usage=call.wants_usage)


class Answers:
    """The cache as calls see it.

    Args:
        flights: those of the process.
        clock: of the loop.
    """

    def __init__(
        self, config: Config, tiers: "Tiers", flights: Flights, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self.tiers = tiers
        self.flights = flights
        self.telemetry = telemetry
        self.clock = clock
        self.most_bytes = config.cache.max_entry_bytes
        self.renewing: set[bytes] = set()  # what is being asked again behind callers' backs
        self._prices = PriceList(config.upstreams)
        self._upstreams = {name: upstream_digest(upstream) for name, upstream in config.upstreams.items()}
        self._known: dict[tuple[str, str, str, bytes], Key] = {}
        self._own_keys: dict[str, bool] = {}  # by route: whether callers' keys go upstream
        self._places: dict[tuple[str, str, str], bytes] = {}

    def question(self, call: Call, route: Route, record: CallRecord) -> Question | None:
        """The call as the cache sees it; None when it has nothing to do with it."""
        header, rules = call.headers.get("cache-control"), route.cache
        control = control_of(header) if header else USUAL
        if rules is None or not control.write or not is_cacheable(call, any_temperature=rules.any_temperature):
            return None
        own_key = self._own_keys.get(route.name)
        if own_key is None:
            own_key = self._own_keys[route.name] = takes_callers_keys(route)
        key = self._key(call, route, tenant_of(call, shared=rules.shared, own_key=own_key))
        return Question(call, route, rules, key, control, record) if key is not None else None

    def _key(self, call: Call, route: Route, tenant: str) -> Key | None:
        known = self._known.get((route.name, tenant, call.operation, digest_of_body(call.body)))
        if known is not None:
            return known
        way = (route.name, call.model, call.operation)
        place = self._places.get(way)
        if place is None:
            if len(self._places) >= REMEMBERED:  # callers invent names
                self._places.clear()
            place = self._places[way] = place_of(route, call.operation, self._upstreams)
        return key_of(call, route.name, tenant, place)

    def remember(self, question: Question) -> None:
        """A body that was answered from memory will come again: its key need not be made again."""
        key, call = question.key, question.call
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key.route, key.tenant, call.operation, digest_of_body(call.body)] = key

    def usable(self, question: Question, kept: Kept | None, stale_seconds: float = 0.0) -> bool:
        """Whether the call may be given this answer, which may be so long past its time."""
        if kept is None or not question.control.read:
            return False
        now = self.clock()
        return now < kept.good_until + stale_seconds and kept.age(now) <= question.control.max_age

    def told(self, question: Question, kept: Kept) -> bytes | None:
        """A kept answer as this call wants it; None when it cannot be told so."""
        try:
            return self.tiers.memory.tell(kept, question.form)
        except Untellable:
            self.telemetry.looked_up("memory", "untellable")
            return None

    def keep(
        self,
        question: Question,
        transcript: Transcript,
        facts: Facts,
        dropped: tuple[str, ...],
        streamed: float = 0.0,
        *,
        joined: int = 0,
    ) -> None:
        """Keep a good answer, if it is one to be kept; `joined` calls have been saved by it already."""
        record, rules = question.record, question.rules
        cost = self._prices.cost(record.upstream, record.model, facts.usage)
        if joined and cost:
            self.telemetry.saved(record.route, record.upstream, joined * cost)
        if rules.ttl_seconds == 0 or not self._is_whole(question, transcript, facts):
            return
        entry = Entry(
            question.key.digest, question.key.route, question.key.tenant, record.upstream, record.model,
            question.call.operation != "completions", time.time(), self.tiers.good_seconds(rules.ttl_seconds),
            transcript, dropped, streamed, cost,
        )  # fmt: skip
        size = len(transcript.whole or b"") + len(transcript.events)
        if size > self.most_bytes:
            self.telemetry.kept("memory", "too_large")
        else:
            self.telemetry.kept("memory", "ok" if self.tiers.put(question.key, entry) else "too_large")

    def _is_whole(self, question: Question, transcript: Transcript, facts: Facts) -> bool:
        """Whether an answer is one that others may have: it came to its own end, from where the route wanted it."""
        record, route = question.record, question.route
        if not is_answered_by(route, record.upstream, record.model):
            return False
        if question.call.operation == "embeddings":
            return True
        if not facts.finished or not facts.finish_reason:
            return False
        text = transcript.whole if transcript.whole is not None else transcript.events
        return question.rules.store_filtered or not any(mark in text for mark in _FILTERED)
