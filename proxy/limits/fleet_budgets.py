"""What a fleet of sidecars has spent together: each tells Redis of its own, behind the calls' backs.

What is told is numbered: telling it twice counts once. While Redis is away each process goes by what it knows, and
tells the rest later. A fleet may spend above a budget what it spends in a second, and with calls in flight.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from proxy.limits.budgets import PERIODS, Spending
from proxy.shared_state import Errand, SharedState

EVERY_SECONDS = 0.5

# KEYS: one caller's or route's. ARGV: channel, process; day, month, what was spent in them, and the number under which
# it is told ("": nothing is). A process's last number is kept as long as it may be told again.
SCRIPT = """
local key, me, day, month, number = KEYS[1], ARGV[2], 'day:' .. ARGV[3], 'month:' .. ARGV[4], ARGV[6]
local now = tonumber(redis.call('TIME')[1])
local mine = 'told:' .. me
if number ~= '' then
  local last = string.match(redis.call('HGET', key, mine) or '', '^(%S+)')
  if last ~= number then
    redis.call('HINCRBYFLOAT', key, day, ARGV[5])
    redis.call('HINCRBYFLOAT', key, month, ARGV[5])
  end
  redis.call('HSET', key, mine, number .. ' ' .. now)
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local name = flat[i]
    local told = string.match(flat[i + 1], '^%S+ (%d+)$')
    local old = string.sub(name, 1, 4) == 'day:' and name < day or string.sub(name, 1, 6) == 'month:' and name < month
    if told and now - told > 86400 then old = true end
    if old and name ~= day and name ~= month then redis.call('HDEL', key, name) end
  end
  redis.call('EXPIRE', key, 3456000) -- forty days
end
return {redis.call('HGET', key, day) or '0', redis.call('HGET', key, month) or '0'}
"""


@dataclass(slots=True)
class _Sum:
    """What was spent in a day, and its month, and has not been told."""

    day: str
    month: str
    usd: float


class FleetSpending:
    """Keeps one caller's or route's spending together with those of the others."""

    def __init__(self, scope: str, name: str, spending: Spending, shared: SharedState) -> None:
        self.subject = self._spending = spending
        self._shared = shared
        self._key = shared.key("budget", f"{scope}:{name}")
        self._untold: deque[_Sum] = deque()  # the first may be on its way
        self._number = 0
        self._errand = Errand(self._exchange)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        spending.share = self
        shared.follow(self._key, self._errand.ask)

    def spent(self, usd: float) -> None:
        """So much more."""
        day, month = (self._spending.names[period] for period in PERIODS)
        if len(self._untold) > 1 and self._untold[-1].day == day:
            self._untold[-1].usd += usd
        else:
            self._untold.append(_Sum(day, month, usd))
        self.asked()

    def asked(self) -> None:
        """A call goes by what is known: it is to be known anew soon."""
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY_SECONDS, self._due)

    async def close(self) -> None:
        """Stop, and tell the rest."""
        self._shared.leave(self._key, self._errand.ask)
        if self._spending.share is self:
            self._spending.share = None
        if self._timer is not None:
            self._timer.cancel()
        await self._errand.close()
        while self._untold and self._shared.up and await self._tell():
            pass

    def _due(self) -> None:
        self._timer = None
        self._errand.ask()

    async def _exchange(self) -> None:
        while self._shared.up and await self._tell() and self._untold:
            pass

    async def _tell(self) -> bool:
        """Tell the oldest that has not been told, or nothing; hear what all have spent. Whether Redis answered."""
        spending = self._spending
        spending.turn()
        told = self._untold[0] if self._untold else _Sum(spending.names["day"], spending.names["month"], 0.0)
        number = str(self._number) if self._untold else ""
        heard = await self._shared.run(SCRIPT, self._key, told.day, told.month, repr(told.usd), number)
        if heard is None:
            return False
        if number:
            self._untold.popleft()
            self._number += 1
        for period, name, total in zip(PERIODS, (told.day, told.month), heard, strict=True):
            if spending.names[period] == name:
                more = sum(each.usd for each in self._untold if name in (each.day, each.month))
                spending.spent[period] = max(float(total) + more, spending.own[period])
        return True
