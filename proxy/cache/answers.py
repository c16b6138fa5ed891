"""What the cache knows under one configuration: the keys of calls, what may be kept, and what is kept already."""

import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from proxy.cache.control import Control
from proxy.cache.entry import Entry
from proxy.cache.flight import Flight
from proxy.cache.key import (
    ACCOUNT,
    Key,
    digest_of_body,
    is_answered_by,
    is_cacheable,
    key_of,
    place_of,
    read,
    takes_callers_keys,
    tenant_of,
    upstream_digest,
)
from proxy.cache.memory import Kept
from proxy.cache.question import Question
from proxy.cache.replay import Replay
from proxy.cache.shelf import Shelf
from proxy.call import Call, Caller, Facts, Operation
from proxy.config import Config, RouteCache
from proxy.openai_format.transcript import Form, Transcript, Untellable
from proxy.providers.seam import Route
from proxy.reply import WholeReply
from proxy.telemetry import CallRecord, Telemetry
from proxy.telemetry.prices import PriceList

REMEMBERED = 4096  # bodies that have been answered from memory
_is_filtered = re.compile(rb'"finish_reason"\s*:\s*"content_filter"').search
_NO_HEADERS: Mapping[str, str] = {}
_NO_FACTS = Facts()


class Start(Protocol):
    """A call that is made, and that others may join."""

    @property
    def joinable(self) -> bool: ...

    @property
    def flight(self) -> Flight:
        """With those who have joined."""
        ...


Starts = dict[tuple[bytes, bool], Start]  # by digest, and whether it is a stream


class _Known(NamedTuple):
    """What is known of a body that came before."""

    digest: bytes
    form: Form
    route: str
    model: str


class Answers:
    """The cache as calls see it.

    Args:
        starts: the calls that may be joined, of the process.
        clock: of the loop.
    """

    def __init__(
        self, config: Config, shelf: Shelf, starts: Starts, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self.shelf = shelf
        self.starts = starts
        self.telemetry = telemetry
        self.clock = clock
        self.most_bytes = config.cache.max_entry_bytes
        self.renewing: set[bytes] = set()  # what is being asked again behind callers' backs
        self.hits, self.misses = telemetry.cache.lookups("memory", "hit"), telemetry.cache.lookups("memory", "miss")
        self._stored = telemetry.cache.writes("memory", "ok")
        self._prices = PriceList(config.upstreams)
        self._upstreams = {name: upstream_digest(upstream) for name, upstream in config.upstreams.items()}
        self._own_keys: dict[str, bool] = {}  # by route: whether callers' keys go upstream
        self._places: dict[tuple[str, str, str], bytes] = {}
        self._known: dict[tuple[object, ...], _Known] = {}
        self._bodies: set[int] = set()  # hashes of known bodies: another need not be digested
        self._by_credential = any(upstream.credential == "caller" for upstream in config.upstreams.values())
        named = {name.lower() for route in config.routes for name in route.match.headers}
        self._deciding = sorted(named.union(ACCOUNT) if self._by_credential else named)

    def question(self, call: Call, route: Route, control: Control, record: CallRecord) -> Question | None:
        """The call as the cache sees it; None when its answer is for it alone."""
        rules = route.cache
        key = self._key(call, route, rules) if rules is not None and control.write else None
        if rules is None or key is None:
            return None
        record.cache_key = key.digest
        return Question(call, route, rules, key, control, record)

    def _key(self, call: Call, route: Route, rules: RouteCache) -> Key | None:
        body = call.body
        fields = read(body)
        if fields is None or not is_cacheable(fields, call.operation, any_temperature=rules.any_temperature):
            return None
        own_key = self._own_keys.get(route.name)
        if own_key is None:
            own_key = self._own_keys[route.name] = takes_callers_keys(route)
        way = (route.name, call.model, call.operation)
        place = self._places.get(way)
        if place is None:
            if len(self._places) >= REMEMBERED:  # callers invent names
                self._places.clear()
            place = self._places[way] = place_of(route, call.operation, self._upstreams)
        return key_of(body, fields, route.name, tenant_of(call, shared=rules.shared, own_key=own_key), place)

    # Bodies that came before.

    def recall(
        self, operation: Operation, caller: Caller, headers: Mapping[str, str], body: bytes, record: CallRecord
    ) -> WholeReply | Replay | None:
        """The answer to a body that has been answered from memory before, without reading it; noted in the record.

        Everything that decides where a call goes, and whose it is, must be the same.
        """
        if hash(body) not in self._bodies or "cache-control" in headers:
            return None
        known = self._known.get(self._look(operation, caller, headers, body))
        kept = self.shelf.memory.get(known.digest) if known is not None else None
        if known is None or kept is None:
            return None
        now, text = self.clock(), kept.told(known.form)
        if text is None or kept.good_until <= now:
            return None
        record.route, record.model_asked, record.stream = known.route, known.model, known.form != "whole"
        record.cache, record.cache_key = "memory", known.digest
        self.hits[0] += 1
        return self.reply(kept, text, known.form, record, now)

    def remember(self, question: Question) -> None:
        """A call that was answered from memory will come again: it need not be read again."""
        call = question.call
        if len(self._known) >= REMEMBERED:
            self._known.clear()
            self._bodies.clear()
        look = self._look(call.operation, call.caller, call.headers, call.body)
        self._bodies.add(hash(call.body))
        self._known[look] = _Known(question.key.digest, question.form, question.route.name, call.model)

    def _look(
        self, operation: Operation, caller: Caller, headers: Mapping[str, str], body: bytes
    ) -> tuple[object, ...]:
        whose = caller.credential if self._by_credential else None
        return (operation, caller.name, whose, digest_of_body(body), *[headers.get(name) for name in self._deciding])

    # Kept answers.

    def told(self, kept: Kept, form: Form) -> bytes | None:
        """A kept answer in a form; None when it cannot be told so."""
        try:
            return self.shelf.memory.tell(kept, form)
        except Untellable:
            self.telemetry.cache.looked_up("memory", "untellable")
            return None

    def reply(
        self, kept: Kept, text: bytes, form: Form, record: CallRecord, now: float, *, paced: bool = False
    ) -> WholeReply | Replay:
        """A kept answer, told to a caller; noted in the record."""
        entry = kept.entry
        record.age = int(kept.age(now))
        record.upstream, record.model, record.dropped = entry.upstream, entry.model, entry.dropped
        record.first_token = time.perf_counter()
        if entry.cost:
            upstream = entry.upstream if entry.upstream in self._upstreams else "other"
            self.telemetry.cache.saved(record.route, upstream, entry.cost)
        if form == "whole":
            return WholeReply(_NO_HEADERS, entry.dropped, text, _NO_FACTS)
        return Replay(text, entry.dropped, entry.streamed if paced else 0.0)

    def keep(
        self,
        question: Question,
        transcript: Transcript,
        facts: Facts,
        dropped: tuple[str, ...],
        streamed: float,
        joined: int,
    ) -> None:
        """Keep a good answer, if it is one to be kept; `joined` calls have been saved by it already."""
        record, key = question.record, question.key
        cost = self._prices.cost(record.upstream, record.model, facts.usage) if self._prices.known else None
        if joined and cost:
            self.telemetry.cache.saved(record.route, record.upstream, joined * cost)
        if question.rules.ttl_seconds == 0 or not _is_whole(question, transcript, facts):
            return
        entry = Entry(
            key.digest, key.route, key.tenant, record.upstream, record.model,
            question.call.operation != "completions", time.time(),
            self.shelf.good_seconds(question.rules.ttl_seconds), transcript, dropped, streamed, cost,
        )  # fmt: skip
        if entry.answer_size <= self.most_bytes and self.shelf.put(key, entry):
            self._stored[0] += 1
        else:
            self.telemetry.cache.kept("memory", "too_large")


def _is_whole(question: Question, transcript: Transcript, facts: Facts) -> bool:
    """Whether an answer is one that others may have: it came to its own end, from where the route wanted it."""
    record = question.record
    if not is_answered_by(question.route, record.target):
        return False
    if question.call.operation == "embeddings":
        return True
    if not facts.finished or not facts.finish_reason:
        return False
    if question.rules.store_filtered:
        return True
    text = transcript.whole if transcript.whole is not None else transcript.events
    is_filtered = facts.finish_reason == "content_filter" or (b"content_filter" in text and _is_filtered(text))
    return not is_filtered
