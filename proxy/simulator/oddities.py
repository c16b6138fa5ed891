"""What a behaviour's quirks do to a stream, whatever its dialect."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from proxy.simulator.behaviour import Behaviour
from proxy.simulator.dialect import Frame


def bend(frames: Iterable[Frame], behaviour: Behaviour) -> Iterator[Frame]:
    """Leave out, repeat or add events at the end of a stream; the last frame is the terminal event."""
    quirks = behaviour.quirks
    held: Frame | None = None
    said: Frame | None = None
    for frame in frames:
        if frame.stage == "closing" and "silent_end" in quirks:
            break
        if held is not None:
            yield held
        said = frame if frame.stage == "content" else said
        held = frame
    ending = list(_end(held, said, behaviour))
    if ending and "no_final_blank" in quirks:
        ending[-1] = replace(ending[-1], unfinished=True)
    yield from ending


def _end(last: Frame | None, said: Frame | None, behaviour: Behaviour) -> Iterator[Frame]:
    quirks = behaviour.quirks
    if last is None:
        return
    if last.stage != "closing" or "no_done" not in quirks:
        yield last
    if last.stage == "closing" and "duplicate_done" in quirks:
        yield last
    if said is not None and "after_done" in quirks:
        yield replace(said, stage="closing")
