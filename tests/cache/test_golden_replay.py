"""Every golden answer of all dialects, kept and told again: what a replay says is what a live answer says."""

import itertools
import json
from functools import cache
from typing import Any

import pytest

from proxy.call import Json
from proxy.framing import SseFrames, sse_data
from proxy.openai_format.chunks import collect
from proxy.openai_format.transcript import Form, Retelling, Transcript, tell
from proxy.providers.relay import Relay, open_relay, read_completion
from tests.providers.test_golden import Case, asking_for_usage, each

STREAMED = each(when="(case.has('chunks.jsonl') or case.has('caller.sse')) and not case.has('error.json')")
TOLD_WHOLE = each(
    when="(case.has('completion.json') or case.has('caller.json')) and case.about.get('operation') != 'embeddings'"
)
Pieces = list[tuple[bytes, bytes]]  # what a relay gave, and what was known of usage by then


def frames_of(data: bytes) -> list[bytes]:
    frames = SseFrames(len(data) + 1)
    found = [*frames.feed(data), frames.flush()]
    return [frame for frame in found if frame]


def relay_for(case: Case, *, usage: bool) -> Relay:
    call = asking_for_usage(case.call()) if usage else without_usage(case)
    return open_relay(case.provider, call, case.target(call), case.headers)


def without_usage(case: Case) -> Any:
    call = asking_for_usage(case.call())
    return type(call)(**{name: getattr(call, name) for name in call.__struct_fields__} | {"wants_usage": False})


@cache
def run(case: Case, *, usage: bool) -> tuple[Transcript, Pieces]:
    """What one caller got live: as it would be kept, and frame by frame."""
    assert case.reply is not None
    relay = relay_for(case, usage=usage)
    pieces: Pieces = []
    for frame in frames_of(case.reply):
        out = relay.feed(frame)
        if relay.facts.finished:
            break
        pieces.append((out, relay.usage_event))
    else:
        out = b""
    pieces.append((out + relay.finish(), relay.usage_event))
    assert relay.failure is None
    return Transcript(None, b"".join(out for out, _ in pieces), relay.usage_event, usage, relay.encoded), pieces


def is_chat(case: Case) -> bool:
    return str(case.about.get("operation")) != "completions"


def form(usage: bool) -> Form:
    return "events_usage" if usage else "events"


def payloads(events: bytes) -> list[Json]:
    found = [payload for frame in frames_of(events) for payload in sse_data(frame)]
    assert found.pop().startswith(b"[DONE]")
    return [json.loads(payload) for payload in found]


def assembled(chunks: list[Json]) -> Any:
    """What a client makes of a stream: texts and arguments joined, by choice; the reasons; the usage."""
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for part in chunk.get("choices") or ():
            delta = part.get("delta") or {}
            choice = choices.setdefault(part["index"], {"finish_reason": None, "tools": {}})
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            for name in ("content", "reasoning", "reasoning_content", "refusal"):
                choice[name] = choice.get(name, "") + (delta.get(name) or "")
            choice["text"] = choice.get("text", "") + (part.get("text") or "")
            for piece in delta.get("tool_calls") or ():
                tool = choice["tools"].setdefault(piece["index"], ["", "", ""])
                function = piece.get("function") or piece.get("custom") or {}
                tool[0] = tool[0] or piece.get("id") or ""
                tool[1] = tool[1] or function.get("name") or ""
                tool[2] += function.get("arguments") or function.get("input") or ""
            old = delta.get("function_call") or {}
            if old:
                tool = choice["tools"].setdefault(0, ["", "", ""])
                tool[1], tool[2] = tool[1] or old.get("name") or "", tool[2] + (old.get("arguments") or "")
            audio = delta.get("audio") or {}
            choice["heard"] = choice.get("heard", "") + (audio.get("transcript") or "")
            logprobs = part.get("logprobs") or {}
            choice["logprobs"] = choice.get("logprobs", []) + (logprobs.get("content") or logprobs.get("tokens") or [])
    return choices, usage


def taken_apart(whole: Json) -> Any:
    """The same of a whole answer: each choice as if it were one chunk."""
    parts = []
    for choice in whole["choices"]:
        message = choice.get("message") or {}
        calls = [{"index": place, **call} for place, call in enumerate(message.get("tool_calls") or ())]
        parts.append({**choice, "delta": {**message, "tool_calls": calls}})
    return assembled([{"choices": parts, "usage": whole.get("usage")}])


@STREAMED
@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_told_with_or_without_usage(case: Case, usage: bool) -> None:
    """What was live for one caller is, told to the other kind, byte for byte what that one would have got live."""
    kept, live = run(case, usage=usage)[0], run(case, usage=not usage)[0]
    assert tell(kept, form(usage), chat=is_chat(case)) == kept.events
    assert tell(kept, form(not usage), chat=is_chat(case)) == live.events


@STREAMED
@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_told_piece_by_piece(case: Case, usage: bool) -> None:
    """A caller who joined in flight gets the same, as each piece comes, with what is known of usage by then."""
    told, pieces = run(case, usage=usage)
    retelling = Retelling(Transcript(None, b"", b"", usage, told.encoded), wants_usage=not usage)
    out = b"".join(retelling.piece(*piece) for piece in pieces[:-1]) + retelling.last(*pieces[-1])
    assert out == run(case, usage=not usage)[0].events


@STREAMED
@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_cut_anywhere_between_events(case: Case, usage: bool) -> None:
    """Any two cuts between events give what the whole gives."""
    told = run(case, usage=usage)[0]
    events = frames_of(told.events)
    whole = Retelling(told, wants_usage=not usage).all(told.events)
    places = range(len(events))
    cuts = list(itertools.combinations(places, 2)) if len(events) < 12 else [(1, 3), (2, len(events) - 2)]
    for one, other in cuts:
        retelling = Retelling(told, wants_usage=not usage)
        first, second, last = (b"".join(part) for part in (events[:one], events[one:other], events[other:]))
        assert retelling.piece(first) + retelling.piece(second) + retelling.last(last) == whole


@STREAMED
@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_a_stream_told_whole(case: Case, usage: bool) -> None:
    """A JSON caller gets the message, the reasons and the usage that the stream amounts to."""
    kept = run(case, usage=usage)[0]
    whole = json.loads(tell(kept, "whole", chat=is_chat(case)))
    chunks = payloads(run(case, usage=True)[0].events)
    assert taken_apart(whole) == assembled(chunks)
    if is_chat(case):
        assert whole["object"] == "chat.completion"


@each(when="case.has('chunks.jsonl') and not case.has('error.json') and not case.about.get('merge_text')")
def test_a_stream_told_whole_is_its_collection(case: Case) -> None:
    """To the last member, where the chunks are known."""
    lines = case.folder.joinpath("chunks.jsonl").read_text().splitlines()
    told = tell(run(case, usage=False)[0], "whole", chat=True)
    assert json.loads(told) == collect(map(json.loads, lines))


def bare(value: Any) -> Any:
    """Without what is null, empty, or nothing: streams do not say it."""
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if each not in (None, "", [], {})}
    return [bare(each) for each in value] if isinstance(value, list) else value


@TOLD_WHOLE
@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without"])
def test_a_whole_answer_streamed(case: Case, usage: bool) -> None:
    """The stream of a JSON answer is a good one, and gathered again it says the same, id and created included."""
    assert case.reply is not None
    call = case.call()
    body, _ = read_completion(case.provider, call, case.target(call), case.headers, case.reply)
    whole = json.loads(body)
    events = tell(Transcript(whole=body), form(usage), chat=is_chat(case))
    chunks = payloads(events)
    wanted = whole if usage else {name: value for name, value in whole.items() if name != "usage"}
    assert assembled(chunks) == taken_apart(wanted)
    assert {chunk["id"] for chunk in chunks} == {whole["id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk" if is_chat(case) else "text_completion"}
    assert all(("usage" in chunk) is usage for chunk in chunks)
    assert [not chunk["choices"] for chunk in chunks].count(True) == (usage and bool(whole.get("usage")))
    back = json.loads(tell(Transcript(events=events, shows_usage=usage), "whole", chat=is_chat(case)))
    assert bare(back) == bare(wanted)


@TOLD_WHOLE
def test_a_whole_answer_told_whole(case: Case) -> None:
    """To the byte."""
    call = case.call()
    body, _ = read_completion(case.provider, call, case.target(call), case.headers, case.reply or b"")
    assert tell(Transcript(whole=body), "whole", chat=is_chat(case)) is body
