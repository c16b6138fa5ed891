"""A token bucket: so much per minute, all of it at once if it was left unused. Pure: time is an argument.

Source: the token bucket as traffic shaping knows it (ITU-T I.371, generic cell rate).
"""

MINUTE = 60.0
SOON = 0.001  # seconds; when nobody knows how long a wait will be


class Bucket:
    """What is left of a limit per minute.

    Fleets share a limit by leasing: then a bucket does not fill by itself (`leased`), but by what is granted.

    Args:
        per_minute: capacity; a call that wants more waits until the bucket is full, and takes it below 0.
    """

    __slots__ = ("_at", "_told", "capacity", "ceiling", "leased", "level", "pool", "rate", "ready_at", "used")

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity = self.ceiling = self.level = float(per_minute)  # of all, and what is ours of it
        self.rate = per_minute / MINUTE
        self.leased = False
        self.ready_at = now  # when more is expected to be granted, when leased
        self.pool = 0.0  # what others could still be granted, when leased
        self.used = 0.0  # taken since somebody last looked
        self._at = self._told = now

    def now(self, now: float) -> float:
        """What is left."""
        self.wait(0.0, now)
        return self.level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much can be taken; 0: now."""
        if not self.leased and self.level < self.ceiling:
            self.level = min(self.ceiling, self.level + max(0.0, now - self._at) * self.rate)
        self._at = now
        need = min(self.ceiling, amount)
        if self.level >= need:
            return 0.0
        return max(SOON, self.ready_at - now) if self.leased else (need - self.level) / self.rate

    def take(self, amount: float, now: float) -> float:
        """Take it, if it is there; else the seconds until it will be."""
        wait = self.wait(amount, now)
        if not wait:
            self.level -= amount
            self.used += amount
        return wait

    def give(self, amount: float, now: float) -> None:
        """Put back what was taken and not used; less than 0: take what was used and not taken."""
        self.wait(0.0, now)  # what has come back until now is not paid for what is used from now on
        self.level = max(-self.capacity, min(self.capacity, self.level + amount))  # an absurd usage is no debt for ever
        self.used -= amount

    def lease(self, level: float, now: float) -> None:
        """From now on, fill only by what is granted; `level` is what there is."""
        self.leased, self.level, self.ceiling = True, level, self.capacity
        self._at = self._told = now

    def believed(self, now: float) -> float:
        """What is left for all, as far as we can tell: others who stand alone have as much."""
        if not self.leased:
            return max(0.0, min(self.capacity, self.now(now) * self.capacity / self.ceiling))
        return max(0.0, min(self.capacity, self.level + self.pool + (now - self._told) * self.capacity / MINUTE))

    def stand_alone(self, part: float, now: float) -> None:
        """Fill by itself again: the others are out of reach, and a part of what there is and will be is ours."""
        self.leased, self.ceiling, self._at = False, part * self.capacity, now
        self.rate = self.ceiling / MINUTE
        self.level, self.pool = min(self.ceiling, self.level + part * self.pool), 0.0
