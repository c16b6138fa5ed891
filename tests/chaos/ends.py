"""Whether a call's end is explained: by an answer, by the caller itself, or by a fault that was in force then."""

from collections.abc import Iterable

from tests.chaos.nouns import Call, Complaint, Life, Story, Window
from tests.chaos.settings import ROUTES

AFTER_SECONDS = 6.0  # that a fault of an upstream may be felt after its end: open circuits, retry-after
FLEET_SECONDS = 12.0  # and longer, while Redis or the sidecar with the trial calls comes and goes
ENOUGH = 6  # good answers, after which every circuit has closed, also where the trial calls were another sidecar's
FLUSH_SECONDS = 1.0  # of access lines, before a kill
_HONEST = {  # statuses and codes that tell of upstreams' faults
    429: {"rate_limit_exceeded"},
    502: {"upstream_error", "upstream_bad_response", "upstream_unreachable", "upstream_disconnected"},
    503: {"overloaded", "circuit_open"},
    504: {"upstream_timeout"},
}

WHOLE, FAILED, BROKEN = "answered whole", "failed honestly", "a stream ended with an error event"
LIMITED, DEADLINE = "limited, as its caller is", "its own time was over"
CUT, REFUSED, TURNED_AWAY = "cut by a killed sidecar", "nobody listened", "not taken: the sidecar was stopping"
LEFT = "hung up by us"


def explain(call: Call, story: Story) -> tuple[str, str] | Complaint:
    """What kind of end it is, and by which fault it is explained, if it needs one."""
    if call.how == "whole":
        return (WHOLE, "") if call.request_id == call.ask.nonce else _complain(call, f"has the id {call.request_id!r}")
    if call.how == "left":
        return (LEFT, "") if call.ask.leaves else _complain(call, "we never meant to hang up")
    if call.how == "refused":
        life = next((life for life in _lives(call, story) if _absent(life, call, story)), None)
        return (REFUSED, f"{life.sidecar} was {life.how}") if life else _complain(call, "the sidecar was there")
    if call.how == "cut":
        return _explain_cut(call, story)
    if call.how in ("failed", "broken"):
        return _explain_failure(call, story)
    return _complain(call, "has no end" if call.how == "hung" else "got what is no answer")


def _complain(call: Call, text: str) -> Complaint:
    told = " ".join(str(each) for each in (call.status or "", call.code, call.detail) if each)
    seconds = call.ended - call.sent
    return Complaint(
        "ends", call.ask.nonce, f"{call.ask.model} at {call.sidecar}, {call.how} after {seconds:.2f} s: {text} ({told})"
    )


def _lives(call: Call, story: Story) -> Iterable[Life]:
    return (life for life in story.lives if life.sidecar == call.sidecar and life.how)


def _absent(life: Life, call: Call, story: Story) -> bool:
    """Whether between this life and the next there was nobody when the call wanted to connect."""
    later = [each.began for each in story.lives if each.sidecar == life.sidecar and each.began > life.began]
    return life.going <= call.ended and call.sent <= min(later, default=float("inf"))


def _explain_cut(call: Call, story: Story) -> tuple[str, str] | Complaint:
    for life in _lives(call, story):
        if life.how == "killed" and call.sent - FLUSH_SECONDS <= life.going <= call.ended + 0.1:
            return CUT, f"{life.sidecar} was killed"
        if life.how == "drained" and not call.status and life.going <= call.ended and call.sent <= life.ended + 0.1:
            return TURNED_AWAY, f"{life.sidecar} was drained"
    return _complain(call, "the connection broke, and the sidecar was not killed then")


def _explain_failure(call: Call, story: Story) -> tuple[str, str] | Complaint:
    if call.request_id != call.ask.nonce:
        return _complain(call, f"the error has the id {call.request_id!r}")
    if call.how == "failed" and call.code not in _HONEST.get(call.status, ()):
        return _complain(call, "this is not what an upstream's fault looks like")
    if call.how == "broken" and call.code not in set().union(*_HONEST.values()):
        return _complain(call, "this is not what an upstream's fault looks like")
    row = FAILED if call.how == "failed" else BROKEN
    if call.status == 429 and call.ask.tenant == "tight" and "a limit of your key" in call.detail:
        return LIMITED, ""
    if call.code == "upstream_timeout" and call.ask.timeout is not None:
        return DEADLINE, ""
    troubles = [_trouble(story, target, call) for target in ROUTES[call.ask.route]]
    of_all = call.how == "failed" and call.code != "upstream_timeout"  # it has tried, or passed by, every one of them
    if not (all(troubles) if of_all else any(troubles)):
        return _complain(call, "no fault was in force that explains it")
    return row, next(window.name for window in troubles if window is not None)


def _trouble(story: Story, target: str, call: Call) -> Window | None:
    """The last fault of this upstream that the call could feel: while it lasts, or by an open circuit."""
    begun = [each for each in story.windows if target in each.targets and each.began <= call.ended]
    if not begun:
        return None
    last = max(begun, key=lambda each: each.ended)
    forgotten = any(
        each.lane in ("redis", "sidecar") and each.touches(call.sent, call.ended, AFTER_SECONDS)
        for each in story.windows
    )
    if last.touches(call.sent, call.ended, AFTER_SECONDS + (FLEET_SECONDS if forgotten else 0.0)):
        return last
    return last if _good_answers(story, target, last.ended, call.sent) < ENOUGH else None


def _good_answers(story: Story, target: str, since: float, until: float) -> int:
    """How often the upstream has answered in this time: a circuit stays open until calls find that it is well."""
    return sum(
        each.how == "whole" and each.upstream == target and bool(each.attempts)
        for each in story.calls
        if since <= each.sent and each.ended <= until
    )
