"""What the Messages API is asked beyond what every dialect is asked."""

from dataclasses import dataclass

from proxy.simulator.answers import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesQuestion(Question):
    """A question to the Messages API.

    `thinks`: the answer begins with a thinking block, whose text is left out unless it is `shown`.
    `place` digests the conversation, to which the block is bound. Of the prompt's tokens, `written`
    go into the cache and `read` come out of it.
    """

    thinks: bool = False
    shown: bool = True
    place: str = ""
    written: int = 0
    read: int = 0
