"""TGI's native /generate: the prompt rendered here, its parameters and its answers.

Source: huggingface/text-generation-inference, docs/openapi.json; reference/upstreams.md §9.3, §9.4.
"""

from collections.abc import Iterator, Mapping

from proxy.call import Call, Json
from proxy.errors import Broken, CutShort, UpstreamError
from proxy.framing import SseFrames, sse_data
from proxy.openai_format import chunks
from proxy.openai_format.encoding import decode
from proxy.openai_format.errors import ErrorFacts, classify, read_error, read_object
from proxy.openai_format.parameters import DROP, EMULATE, MAP, PASS, REJECT
from proxy.openai_format.request import ChatRequest
from proxy.providers.template.prompt import Prompt
from proxy.providers.tgi.chat import COLUMN as CHAT
from proxy.providers.tgi.chat import fit_sampling, response_grammar, with_patience

EXTRAS = ("top_k", "typical_p", "repetition_penalty", "watermark", "truncate")

COLUMN = CHAT.but(
    {
        "developer role": (MAP, "in the prompt"),
        "image data:": (MAP, "markdown in the prompt"),
        "image https:": (MAP, "markdown in the prompt"),
        "tools": REJECT,
        "tool_choice none": (EMULATE, "tools left out"),
        "tool_choice required": REJECT,
        "tool_choice named": REJECT,
        "tool_choice allowed_tools": REJECT,
        "json_object": (MAP, "grammar"),
        "json_schema": (MAP, "grammar"),
        "temperature": (MAP, "0: do_sample false"),
        "max_completion_tokens": (MAP, "max_new_tokens"),
        "max_tokens": (MAP, "max_new_tokens"),
        "logprobs": (EMULATE, "details are always asked for"),
        "top_logprobs": (MAP, "top_n_tokens"),
        "include_usage": EMULATE,
        "functions": REJECT,
        "parallel_tool_calls": DROP,
        "frequency_penalty": PASS,
    },
    extras=EXTRAS,
    in_messages=(),
)
_STATUS = {
    "validation": 422,
    "template_error": 422,
    "tool_error": 422,
    "generation": 424,
    "overloaded": 429,
    "incomplete_generation": 500,
    "request_error": 500,
    "healthcheck": 503,
}
_LENGTH = "length"


def build_body(request: ChatRequest, prompt: Prompt, default_max_tokens: int, *, stream: bool) -> Json:
    """The body for /generate or /generate_stream."""
    fields = request.fields
    parameters: Json = {
        "details": True,
        "max_new_tokens": request.max_tokens or default_max_tokens,
        "return_full_text": False,
    }
    if not stream:
        parameters["decoder_input_details"] = True
    parameters |= {name: fields[name] for name in ("top_p", "seed", "frequency_penalty", *EXTRAS) if name in fields}
    fit_sampling(parameters)
    temperature = fields.get("temperature")
    if temperature is not None:
        parameters["do_sample"] = temperature > 0
        if temperature > 0:
            parameters["temperature"] = temperature
    if request.stop:
        parameters["stop"] = list(request.stop)
    if "top_logprobs" in fields:
        parameters["top_n_tokens"] = fields["top_logprobs"]
    grammar = response_grammar(request)
    if grammar is not None:
        parameters["grammar"] = grammar
    return {"inputs": prompt.render(request, images=True), "parameters": parameters}


def read_failure(status: int, body: bytes, retry_after: float | None = None) -> UpstreamError:
    """An error of TGI's that came with a status of its own."""
    return with_patience(classify(status, read_error(body), retry_after))


def _read(payload: bytes) -> Json:
    """A JSON object; TGI's own errors come inside 200 answers too."""
    try:
        value = decode(payload)
    except ValueError:
        value = None
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict) and isinstance(value.get("error"), str):
        known = _STATUS.get(value.get("error_type") or "", 500)
        raise with_patience(classify(known, ErrorFacts(value["error"], structured=True)))
    return value if isinstance(value, dict) else read_object(payload)


def read_generation(call: Call, headers: Mapping[str, str], body: bytes, *, logprobs: bool) -> Json:
    """A whole answer as a completion."""
    answer = _read(body)
    text, details = answer.get("generated_text"), answer.get("details") or {}
    if not isinstance(text, str):
        raise Broken("the upstream's answer is no generated text", code="upstream_bad_response")
    counts = _usage(details, headers)
    whole = chunks.completion(
        f"chatcmpl-{call.id}", int(call.received_at), call.model, {"content": text}, _reason(details), counts
    )
    if logprobs and details.get("tokens"):
        content = [_logprob(token, top) for token, top in _with_top(details)]
        whole["choices"][0]["logprobs"] = {"content": content, "refusal": None}
    return whole


def _reason(details: Json) -> str:
    return _LENGTH if details.get("finish_reason") == _LENGTH else "stop"


def _usage(details: Json, headers: Mapping[str, str]) -> Json | None:
    generated = details.get("generated_tokens")
    if not isinstance(generated, int):
        return None
    prompt = details.get("input_length")
    if not isinstance(prompt, int):
        prefill = details.get("prefill")
        prompt = len(prefill) if isinstance(prefill, list) and prefill else None
    if prompt is None:
        told = headers.get("x-prompt-tokens", "")
        prompt = int(told) if told.isdigit() else 0
    return chunks.usage(prompt, generated)


def _with_top(details: Json) -> Iterator[tuple[Json, list[Json]]]:
    tops = details.get("top_tokens") or []
    for index, token in enumerate(details["tokens"]):
        if not token.get("special"):
            yield token, tops[index] if index < len(tops) else []


def _logprob(token: Json, top: list[Json]) -> Json:
    return {**_entry(token), "top_logprobs": [_entry(each) for each in top]}


def _entry(token: Json) -> Json:
    text = token.get("text") or ""
    return {"token": text, "logprob": token.get("logprob"), "bytes": list(text.encode())}


class GenerateStream:
    """One answer of /generate_stream; see `StreamParser`. It has no [DONE]: the last event holds the whole text."""

    thinking = plain = False
    begun = None

    def __init__(self, call: Call, headers: Mapping[str, str], max_frame_bytes: int, *, logprobs: bool) -> None:
        self._frames = SseFrames(max_frame_bytes)
        self._build = chunks.ChunkBuilder(f"chatcmpl-{call.id}", int(call.received_at), call.model)
        self._headers = headers
        self._logprobs = logprobs
        self._begun = False
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Json]:
        for frame in self._frames.feed(data):
            yield from self._frame(frame)

    def finish(self) -> Iterator[Json]:
        yield from self._frame(self._frames.flush())
        if not self.ended:
            raise CutShort("the upstream ended its answer early")

    def _frame(self, frame: bytes) -> Iterator[Json]:
        for payload in sse_data(frame):
            if payload.strip() and not payload.startswith(b"[DONE]") and not self.ended:
                yield from self._event(_read(payload))

    def _event(self, event: Json) -> Iterator[Json]:
        token = event.get("token") or {}
        if not self._begun:
            self._begun = True
            yield self._build.delta(chunks.ROLE)
        if token.get("text") and not token.get("special"):
            extra: Json = {}
            if self._logprobs:
                entry = _logprob(token, event.get("top_tokens") or [])
                extra = {"logprobs": {"content": [entry], "refusal": None}}
            yield self._build.delta({"content": token["text"]}, **extra)
        if event.get("generated_text") is not None:
            self.ended = True
            details = event.get("details") or {}
            yield self._build.finish(_reason(details))
            counts = _usage(details, self._headers)
            if counts:
                yield self._build.usage(counts)
