"""Those who read the events of a stream."""

from collections.abc import Callable

from proxy.cache.reader import Reader


class Audience:
    """Readers of one stream, told all at once."""

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self._direct: list[Callable[[bytes], object]] = []  # where events framed as HTTP's chunks go as they are
        self._told: list[Reader] = []  # the others

    def add(self, reader: Reader) -> None:
        self.readers.append(reader)
        self.sort()

    def remove(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
            self.sort()

    def sort(self) -> None:
        """Somebody reads in another way than before."""
        self._direct, self._told = [], []
        for reader in self.readers:
            write = reader.write
            if write is not None:
                self._direct.append(write)
            else:
                self._told.append(reader)

    @property
    def all_paused(self) -> bool:
        """Whether nobody can take more."""
        return all(reader.paused for reader in self.readers)

    def tell_framed(self, framed: bytes, events: bytes, usage_event: bytes) -> None:
        """Tell events that stand in one of HTTP's chunks."""
        told = list(self._told)  # whoever is full of it will be one of them
        for write in self._direct:
            try:
                write(framed)
            except RuntimeError:  # has gone, and is about to leave
                continue
        for reader in told:
            reader.push(events, usage_event)

    def tell(self, events: bytes, usage_event: bytes) -> None:
        for reader in list(self.readers):
            reader.push(events, usage_event)

    def tell_last(self, events: bytes, usage_event: bytes) -> None:
        for reader in list(self.readers):
            reader.push_last(events, usage_event)
