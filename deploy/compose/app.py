"""Where your application goes: a stand-in that asks something every few seconds, so that the dashboard moves.

It knows one thing of Octet, the base URL in OPENAI_BASE_URL, which the OpenAI SDKs read by themselves. This stand-in
does without an SDK, so that it runs in any image that has Python.
"""

import http.client
import itertools
import json
import os
import random
import signal
import sys
import time
from urllib.parse import urlsplit

BASE = urlsplit(os.environ["OPENAI_BASE_URL"])
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "2"))
MODELS = ("gpt-4o-mini", "claude-haiku-4-5", "demo")


def main() -> None:
    """Ask for ever; ends with the sidecar, and is then started anew beside the new one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for model, is_streamed in itertools.cycle(itertools.product(MODELS, (True, False))):
        question = f"What is there to know about the number {random.randrange(20)}?"  # noqa: S311  # no secret
        try:
            answer = ask(model, question, is_streamed)
        except http.client.HTTPException as error:
            answer = f"no answer: {error!r}"
        sys.stdout.write(f"{model}{' (streamed)' if is_streamed else ''}: {answer}\n")
        sys.stdout.flush()
        time.sleep(PAUSE_SECONDS)


def ask(model: str, question: str, is_streamed: bool) -> str:
    """The answer, or what went wrong."""
    connection = http.client.HTTPConnection(BASE.hostname or "", BASE.port, timeout=60)
    body = {"model": model, "stream": is_streamed, "messages": [{"role": "user", "content": question}]}
    connection.request("POST", f"{BASE.path}/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != http.client.OK:
        return f"{response.status} {response.read().decode()}"
    return "".join(pieces(response)) if is_streamed else str(json.load(response)["choices"][0]["message"]["content"])


def pieces(response: http.client.HTTPResponse) -> list[str]:
    """The words of a stream that has come to its end."""
    found: list[str] = []
    for line in response:
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return found
        if line.startswith(b"data:"):
            event = json.loads(data)
            if "error" in event:
                raise http.client.HTTPException(event["error"]["message"])
            found += [choice["delta"].get("content") or "" for choice in event["choices"]]
    raise http.client.HTTPException("the stream broke")


if __name__ == "__main__":
    main()
