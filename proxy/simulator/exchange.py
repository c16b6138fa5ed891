"""One call: judged, then answered or failed as the behaviour wants, and counted once."""

import asyncio
from dataclasses import dataclass, replace

from aiohttp import web

from proxy.simulator.answers import Question, compose_all
from proxy.simulator.behaviour import Behaviour, BehaviourError, parse_behaviour
from proxy.simulator.delivery import Delivery, hang
from proxy.simulator.dialect import Dialect, Operation, Page, Problem, Refused
from proxy.simulator.faults import find_fault, scripted_problem
from proxy.simulator.oddities import bend
from proxy.simulator.report import Outcome, Report, SeenRequest
from proxy.simulator.scripts import Scripts

HEADER = "x-simulate"
UNKNOWN_MODEL = "missing"  # models whose names start so do not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for a call, whatever it asks."""

    seed: int
    pace: float
    key: str | None
    request_id: str


class Exchange:
    """A request and the answer to it. A request that the dialect refuses is refused whatever was scripted."""

    def __init__(
        self,
        request: web.BaseRequest,
        dialect: Dialect,
        operation: Operation,
        terms: Terms,
        report: Report,
        scripts: Scripts,
    ) -> None:
        self._request = request
        self._dialect = dialect
        self._operation = operation
        self._terms = terms
        self._report = report
        self._call = report.begin(dialect.name)
        self._misspelt: str | None = None
        self._behaviour = self._choose_behaviour(scripts)
        self._delivery = Delivery(request, self._call, report, self._behaviour, terms.pace)

    async def run(self) -> web.StreamResponse:
        """Answer, and count how it ended; the response returned is already sent or its connection gone."""
        outcome: Outcome = "failed"
        try:
            outcome = await self._answer()
        except asyncio.CancelledError:
            outcome = "aborted"
            raise
        except ConnectionError:
            outcome = "aborted"
        finally:
            self._report.end(self._call, outcome)
        return self._delivery.response or web.Response()

    def _choose_behaviour(self, scripts: Scripts) -> Behaviour:
        """Take the header's behaviour, or else the scripted one; a misspelt header is reported later."""
        header = self._request.headers.get(HEADER)
        if header is None:
            return scripts.take(self._dialect.name)
        try:
            return parse_behaviour(header)
        except BehaviourError as error:
            self._misspelt = f"{HEADER}: {error}"
            return Behaviour()

    async def _answer(self) -> Outcome:
        behaviour, delivery = self._behaviour, self._delivery
        if behaviour.stall == "accept":
            self._report.saw(seen_request(self._request, self._dialect, b"", behaviour))
            await hang()
        body = await self._read_body()
        self._report.saw(seen_request(self._request, self._dialect, body, behaviour))
        try:
            question = self._judge(body)
        except Refused as refused:
            self._delivery = Delivery(self._request, self._call, self._report, Behaviour(), 0.0)
            return await self._fail(replace(refused.problem, quirks=behaviour.quirks))
        await asyncio.sleep(behaviour.delay_seconds)
        if behaviour.stall == "before_headers":
            await hang()
        if behaviour.cut == "before_headers":
            delivery.hang_up()
            return "failed"
        fault = find_fault(self._dialect, question, behaviour, self._terms.request_id)
        if isinstance(fault, Problem):
            return await self._fail(fault)
        if fault is not None:
            return await delivery.page(fault, "failed")
        return await self._reply(question)

    async def _fail(self, problem: Problem) -> Outcome:
        """Send a refusal or a failure, as a page or as the only event of a stream."""
        request_id = self._terms.request_id
        if problem.in_stream:
            frame = self._dialect.problem_frame(problem, request_id)
            headers, framing = self._dialect.headers(request_id), self._operation.framing
            await self._delivery.stream(200, headers, [frame], framing, frame)
            return "failed"
        page = self._dialect.problem_page(problem, request_id)
        return await self._delivery.page(
            replace(page, status=200) if "error_in_200" in problem.quirks else page, "failed"
        )

    async def _read_body(self) -> bytes:
        """Read all of the body, telling clients that ask first to send it."""
        if self._request.headers.get("expect", "").lower() == "100-continue":
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0
        return await self._request.content.read()

    def _judge(self, body: bytes) -> Question:
        """Check credential, request and model, in this order; raises Refused."""
        dialect, headers = self._dialect, lower_headers(self._request)
        if self._misspelt is not None:
            raise Refused(replace(dialect.problem(400, None, ""), message=self._misspelt))
        dialect.authorize(headers, self._terms.key)
        question = self._operation.read(headers, body)
        if question.model.startswith(UNKNOWN_MODEL):
            problem = dialect.problem(None, "model_not_found", question.model)
            raise Refused(replace(problem, in_stream=problem.in_stream and question.stream))
        return question

    async def _reply(self, question: Question) -> Outcome:
        """Send the right answer."""
        dialect, operation, behaviour = self._dialect, self._operation, self._behaviour
        request_id = self._terms.request_id
        answers = compose_all(question, behaviour, seed=self._terms.seed)
        self._call.prompt_tokens = sum(answer.prompt_tokens for answer in answers) // question.n
        self._call.completion_tokens = sum(answer.completion_tokens for answer in answers)
        streams = question.stream and not behaviour.whole
        fails_later = behaviour.error_after is not None
        status = 200 if fails_later else behaviour.status or 200
        if not streams:
            whole = operation.whole(question, answers, behaviour)
            page = whole if isinstance(whole, Page) else Page(status, whole, headers=dialect.headers(request_id))
            return await self._delivery.page(page, "completed")
        problem = scripted_problem(dialect, question, behaviour)
        return await self._delivery.stream(
            status,
            dialect.headers(request_id),
            bend(operation.frames(question, answers, behaviour), behaviour),
            operation.framing,
            dialect.problem_frame(problem, request_id),
        )


def lower_headers(request: web.BaseRequest) -> dict[str, str]:
    """Return the headers by lower-case name; those sent twice are joined by a comma."""
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def seen_request(request: web.BaseRequest, dialect: Dialect, body: bytes, behaviour: Behaviour) -> SeenRequest:
    """Keep what a test may want to compare."""
    return SeenRequest(
        dialect=dialect.name,
        method=request.method,
        path=request.path,
        query=request.query_string,
        headers=lower_headers(request),
        body=body,
        behaviour=behaviour,
    )
