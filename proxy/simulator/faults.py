"""The whole answers that a behaviour puts in place of the right one."""

from collections.abc import Mapping
from dataclasses import replace

from proxy.simulator.answers import Question
from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Dialect, Page, Problem

_HTML = (
    b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>"
    b"<body><h1>502 Bad Gateway</h1><hr>nginx</body></html>\n"
)
_GARBAGE: Mapping[str, tuple[str, bytes]] = {
    "html": ("text/html; charset=utf-8", _HTML),
    "json": ("application/json", b'{"greeting":"hello","answer":42}'),
    "text": ("text/plain; charset=utf-8", b"upstream connect error or disconnect/reset before headers"),
    "empty": ("application/json", b""),
    "not_sse": ("text/event-stream; charset=utf-8", b"this is\nno stream of events\n\nat all"),
}


def find_fault(dialect: Dialect, question: Question, behaviour: Behaviour, request_id: str) -> Page | Problem | None:
    """Return what to answer instead: a redirect, garbage or a failure; None to answer the question."""
    if behaviour.redirect is not None:
        return Page(302, b"", "text/plain; charset=utf-8", {"location": behaviour.redirect})
    if behaviour.garbage is not None:
        content_type, body = _GARBAGE[behaviour.garbage]
        return Page(behaviour.status or 200, body, content_type, dialect.headers(request_id))
    answers_with_error = behaviour.error is not None or (behaviour.status or 200) >= 400
    breaks_later = behaviour.error_after is not None and question.stream and not behaviour.whole
    if breaks_later or not (answers_with_error or behaviour.error_after is not None):
        return None
    return scripted_problem(dialect, question, behaviour)


def scripted_problem(dialect: Dialect, question: Question, behaviour: Behaviour) -> Problem:
    """Phrase the failure that a behaviour asks for."""
    problem = dialect.problem(behaviour.status, behaviour.error, question.model)
    told_in_stream = problem.in_stream or "error_in_200" in behaviour.quirks
    retry_after = problem.retry_after if behaviour.retry_after is None else behaviour.retry_after
    return replace(
        problem,
        retry_after=retry_after,
        in_stream=told_in_stream and question.stream and not behaviour.whole,
        quirks=behaviour.quirks,
    )
