"""Callers are known by their keys, and a key of ours goes nowhere else."""

import pytest

from proxy.admission.auth import Auth
from proxy.call import Caller
from proxy.config import CallerKey, Server
from proxy.errors import Forbidden, Unauthenticated

SEARCH: dict[str, object] = {"name": "search", "key": "octet-search", "models": ["gpt-*", "claude-haiku-4-5"]}
BATCH: dict[str, object] = {"name": "batch", "key": "octet-batch-clé"}


def auth(*callers: dict[str, object]) -> Auth:
    return Auth(Server(callers=tuple(CallerKey.model_validate(caller) for caller in callers)))


def test_without_callers_everybody_may_call() -> None:
    """The port is the only gate then, and any model may be asked for."""
    door = auth()
    caller = door.identify({})
    assert caller == Caller()
    assert door.may_use(caller, "anything")
    door.check_model(caller, "anything")


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({}, None),
        ({"authorization": "Bearer sk-theirs"}, "sk-theirs"),
        ({"authorization": "bearer   sk-theirs  "}, "sk-theirs"),
        ({"authorization": "Basic c2s6"}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer "}, None),
        ({"authorization": "Bearer clé"}, None),
        ({"authorization": "Bearer a\x00b"}, None),
        ({"authorization": ""}, None),
        ({"x-octet-key": "octet-search"}, None),
    ],
)
def test_a_callers_own_key_passes_through(headers: dict[str, str], credential: str | None) -> None:
    """Without callers the bearer token is the caller's own, when it is one that a header can carry."""
    assert auth().identify(headers).credential == credential


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": "Bearer octet-search"}, "search"),
        ({"authorization": "bearer octet-search "}, "search"),
        ({"x-octet-key": "octet-search"}, "search"),
        ({"x-octet-key": "octet-batch-clé"}, "batch"),
        ({"x-octet-key": "octet-search", "authorization": "Bearer sk-theirs"}, "search"),
        ({"x-octet-key": "", "authorization": "Bearer octet-search"}, "search"),
        ({"x-octet-key": "octet-search", "authorization": "Bearer octet-batch"}, "search"),
    ],
)
def test_a_caller_is_known_by_the_key(headers: dict[str, str], name: str) -> None:
    """A key of ours comes as bearer token, or in a header of its own, which then decides."""
    assert auth(SEARCH, BATCH).identify(headers).name == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-theirs"},
        {"authorization": "Bearer octet-searc"},
        {"authorization": "Bearer octet-search2"},
        {"authorization": "Bearer OCTET-SEARCH"},
        {"authorization": "Basic octet-search"},
        {"authorization": "octet-search"},
        {"x-octet-key": "sk-theirs"},
        {"x-octet-key": "\udcff"},
        {"x-octet-key": "sk-theirs", "authorization": "Bearer octet-search"},
    ],
)
def test_an_unknown_key_is_refused(headers: dict[str, str]) -> None:
    """No key, or one that is not ours, is a 401 that does not repeat what was shown."""
    with pytest.raises(Unauthenticated) as caught:
        auth(SEARCH).identify(headers)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert not any(value and value in caught.value.message for value in headers.values())


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({"authorization": "Bearer octet-search"}, None),
        ({"x-octet-key": "octet-search"}, None),
        ({"x-octet-key": "octet-search", "authorization": "Bearer sk-theirs"}, "sk-theirs"),
        ({"x-octet-key": "octet-search", "authorization": "Bearer octet-search"}, None),
        ({"x-octet-key": "octet-search", "authorization": "Bearer octet-other"}, None),
    ],
)
def test_a_key_of_ours_is_no_credential(headers: dict[str, str], credential: str | None) -> None:
    """What opens this sidecar is never passed on to an upstream; what stands beside it is."""
    caller = auth(SEARCH, {"name": "other", "key": "octet-other"}).identify(headers)
    assert (caller.name, caller.credential) == ("search", credential)


@pytest.mark.parametrize(
    ("model", "allowed"),
    [("gpt-4o", True), ("claude-haiku-4-5", True), ("claude-opus", False), ("openai/gpt-4o", False), ("GPT-4o", False)],
)
def test_a_caller_may_ask_only_for_its_models(model: str, allowed: bool) -> None:
    """The globs of a caller decide; another model is a 403 that names the field."""
    door = auth(SEARCH)
    caller = door.identify({"x-octet-key": "octet-search"})
    assert door.may_use(caller, model) is allowed
    if allowed:
        door.check_model(caller, model)
        return
    with pytest.raises(Forbidden) as caught:
        door.check_model(caller, model)
    assert (caught.value.status, caught.value.param) == (403, "model")


def test_a_caller_without_a_list_may_ask_for_all() -> None:
    """No list is no limit."""
    door = auth(SEARCH, BATCH)
    assert door.may_use(door.identify({"x-octet-key": "octet-batch-clé"}), "anything/at all")


def test_keys_stay_out_of_sight() -> None:
    """Neither a caller's credential nor the configured keys stand in a repr."""
    door = auth(SEARCH)
    caller = door.identify({"x-octet-key": "octet-search", "authorization": "Bearer sk-theirs"})
    assert "sk-theirs" not in repr(caller)
    assert "octet-search" not in repr(door) + repr(CallerKey.model_validate(SEARCH))
