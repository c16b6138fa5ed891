"""One call that the cache may answer, or learn the answer of."""

from proxy.cache.control import Control
from proxy.cache.key import Key
from proxy.call import Call
from proxy.config import RouteCache
from proxy.openai_format.transcript import Form, form_of
from proxy.providers.seam import Route
from proxy.telemetry import CallRecord


class Question:
    """What is asked, by whose rules, and in which form it is to be answered."""

    __slots__ = ("call", "control", "form", "key", "record", "route", "rules")

    def __init__(
        self, call: Call, route: Route, rules: RouteCache, key: Key, control: Control, record: CallRecord
    ) -> None:
        self.call = call
        self.route = route
        self.rules = rules
        self.key = key
        self.control = control
        self.record = record
        self.form: Form = form_of(stream=call.stream, wants_usage=call.wants_usage)
