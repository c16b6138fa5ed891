"""One caller's or upstream's limits for a fleet of sidecars: each process leases a share, behind the calls' backs.

A call waits only when the share is empty, and only once; what is left of a share goes back when it is not needed, and
by itself when its process is gone. Without Redis each process goes by its own count, at its part of the limit; before
it has heard of others they are the workers of its own sidecar.
"""

import asyncio
import math

from proxy.limits.bucket import Bucket
from proxy.limits.limiter import Limiter
from proxy.shared_state import Errand, SharedState

LEASE_SECONDS = 3.0
EVERY_SECONDS = 0.5  # while anything is used
HURRY_SECONDS = 0.05  # while calls wait for places, or others do
RESERVE = 0.01  # of a limit: what a process that is in use keeps at hand

# KEYS: the limits of one subject. ARGV: channel, process; lease (ms); then for requests, for tokens and for places:
# the limit (0: none), what was used of the share since last time (places: those in use), what is wanted of it; and what
# we believe is left of requests and tokens, should Redis not know.
# A share is kept as "expiry requests tokens places" under the process's name.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key, me, lease_ms = KEYS[1], ARGV[2], tonumber(ARGV[3])
local kept, shares, others = {}, {}, {0, 0, 0}
local flat = redis.call('HGETALL', key)
for i = 1, #flat, 2 do kept[flat[i]] = flat[i + 1] end
local level, limit = {}, {}
for i = 1, 2 do
  limit[i] = tonumber(ARGV[1 + 3 * i])
  level[i] = tonumber(kept['level' .. i] or ARGV[12 + i]) or 0
  if level[i] ~= level[i] then level[i] = 0 end
  level[i] = math.max(-limit[i], math.min(level[i], limit[i]))
end
local mine, count, gone = {0, 0, 0}, 1, {}
for name, text in pairs(kept) do
  if string.sub(name, 1, 6) == 'share:' then
    local ends, a, b, c = string.match(text, '^(%S+) (%S+) (%S+) (%S+)$')
    local share = {tonumber(a) or 0, tonumber(b) or 0, tonumber(c) or 0}
    for i = 1, 3 do share[i] = math.max(0, math.min(share[i], tonumber(ARGV[1 + 3 * i]))) end
    ends = tonumber(ends) or 0
    if ends <= now or ends > now + 2 * lease_ms then -- the server's clock may have been set back
      gone[#gone + 1] = name
      for i = 1, 2 do level[i] = level[i] + share[i] end
    elseif name == 'share:' .. me then
      mine = share
    else
      count = count + 1
      for i = 1, 3 do others[i] = others[i] + share[i] end
    end
  end
end
local passed = math.max(0, now - (tonumber(kept['at'] or now) or now))
local tight = 0
for i = 1, 2 do
  if limit[i] > 0 then
    level[i] = level[i] + passed * limit[i] / 60000
    mine[i] = mine[i] - tonumber(ARGV[2 + 3 * i])
    if mine[i] < 0 then level[i], mine[i] = level[i] + mine[i], 0 end
    level[i] = math.max(-limit[i], math.min(level[i], limit[i] - others[i] - mine[i]))
    local want = tonumber(ARGV[3 + 3 * i])
    local more = math.max(math.min(want - mine[i], level[i]), -mine[i])
    if more > 0 or want < mine[i] then level[i], mine[i] = level[i] - more, mine[i] + more end
    if mine[i] < want then tight = 1 end
  end
end
local places, in_use, wanted = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
if places > 0 then
  mine[3] = math.max(in_use, math.min(wanted, places - others[3]))
  if mine[3] < wanted then redis.call('HSET', key, 'unmet', now) end
end
if now - (tonumber(kept['unmet'] or 0) or 0) < 1000 then tight = 1 end
for _, name in ipairs(gone) do redis.call('HDEL', key, name) end
if mine[1] == 0 and mine[2] == 0 and mine[3] == 0 then
  redis.call('HDEL', key, 'share:' .. me)
else
  local text = string.format('%.0f %.3f %.3f %d', now + lease_ms, mine[1], mine[2], mine[3])
  redis.call('HSET', key, 'share:' .. me, text)
end
redis.call('HSET', key, 'level1', level[1], 'level2', level[2], 'at', now)
redis.call('PEXPIRE', key, 600000)
local function told(number) return string.format('%.3f', number) end
return {told(mine[1]), told(mine[2]), mine[3], count, told(level[1]), told(level[2]), tight}
"""

FORGET = "return redis.call('DEL', KEYS[1])"


class FleetShare:
    """Keeps one limiter's share.

    Args:
        workers: how many processes there are at least.
    """

    def __init__(self, scope: str, name: str, limiter: Limiter, shared: SharedState, workers: int = 1) -> None:
        self.subject = self._limiter = limiter
        self._shared = shared
        self.key = shared.key("limits", f"{scope}:{name}")
        self._errand = Errand(self._exchange)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self._leasing = False
        self._tight = False
        self._workers = self._count = workers  # processes that may have a share
        self._take_part()
        limiter.share = self
        shared.follow(self.key, self._errand.ask)

    # The limiter's side.

    def ask(self) -> "asyncio.Future[None] | None":
        """A call found the share empty; done when there is more, or not. None: there is nobody to ask."""
        if self._shared.up:
            return self._errand.ask()
        self._stand_alone()
        return None

    def late(self) -> None:
        """The answer has let wait for too long: we go by our own count until it comes."""
        self._stand_alone()

    def queued(self) -> None:
        """A call begins to wait for a place: others may give theirs back at any time."""
        self._look_in(HURRY_SECONDS)

    def used(self) -> None:
        """Something was taken or given back."""
        self._look_in(HURRY_SECONDS if self._tight else EVERY_SECONDS)

    async def close(self) -> None:
        """Stop, and give the share back."""
        await self.stop()
        if self._leasing and self._shared.up:
            await self._run(wants=False)

    async def follow(self, before: "FleetShare") -> None:
        """Take the place of one whose limits were others: what was left of them does not count."""
        await before.stop()
        await self._shared.run(FORGET, self.key)
        self._errand.ask()

    async def stop(self) -> None:
        """Stop, and give nothing back."""
        self._shared.leave(self.key, self._errand.ask)
        if self._limiter.share is self:
            self._limiter.share = None
        if self._timer is not None:
            self._timer.cancel()
        await self._errand.close()

    # Redis' side.

    async def _exchange(self) -> None:
        heard = await self._run(wants=True) if self._shared.up else None
        if heard is None:
            self._stand_alone()
            return
        limiter, (requests, tokens, places, count, level, token_level, tight) = self._limiter, heard
        self._leasing, self._count, self._tight = True, max(self._workers, int(count)), bool(tight)
        now = self._loop.time()
        _adopt(limiter.requests, float(requests), float(level), 1, now)
        _adopt(limiter.tokens, float(tokens), float(token_level), limiter.asked, now)
        if limiter.slots is not None:
            limiter.slots.resize(int(places))
        self._look_again()

    async def _run(self, *, wants: bool) -> "list[bytes | int] | None":
        """One run of the script; what is used from now on belongs to the next one."""
        limiter, numbers, believed = self._limiter, list[float](), list[float]()
        for bucket, asked in ((limiter.requests, limiter.calls_asking), (limiter.tokens, limiter.asked)):
            if bucket is None:
                numbers += (0, 0, 0)
                believed.append(0)
                continue
            used = bucket.used if self._leasing else 0.0
            bucket.used = 0.0
            busy = used > 0 or asked > 0
            reserve = max(2 * used, RESERVE * bucket.capacity, 1.0) if busy else 0.0
            numbers += (bucket.capacity, used, math.ceil(asked + reserve) if wants else 0)
            believed.append(round(bucket.believed(self._loop.time()), 3))
        slots = limiter.slots
        if slots is None:
            numbers += (0, 0, 0)
        else:
            wanted = slots.in_use + limiter.calls_asking
            numbers += (limiter.rules.concurrent or 0, slots.in_use, wanted + (1 if wanted else 0) if wants else 0)
        heard = await self._shared.run(SCRIPT, self.key, round(LEASE_SECONDS * 1000), *numbers, *believed)
        return None if heard is None else list(heard)

    def _stand_alone(self) -> None:
        """Go by our own count, as one of so many."""
        if self._leasing:
            self._leasing = False
            self._take_part()

    def _take_part(self) -> None:
        limiter, part = self._limiter, 1 / self._count
        for bucket in (limiter.requests, limiter.tokens):
            if bucket is not None:
                bucket.stand_alone(part, self._loop.time())
        if limiter.slots is not None:
            limiter.slots.resize(math.ceil((limiter.rules.concurrent or 0) * part))

    def _look_again(self) -> None:
        """Come back before the lease ends, sooner where calls wait; not at all when nothing is used."""
        limiter = self._limiter
        waiting = limiter.slots is not None and limiter.slots.waiting > 0
        holds = any(bucket is not None and bucket.level > 0 for bucket in (limiter.requests, limiter.tokens))
        if waiting:
            self._look_in(HURRY_SECONDS)
        elif holds or (limiter.slots is not None and (limiter.slots.in_use or limiter.slots.limit)):
            self._look_in(EVERY_SECONDS)

    def _look_in(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        self._errand.ask()


def _adopt(bucket: Bucket | None, share: float, level: float, asked: float, now: float) -> None:
    """A bucket holds what was granted, less what was used of it meanwhile."""
    if bucket is None:
        return
    bucket.lease(share - bucket.used, now)
    bucket.pool = max(0.0, level)
    missing = min(max(asked, 1.0), bucket.capacity) - share - level
    bucket.ready_at = now + max(0.0, missing / (bucket.capacity / 60))
