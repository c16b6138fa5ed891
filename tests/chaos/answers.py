"""Whether what a caller got is its own answer: of its question, of its tenant, with nothing missing or twice."""

import re
from collections import defaultdict
from collections.abc import Iterator

from proxy.simulator.answers import Question, Turn, compose
from proxy.simulator.behaviour import Behaviour
from tests.chaos.lines import Lines
from tests.chaos.nouns import Call, Complaint, Story
from tests.chaos.settings import DIALECTS, ROUTES

KEPT = ("memory", "redis", "joined")
ASKED = ("miss", "bypass")
_TEXT = re.compile(r"<(?P<for>[^|>]*)\|(?P<serial>[^|>]*)\|(?P<question>[^|>]*)>(?P<tokens>.*)", re.DOTALL)


def judge_text(call: Call, cache: str) -> Iterator[Complaint]:
    """The text of an answer, or of the part that came.

    Args:
        cache: what the cache had to do with it.
    """
    if ROUTES[call.ask.route][0] in DIALECTS:
        yield from _judge_simulated(call)
        return
    found = _TEXT.fullmatch(call.text)
    if found is None:
        if call.how == "whole" or (call.text and not call.text.startswith("<")):
            yield _complain(call, f"a text that no echo sends: {call.text[:80]!r}")
        return
    made_for, question = found["for"], found["question"]
    tenant, _, nonce = made_for.partition("/")
    if tenant != call.ask.tenant:
        yield _complain(call, f"asked by {call.ask.tenant}, and the answer was made for {made_for}")
    elif nonce != call.ask.nonce and cache not in KEPT:
        yield _complain(call, f"the answer was made for {made_for}, and is told to be a {cache or 'new one'}")
    if question != call.ask.question:
        yield _complain(call, f"asked {call.ask.question}, and this answers {question}")
    whole = "".join(f" {number}" for number in range(call.ask.tokens)) + " end"
    if call.how == "whole" and found["tokens"] != whole:
        yield _complain(call, f"told to be whole, and is not: {found['tokens']!r}")
    elif not whole.startswith(found["tokens"]):
        yield _complain(call, f"tokens are missing, or there twice: {found['tokens']!r}")


def _judge_simulated(call: Call) -> Iterator[Complaint]:
    whole = compose(Question(model="", turns=(Turn("user", call.ask.question),)), Behaviour(), seed=0).text
    if call.how == "whole" and call.text != whole:
        yield _complain(call, f"not the answer to its question, or not all of it: {call.text[:80]!r}")
    elif not whole.startswith(call.text):
        yield _complain(call, f"not how the answer to its question begins: {call.text[:80]!r}")


def judge_sharing(story: Story, lines: Lines) -> Iterator[Complaint]:
    """One answer of an upstream serves one call, and those that are told that it is another's."""
    takers: dict[str, list[Call]] = defaultdict(list)
    for call in story.calls:
        found = _TEXT.fullmatch(call.text)
        if found is not None:
            takers[found["serial"]].append(call)
    known = {each.serial for each in story.executions}
    for serial, calls in takers.items():
        if serial not in known:
            yield _complain(calls[0], f"no upstream has made the answer {serial}")
        tenants = {call.ask.tenant for call in calls}
        if len(tenants) > 1:
            yield _complain(calls[0], f"the answer {serial} went to several tenants: {', '.join(sorted(tenants))}")
        new = [call for call in calls if cache_of(call, lines) in ASKED]
        if len(new) > 1:
            names = ", ".join(call.ask.nonce for call in new)
            yield _complain(calls[0], f"the answer {serial} is told to be new to several: {names}")


def cache_of(call: Call, lines: Lines) -> str:
    """By the answer's head, or, where that went out too early, by the access line."""
    found = lines.get(call.ask.nonce, ())
    return call.cache or (str(found[0][1]["cache"]) if found else "")


def _complain(call: Call, text: str) -> Complaint:
    return Complaint("answers", call.ask.nonce, f"{call.ask.model} at {call.sidecar}: {text}")
