"""What agent frameworks send: strict tools by default, and the model's own mistakes in the history."""

import json

import pytest

from proxy.errors import InvalidRequest
from tests.providers.test_matrix import sent

STRICT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("model", "lost"), [("claude-sonnet-4-5", "tools:minimum"), ("claude-3-5-haiku", "tools:strict")]
)
def test_strict_tools_that_claude_can_be_held_to(model: str, lost: str) -> None:
    """A strict tool's schema is cleaned as an answer's is; an older model's tool is not strict, and says so."""
    tool = {"type": "function", "function": {"name": "t", "strict": True, "parameters": STRICT}}
    request = sent("anthropic", model=model, tools=[tool])
    assert request.dropped == (lost,)
    (made,) = json.loads(request.body)["tools"]
    assert made.get("strict", False) == ("minimum" not in str(made["input_schema"]))


@pytest.mark.parametrize(
    ("column", "taken"), [("vllm", True), ("huggingface", True), ("tgi", True), ("anthropic", False)]
)
def test_arguments_that_the_model_broke_off(column: str, taken: bool) -> None:
    """Where arguments are a text they go back as they came, so that the model can mend them."""
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"city": "K'}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": []},
    ]
    if not taken:
        with pytest.raises(InvalidRequest):
            sent(column, messages=messages)
        return
    body = json.loads(sent(column, messages=messages).body)
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"city": "K'
    assert body["messages"][2]["content"] == ""
