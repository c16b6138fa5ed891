"""The simulator's own endpoints: its report, and scripts for those who are not in its process."""

import msgspec
from aiohttp import web

from proxy.simulator.behaviour import BehaviourError, behaviour_from
from proxy.simulator.report import Report
from proxy.simulator.scripts import ANY, Scripts

PREFIX = "_simulator"


async def control(request: web.BaseRequest, endpoint: str, report: Report, scripts: Scripts) -> web.StreamResponse:
    """Answer one request to an endpoint below the prefix."""
    asked = (request.method, endpoint)
    if asked == ("GET", "report"):
        return _json(200, report.snapshot())
    if asked == ("POST", "reset"):
        report.reset()
        return _json(200, report.snapshot())
    if asked == ("DELETE", "behaviour"):
        scripts.clear()
        return _json(200, {})
    if asked == ("PUT", "behaviour"):
        try:
            _script(await request.content.read(), scripts)
        except (BehaviourError, msgspec.DecodeError, KeyError) as error:
            return _json(400, {"error": str(error.args[0] if error.args else error)})
        return _json(200, {})
    return _json(404, {"error": f"nothing at {request.method} {request.path}"})


def _script(body: bytes, scripts: Scripts) -> None:
    """Read `{"dialect": ..., "times": N or null, ...behaviour}`; null means from now on."""
    fields = msgspec.json.decode(body, type=dict[str, object])
    dialect, times = fields.pop("dialect", ANY), fields.pop("times", None)
    behaviour = behaviour_from(fields)
    if times is None:
        scripts.always(str(dialect), behaviour)
    elif isinstance(times, int) and not isinstance(times, bool) and times > 0:
        scripts.add(str(dialect), *[behaviour] * times)
    else:
        raise BehaviourError(f"times: expected a whole number, 1 or more, or null, not {times!r}")


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
