"""The golden cases as what is spoilt: their requests, answers, streams and errors."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from proxy.admission.parsing import parse
from proxy.call import Call, Caller, Operation
from proxy.config.load import build
from proxy.config.source import Document
from proxy.providers import providers, traits
from proxy.providers.seam import Provider, Target

_FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "golden").glob("*/*/case.json"))


class Golden:
    """One case: a request, its target, and what came back."""

    def __init__(self, folder: Path) -> None:
        about = json.loads(folder.joinpath("case.json").read_bytes())
        replies = list(folder.glob("upstream_reply.*"))
        self.name = f"{folder.parent.name}/{folder.name}"
        self.dialect = folder.parent.name
        self.request = folder.joinpath("request.json").read_bytes()
        self.reply = replies[0].read_bytes() if replies else b""
        self.suffix = replies[0].suffix if replies else ""
        self.status: int = about.get("reply_status", 200)
        self.headers: dict[str, str] = about.get("reply_headers", {})
        self.operation: Operation = about.get("operation", "chat")
        self.fails = folder.joinpath("error.json").exists()
        self._about = about

    def __repr__(self) -> str:
        return self.name

    @property
    def provider(self) -> Provider:
        return providers()[self.dialect]

    @property
    def settings(self) -> dict[str, Any]:
        """The provider's own."""
        found: dict[str, Any] = self._about["upstream"].get("settings", {})
        return found

    @property
    def is_streamed(self) -> bool:
        """Whether a stream was asked for and came."""
        return self.status == 200 and self.suffix in (".sse", ".ndjson", ".txt") and self.call().stream

    @cache  # noqa: B019  # there are as many as there are folders
    def call(self) -> Call:
        return call_of(self.request, self.operation)

    @cache  # noqa: B019
    def target(self) -> Target:
        upstream = {"provider": self.dialect, "base_url": "http://upstream.example", **self._about["upstream"]}
        config = build(Document("case.json", {"upstreams": {"up": upstream}}), traits())
        return Target("up", config.upstreams["up"], self._about.get("target_model", self.call().model))


def call_of(body: bytes, operation: Operation = "chat") -> Call:
    """A body as a call; raises CallerError."""
    return parse(body, operation=operation, caller=Caller(), headers={}, call_id="fuzz", received_at=1795000000.0)


GOLDENS = tuple(map(Golden, _FOLDERS))
# Some are refused before they have a target.
ANSWERED = tuple(golden for golden in GOLDENS if golden.suffix)
STREAMS = tuple(golden for golden in ANSWERED if golden.is_streamed)
WHOLE = tuple(golden for golden in ANSWERED if golden.status == 200 and golden.suffix == ".json" and not golden.fails)
ERRORS = tuple(golden for golden in ANSWERED if golden.status != 200)
REQUESTS = {
    operation: sorted({golden.request.decode() for golden in GOLDENS if golden.operation == operation})
    for operation in ("chat", "completions", "embeddings")
}
