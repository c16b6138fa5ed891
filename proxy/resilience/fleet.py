"""One circuit for a fleet of sidecars: decided here, told to the others through Redis, and heard from them.

Each process judges by its own window at once. What it saw, and what it has decided, goes to Redis in one script, which
keeps the fleet's window and says what holds for all. When the open time is over, one process is leased the trial calls.
"""

import asyncio

from proxy.resilience.circuit import Circuit, Closed, HalfOpened, Opened
from proxy.shared_state import Errand, SharedState

LEASE_SECONDS = 5.0  # of trial calls; renewed while they are under way
BATCH_SECONDS = 0.5  # good outcomes wait so long for company
_LONGEST = 86400.0 * 365  # seconds; for an operator's word that has no end
_CLOSED, _HALF_OPEN, _OPEN, _HELD = range(4)

# KEYS: the circuit. ARGV: channel, process; window, minimum, failure rate, slow rate (0: off), open time, lease (ms);
# our state, its generation, whether it is news (2: an operator's), its ms left; whether trial calls are wanted (2: at
# once, since the upstream seems to be back); outcomes as "failed slow" digits.
# Generations are the server's microseconds: those that follow an emptied Redis are not taken for old ones.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%d%06d', time[1], time[2])
local key, channel, me = KEYS[1], ARGV[1], ARGV[2]
local window, minimum, rate, slow_rate = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local open_ms, lease_ms = tonumber(ARGV[7]), tonumber(ARGV[8])
local mine, based, news, left = tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
local want, fresh = tonumber(ARGV[13]), ARGV[14]
local kept = redis.call('HMGET', key, 'state', 'generation', 'until', 'window', 'holder')
local known = kept[1] and true or false
local state, generation = tonumber(kept[1] or '0'), kept[2] or '0'
if state ~= 0 and state ~= 1 and state ~= 2 and state ~= 3 then state, known, generation = 0, false, '0' end -- not ours
if not string.find(generation, '^%d+$') then generation = '0' end
local till, ring, holder = tonumber(kept[3] or '0') or 0, kept[4] or '', kept[5] or ''
if till ~= till then till = 0 end
local before = generation
if state == 2 then till = math.min(till, now + open_ms) end -- the server's clock may have been set back
if state == 1 then till = math.min(till, now + lease_ms) end
local function enter(to, ends, who)
  state, till, holder, generation = to, ends, who, stamp
  if to == 0 then ring = '' end
end
if not known and mine ~= 0 then
  enter(mine, now + left, mine == 1 and me or '')
elseif news == 2 then
  enter(mine, now + left, '')
elseif news == 1 and mine ~= 1 and (till <= now or (state == 1 and holder == me)) then -- what is over binds nobody
  enter(mine, mine == 2 and now + left or 0, '')
end
if state == 0 and fresh ~= '' then
  local entries, count, failures, slow = {}, 0, 0, 0
  for pair in string.gmatch(fresh, '%d%d') do ring = ring .. now .. ':' .. pair .. ' ' end
  for at, pair in string.gmatch(ring, '(%d+):(%d%d) ') do
    if tonumber(at) >= now - 60000 then entries[#entries + 1] = at .. ':' .. pair .. ' ' end
  end
  ring = ''
  for i = math.max(1, #entries - window + 1), #entries do
    ring, count = ring .. entries[i], count + 1
    local pair = string.match(entries[i], ':(%d%d)')
    if string.sub(pair, 1, 1) == '1' then failures = failures + 1 end
    if string.sub(pair, 2, 2) == '1' then slow = slow + 1 end
  end
  if count >= minimum and (failures / count >= rate or (slow_rate > 0 and slow / count >= slow_rate)) then
    enter(2, now + open_ms, '')
  end
end
if state == 2 and want == 2 then till = math.min(till, now) end
if want > 0 and (state == 2 or state == 3 or state == 1) and till <= now then
  enter(1, now + lease_ms, me)
elseif state == 1 and holder == me and mine == 1 then
  till = now + lease_ms
end
redis.call('HSET', key, 'state', state, 'generation', generation, 'until', till, 'window', ring, 'holder', holder)
redis.call('PEXPIRE', key, math.max(600000, till - now + 600000))
if generation ~= before then redis.call('PUBLISH', channel, me .. ' ' .. key) end
return {state, generation, math.max(0, till - now), holder == me and 1 or 0}
"""


class FleetLink:
    """Ties one circuit to its like in other processes; implements the circuit's `Fleet`."""

    def __init__(self, circuit: Circuit, shared: SharedState) -> None:
        self.subject = self._circuit = circuit
        self._shared = shared
        self.key = shared.key("circuit", circuit.name)
        self._errand = Errand(self._exchange)
        self._loop = asyncio.get_running_loop()
        self._outcomes: list[str] = []
        self._generation = "0"
        self._news = 0
        self._want = 0
        self._adopting = False
        self._away = True  # nothing has been heard
        self._timer: asyncio.TimerHandle | None = None
        circuit.fleet = self
        shared.follow(self.key, self._errand.ask)

    # The circuit's side.

    def tell(self, *, failed: bool, slow: bool) -> None:
        """An outcome, in the closed state."""
        self._outcomes.append(f"{failed:d}{slow:d}")
        del self._outcomes[: -self._circuit.policy.window]
        if not self._shared.up:
            return
        if failed or slow:
            self._errand.ask()
        elif self._timer is None:
            self._wake_at(self._loop.time() + BATCH_SECONDS)

    def may_try(self) -> bool:
        """Whether trial calls may begin here by our own decision; if not, they have been asked for."""
        if self._away or not self._shared.up:
            return True
        self._want = max(self._want, 1)
        self._errand.ask()
        return False

    def hasten(self) -> None:
        """The upstream seems to be back: ask for trial calls though the time is not over."""
        self._want = 2
        self._errand.ask()

    def changed(self) -> None:
        """The circuit has entered another state."""
        state = self._circuit.current
        if not self._adopting:
            by_operator = (isinstance(state, Opened) and state.held) or (isinstance(state, Closed) and state.reset)
            lapsed = isinstance(state, Opened) and state.lapsed
            self._news = 2 if by_operator else 0 if lapsed or isinstance(state, HalfOpened) else 1
            if self._shared.up:
                self._errand.ask()
        if isinstance(state, Opened) and state.until < float("inf"):
            self._wake_at(state.until)
        elif isinstance(state, HalfOpened):
            self._wake_at(self._loop.time() + LEASE_SECONDS / 3)

    async def close(self) -> None:
        """Stop."""
        self._shared.leave(self.key, self._errand.ask)
        if self._circuit.fleet is self:
            self._circuit.fleet = None
        if self._timer is not None:
            self._timer.cancel()
        await self._errand.close()

    # Redis' side.

    async def _exchange(self) -> None:
        """Tell what is new, and take what holds."""
        if not self._shared.up:
            self._away = True
            return
        circuit, policy, outcomes = self._circuit, self._circuit.policy, self._outcomes
        state, generation, news, want = circuit.current, self._generation, self._news, self._want
        self._outcomes, self._news, self._want = [], 0, 0
        code, left = _code(circuit)
        heard = await self._shared.run(
            SCRIPT, self.key, policy.window, policy.minimum_calls, policy.failure_rate,
            policy.slow_call_rate if policy.slow_call_seconds is not None else 0, _ms(policy.open_seconds),
            _ms(LEASE_SECONDS), code, generation, news, _ms(left),
            max(want, 1) if isinstance(state, HalfOpened) and self._away else want, "".join(outcomes),
        )  # fmt: skip
        self._away = heard is None
        if heard is None:
            self._outcomes = (outcomes + self._outcomes)[-policy.window :]
            self._news = max(self._news, news)
        elif circuit.current is state:
            self._adopt(int(heard[0]), heard[1].decode(), int(heard[2]) / 1000, mine=bool(heard[3]))
        else:
            self._errand.ask()  # something has happened here meanwhile: both must know of it

    def _adopt(self, code: int, generation: str, left: float, *, mine: bool) -> None:
        """What holds for the whole fleet holds here."""
        circuit, state, now = self._circuit, self._circuit.current, self._circuit.clock()
        news, self._generation = generation != self._generation, generation
        if generation == "0" and isinstance(state, Opened) and state.until > now:  # it was emptied: nobody has decided
            self._news = 2 if state.held else 1
            self._errand.ask()
            return
        self._adopting = True
        try:
            if code == _HALF_OPEN and mine and isinstance(state, HalfOpened):
                state.until = now + left
            elif code == _HALF_OPEN and mine:
                circuit.half_open(now + left)
            elif code in (_OPEN, _HALF_OPEN):  # or another process has the trial calls
                if isinstance(state, Opened) and not state.held:
                    state.until = now + left
                    self._wake_at(state.until)
                else:
                    circuit.open(left)
            elif code == _HELD and news:
                circuit.hold_open(left)
            elif code == _CLOSED and not circuit.is_closed:
                circuit.close()
        finally:
            self._adopting = False

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        """Something is due: trial calls, their renewal, or outcomes that have waited for company."""
        self._timer = None
        state = self._circuit.current
        if isinstance(state, Opened) and state.rejected and not state.held:
            self._want = max(self._want, 1)
        elif isinstance(state, HalfOpened):
            self._wake_at(self._loop.time() + LEASE_SECONDS / 3)
            if not state.under_way:
                return
        elif not self._outcomes:
            return
        if self._shared.up:
            self._errand.ask()


def _code(circuit: Circuit) -> tuple[int, float]:
    """A state as the script knows it, and the seconds that it still lasts."""
    state = circuit.current
    if isinstance(state, Opened):
        left = min(max(0.0, state.until - circuit.clock()), _LONGEST)
        return (_HELD if state.held else _OPEN), left
    return (_HALF_OPEN, LEASE_SECONDS) if isinstance(state, HalfOpened) else (_CLOSED, 0.0)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
