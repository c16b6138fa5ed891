"""Judge raw prompts, sent to the native endpoints or to /v1/completions, and reduce them to questions."""

from collections.abc import Mapping
from typing import Any

from proxy.simulator.answers import Question, Turn
from proxy.simulator.dialect import Body
from proxy.simulator.tgi.checks import (
    Check,
    boolean,
    decode,
    grammar,
    invalid,
    mapping,
    needed,
    number,
    sequence,
    text,
    undecodable,
    unsigned,
)
from proxy.simulator.tgi.question import Prompted

_PICTURE = "![]("  # pictures are markdown within the prompt
_FLAGS = ("do_sample", "watermark", "details", "decoder_input_details")
_PARAMETERS: Mapping[str, Check] = {
    "best_of": unsigned,
    "temperature": number,
    "repetition_penalty": number,
    "frequency_penalty": number,
    "top_k": number,
    "top_p": number,
    "typical_p": number,
    "do_sample": boolean,
    "max_new_tokens": unsigned,
    "return_full_text": boolean,
    "stop": sequence(text),
    "truncate": unsigned,
    "watermark": boolean,
    "details": boolean,
    "decoder_input_details": boolean,
    "seed": unsigned,
    "top_n_tokens": unsigned,
    "grammar": grammar,
    "adapter_id": text,
}


def read_generate(path: str, body: Body) -> tuple[Prompted, Body]:
    """Decode a native request; the path says whether to stream, and where it is "/" the body does.

    Returns:
        The question, and its parameters without nulls.

    Source: text-generation-inference, router/src/lib.rs, GenerateRequest and GenerateParameters.
    """
    needed("", body, "inputs")
    text("inputs", body["inputs"])
    if path == "/":
        boolean("stream", body.get("stream", False))
    sent = body.get("parameters", {})
    mapping("parameters", sent)
    known: Mapping[str, Check] = {name: _below(check) for name, check in _PARAMETERS.items()}
    parameters = decode(sent, known, never_null=frozenset({*_FLAGS, "stop"}))
    form = parameters.get("grammar")
    question = Prompted(
        model=path,
        adapter=parameters.get("adapter_id", "tgi"),
        turns=(Turn("user", body["inputs"]),),
        images=body["inputs"].count(_PICTURE),
        prompt=body["inputs"],
        max_tokens=parameters.get("max_new_tokens"),
        stops=tuple(parameters.get("stop", ())),
        seed=parameters.get("seed"),
        stream=path == "/generate_stream" or (path == "/" and body.get("stream", False)),
        json_schema=form["value"] if form and form["type"] != "regex" else None,
        details=parameters.get("details", False),
        prefill=parameters.get("decoder_input_details", False),
        full_text=parameters.get("return_full_text", False),
        top_n_tokens=parameters.get("top_n_tokens", 0),
    )
    return question, parameters


def check_generate(question: Prompted, parameters: Body) -> None:
    """Validate what only native requests have; in a stream this comes too late for a status.

    Source: text-generation-inference, router/src/validation.rs, Validation::validate.
    """
    best_of = parameters.get("best_of", 1)
    if question.stream and best_of != 1:
        raise invalid("`best_of` != 1 is not supported when streaming tokens")
    if question.stream and question.prefill:
        raise invalid("`decoder_input_details` == true is not supported when streaming tokens")
    if best_of > 1 and "seed" in parameters:
        raise invalid("`seed` must not be set when `best_of` > 1")
    if not question.prompt:
        raise invalid("`inputs` cannot be empty")


def _below(check: Check) -> Check:
    def check_below(path: str, value: Any) -> None:
        check(f"parameters.{path}", value)

    return check_below


_FIELDS: Mapping[str, Check] = {
    "model": text,
    "max_tokens": unsigned,
    "temperature": number,
    "top_p": number,
    "seed": unsigned,
    "suffix": text,
    "stream": boolean,
    "stream_options": mapping,
    "stop": sequence(text),
    "repetition_penalty": number,
    "frequency_penalty": number,
}


def read_completion(body: Body) -> tuple[Question, Body]:
    """Decode a request of the legacy OpenAI kind: one prompt or several, each with its own choice.

    Source: text-generation-inference, router/src/lib.rs, CompletionRequest; server.rs, completions.
    """
    needed("", body, "prompt")
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    if not prompts or not all(isinstance(each, str) for each in prompts):
        raise undecodable("prompt", "data did not match any variant of untagged enum Prompt")
    request = decode(body, _FIELDS, never_null=frozenset({"stream"}))
    if "suffix" in request:
        raise invalid("Suffix is not supported and can be achieved by preprocessing the prompt.")
    question = Question(
        model=request.get("model", "tgi"),
        turns=tuple(Turn("user", each) for each in prompts),
        prompts=tuple(prompts),
        max_tokens=request.get("max_tokens"),
        stops=tuple(request.get("stop", ())),
        seed=request.get("seed"),
        stream=request.get("stream", False),
        include_usage=bool(request.get("stream_options", {}).get("include_usage", False)),
    )
    renamed = {"max_tokens": "max_new_tokens"}
    return question, {renamed.get(name, name): value for name, value in request.items()}
