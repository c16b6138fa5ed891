"""Whether access lines agree with what callers saw: one for each call, and no other."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.chaos.ends import (
    BROKEN,
    CUT,
    DEADLINE,
    FAILED,
    FLUSH_SECONDS,
    LEFT,
    LIMITED,
    REFUSED,
    TURNED_AWAY,
    WHOLE,
)
from tests.chaos.nouns import Call, Complaint, Execution, Life, Story

EARLY_SECONDS = 0.6  # a caller that leaves so soon may have left before its call was taken: the sidecar was busy
LATE_SECONDS = 0.6  # between a caller's leaving, and the sidecar's hearing of it
RENEWAL = "-renewal"

Line = Mapping[str, Any]
Lines = Mapping[str, Sequence[tuple[Life, Line]]]
_OUTCOMES = {
    WHOLE: {"ok"},
    FAILED: {"upstream_error"},
    BROKEN: {"cut", "upstream_error"},
    LIMITED: {"limited"},
    DEADLINE: {"upstream_error", "cut"},
}


def by_id(story: Story) -> Lines:
    """The lines of all lives by their request ids."""
    found: dict[str, list[tuple[Life, Line]]] = defaultdict(list)
    for life in story.lives:
        for line in life.lines:
            found[line["request_id"]].append((life, line))
    return found


def judge_line(call: Call, row: str, lines: Lines, story: Story) -> Iterator[Complaint]:
    """The line of a call whose end is of this kind."""
    found = lines.get(call.ask.nonce, ())
    if len(found) > 1:
        yield _complain(call, f"has {len(found)} lines: {[line['outcome'] for _, line in found]}")
    if row in (REFUSED, TURNED_AWAY):
        if found:
            yield _complain(call, f"{row}, and there is a line: {found[0][1]['outcome']}")
    elif not found:
        if not _may_lack(call, row, story):
            yield _complain(call, f"{row}, and there is no line")
    elif row == LEFT:
        yield from _judge_left(call, found[0][1])
    elif row != CUT:
        yield from _judge_told(call, row, found[0][1])


def _may_lack(call: Call, row: str, story: Story) -> bool:
    """Whether the line may be missing: it died with its process, or the call was never taken."""
    if row == CUT or (row == LEFT and call.ended - call.sent < EARLY_SECONDS):
        return True
    return any(
        life.how == "killed" and life.sidecar == call.sidecar and call.sent <= life.going < call.ended + FLUSH_SECONDS
        for life in story.lives
    )  # fmt: skip


def _judge_left(call: Call, line: Line) -> Iterator[Complaint]:
    if line["outcome"] != "hangup" and line["ended"] > call.ended + LATE_SECONDS:
        after = line["ended"] - call.ended
        yield _complain(call, f"we hung up, and {after:.2f} s later it ended as {line['outcome']}")


def _judge_told(call: Call, row: str, line: Line) -> Iterator[Complaint]:
    if line["outcome"] not in _OUTCOMES[row]:
        yield _complain(call, f"{row}, and the line says {line['outcome']} ({line['reason']})")
    if line["status"] != call.status:
        yield _complain(call, f"status {call.status}, and the line says {line['status']}")
    if line["caller"] != call.ask.tenant:
        yield _complain(call, f"of {call.ask.tenant}, and the line says {line['caller']}")
    if call.attempts is not None and call.attempts != line["attempts"]:
        yield _complain(call, f"{call.attempts} attempts, and the line says {line['attempts']}")
    for name in ("cache", "upstream"):
        told = getattr(call, name)
        if told and told != line[name]:
            yield _complain(call, f"{name} {told}, and the line says {line[name]}")
    asked = line["cache"] in ("miss", "bypass") and row == WHOLE
    if asked and call.completion_tokens is not None and call.completion_tokens != line["completion_tokens"]:
        yield _complain(call, f"{call.completion_tokens} tokens, and the line says {line['completion_tokens']}")


def judge_strangers(story: Story, lines: Lines) -> Iterator[Complaint]:
    """Lines of calls that nobody has made, and those that say that we are at fault."""
    known = Counter(call.ask.nonce for call in story.calls)
    for name, found in lines.items():
        if name.removesuffix(RENEWAL) not in known:
            yield Complaint("lines", name, f"nobody has made this call: {found[0][1]['outcome']}")
        for _, line in found:
            if line["outcome"] == "proxy_error":
                yield Complaint("lines", name, f"proxy_error: {line['reason']}")


def judge_executions(story: Story, lines: Lines) -> Iterator[Complaint]:
    """No upstream has answered a call more often than it was asked to, and none that was not made."""
    made, calls = defaultdict(list), {call.ask.nonce: call for call in story.calls}
    for execution in story.executions:
        made[execution.nonce].append(execution)
    for nonce, executions in made.items():
        call = calls.get(nonce)
        if call is None or any(each.made_for != f"{call.ask.tenant}/{nonce}" for each in executions):
            yield Complaint("executions", nonce, f"an upstream was asked for {executions[0].made_for}")
            continue
        told = [*lines.get(nonce, ()), *lines.get(nonce + RENEWAL, ())]
        asked = sum(line["attempts"] for _, line in told)
        broken = [each for each in executions if _broken(story, each)]
        again = sent_again(executions, asked) if told else 0
        if again > len(broken):
            yield Complaint("executions", nonce, f"{asked} attempts, and upstreams were asked {len(executions)} times")
        whole = [each for each in executions if each.how == "whole"]
        lossy = call.ask.route == "hedged" or any(each in broken for each in whole)
        if len(whole) > 1 + len(lines.get(nonce + RENEWAL, ())) and not lossy:
            yield Complaint("executions", nonce, f"{len(whole)} whole answers were made for it")


def sent_again(executions: Sequence[Execution], attempts: int) -> int:
    """Requests whose kept-alive connection broke before a byte of an answer, and that went out once more."""
    return max(0, len(executions) - attempts)


def _broken(story: Story, execution: Execution) -> bool:
    """Whether its answer may have been lost on the way, or have come too late."""
    words = ("wire", "killed", "frozen")
    return execution.how == "aborted" or any(
        execution.upstream in each.targets
        and any(word in each.name for word in words)
        and each.touches(execution.began, execution.ended, 0.5)
        for each in story.windows
    )


def _complain(call: Call, text: str) -> Complaint:
    return Complaint("lines", call.ask.nonce, f"{call.ask.model} at {call.sidecar}: {text}")
