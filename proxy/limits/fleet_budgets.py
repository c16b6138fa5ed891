"""What a fleet of sidecars has spent together: each tells Redis of its own, behind the calls' backs.

What is told is numbered: telling it twice counts once. While Redis is away each process goes by what it knows, and
tells the rest later. A fleet may spend above a budget what it spends in a second, and with calls in flight.
"""

import asyncio
import os
from collections import deque
from dataclasses import dataclass

from proxy.limits.budgets import PERIODS, Spending
from proxy.shared_state import Errand, SharedState

EVERY_SECONDS = 0.5

# KEYS: one caller's or route's. ARGV: channel, process; day and month, what was spent in each, who tells it and its
# number ("": nothing is told), and what a life of the key is called that begins with this. A teller's last number is
# kept as long as it may be told again; of days and months the last few.
SCRIPT = """
local key, teller, number = KEYS[1], 'told:' .. ARGV[7], ARGV[8]
local sums = {['day:' .. ARGV[3]] = ARGV[5], ['month:' .. ARGV[4]] = ARGV[6]}
local now = tonumber(redis.call('TIME')[1])
if number ~= '' then
  redis.call('HSETNX', key, 'life', ARGV[9])
  for name, _ in pairs(sums) do
    local known = tonumber(redis.call('HGET', key, name) or 0)
    if not known or known ~= known or math.abs(known) == math.huge then redis.call('HDEL', key, name) end
  end
  if string.match(redis.call('HGET', key, teller) or '', '^(%S+)') ~= number then
    for name, sum in pairs(sums) do redis.call('HINCRBYFLOAT', key, name, sum) end
  end
  redis.call('HSET', key, teller, number .. ' ' .. now)
  local flat, times = redis.call('HGETALL', key), {day = {}, month = {}}
  for i = 1, #flat, 2 do
    local kind = string.match(flat[i], '^(%l+):')
    local told = tonumber(string.match(flat[i + 1], '^%S+ (%d+)$') or now)
    if kind == 'told' and now - told > 86400 then redis.call('HDEL', key, flat[i]) end
    if times[kind] then table.insert(times[kind], flat[i]) end
  end
  for _, names in pairs(times) do
    table.sort(names)
    for i = 1, #names - 4 do
      if not sums[names[i]] then redis.call('HDEL', key, names[i]) end
    end
  end
  redis.call('EXPIRE', key, 3456000) -- forty days
end
local day, month = redis.call('HGET', key, 'day:' .. ARGV[3]), redis.call('HGET', key, 'month:' .. ARGV[4])
return {tonumber(day) and day or '0', tonumber(month) and month or '0', redis.call('HGET', key, 'life') or ''}
"""


@dataclass(slots=True)
class _Sum:
    """What was spent in a day and a month, and has not been told."""

    day: str
    month: str
    in_day: float
    in_month: float

    def within(self, period: str, name: str) -> float:
        """What of it was spent in a day, or a month, of this name."""
        if period == "day":
            return self.in_day if self.day == name else 0.0
        return self.in_month if self.month == name else 0.0


class FleetSpending:
    """Keeps one caller's or route's spending together with those of the others."""

    def __init__(self, scope: str, name: str, spending: Spending, shared: SharedState) -> None:
        self.subject = self._spending = spending
        self._shared = shared
        self._key = shared.key("budget", f"{scope}:{name}")
        self._untold: deque[_Sum] = deque()  # the first may be on its way
        self._teller = os.urandom(6).hex()
        self._number = 0
        self._life = b""  # of what Redis knows; another one: it has forgotten what it was told
        self._errand = Errand(self._exchange)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        spending.share = self
        shared.follow(self._key, self._errand.ask)

    def spent(self, usd: float) -> None:
        """So much more."""
        day, month = (self._spending.names[period] for period in PERIODS)
        if len(self._untold) > 1 and self._untold[-1].day == day:
            self._untold[-1].in_day += usd
            self._untold[-1].in_month += usd
        else:
            self._untold.append(_Sum(day, month, usd, usd))
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
        names = spending.names["day"], spending.names["month"]
        first = self._untold[0] if self._untold else None
        told = first or _Sum(*names, 0.0, 0.0)
        number = str(self._number) if first is not None else ""
        heard = await self._shared.run(
            SCRIPT, self._key, told.day, told.month, repr(told.in_day), repr(told.in_month), self._teller, number,
            os.urandom(6).hex(),
        )  # fmt: skip
        if heard is None:
            return False
        if first is not None:
            self._untold.popleft()
            self._number += 1
        *totals, life = heard
        if self._life not in (b"", life):
            self._tell_again(told)
        self._life = life
        for period, name, total in zip(PERIODS, (told.day, told.month), totals, strict=True):
            if spending.names[period] == name:
                more = sum(each.within(period, name) for each in self._untold)
                spending.spent[period] = max(float(total) + more, spending.own[period])
        return True

    def _tell_again(self, known: _Sum) -> None:
        """Redis has forgotten everything but what it has just been told: our own is told once more."""
        spending, own = self._spending, list[float]()
        for period in PERIODS:
            name = spending.names[period]
            counted = known.within(period, name) + sum(each.within(period, name) for each in self._untold)
            own.append(max(0.0, spending.own[period] - counted))
        if any(own):
            self._untold.append(_Sum(spending.names["day"], spending.names["month"], *own))
