"""A file becomes a Config, or all that is wrong with it, each mistake at its place."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Address, Config, ConfigError, ProviderTraits, Timeouts, load

UP = "upstreams: {up: {provider: openai}}\n"
ROUTE = UP + "routes:\n  - "

Loaded = Callable[..., Config]
Mistakes = Callable[..., list[str]]


def up(settings: str) -> str:
    """A file with one upstream; its settings begin on line 3, column 5."""
    return f"upstreams:\n  up:\n    {settings}\n"


def test_what_is_left_out_has_a_default(config: Loaded, known: Mapping[str, ProviderTraits]) -> None:
    """The defaults are those that the documentation names, and each provider fills in its own."""
    loaded = config(UP + "routes: [{targets: [{upstream: up}]}]")
    server, upstream = loaded.server, loaded.upstreams["up"]
    assert (server.listen, server.admin, server.callers) == (None, Address("127.0.0.1", 8081), ())
    assert (server.max_body_bytes, server.keep_alive_seconds, server.drain_seconds) == (64 << 20, 15.0, 20.0)
    assert upstream.timeouts == Timeouts(
        connect_seconds=5.0, first_token_seconds=600.0, idle_seconds=120.0, total_seconds=None
    )
    assert (upstream.base_url, upstream.wire, upstream.list_models) == (known["openai"].base_url, "exact", False)
    assert upstream.max_frame_bytes == 8 << 20
    (route,) = loaded.routes
    assert (route.name, route.match.model, route.strategy) == ("route-1", ("*",), "ordered")
    laptop = config("upstreams: {o: {provider: ollama, settings: {truncate: true}}}").upstreams["o"]
    assert (laptop.wire, laptop.list_models, laptop.settings.truncate) == ("normalise", True, True)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        (":8080", Address("0.0.0.0", 8080)),  # noqa: S104
        ("[::1]:8080", Address("::1", 8080)),
        ("unix:/run/octet.sock", Address(path="/run/octet.sock")),
    ],
)
def test_addresses(config: Loaded, written: str, meant: Address) -> None:
    """Hosts, IPv6, all interfaces and sockets, one or many; and each is shown as it is written."""
    assert config(UP + f"server: {{admin: '{written}', listen: '{written}'}}").server.admin == meant
    assert config(UP + f"server: {{listen: ['{written}', ':1']}}").server.listen == (meant, Address("0.0.0.0", 1))  # noqa: S104
    assert str(meant).endswith(written)


@pytest.mark.parametrize(
    ("written", "meant"), [("1024", 1024), ("'1024'", 1024), ("1KB", 1000), ("2 KiB", 2048), ("64MiB", 1 << 26)]
)
def test_sizes(config: Loaded, written: str, meant: int) -> None:
    """A size is a number of bytes, or one with its unit."""
    assert config(UP + f"server: {{max_body_bytes: {written}}}").server.max_body_bytes == meant


def test_a_configuration_cannot_be_changed(config: Loaded) -> None:
    """It is frozen: a reload builds another."""
    with pytest.raises(ValueError, match="frozen"):
        setattr(config(UP).server, "drain_seconds", 1.0)  # noqa: B010  # a plain assignment is refused sooner


SIX = """\
server:
  listen: 127.0.0.1:99999
upstreams:
  openai: {provider: opnai, api_key: "${OPENAI_API_KEY}"}
  claude: {provider: anthropic, timeout: {connect_seconds: 1}}
routes:
  - name: gpt
    match: {model: "gpt-*"}
    targets: [{upstream: opanai}]
  - match: {model: "gpt-4*"}
    targets: [{upstream: claude, weight: heavy}]
"""


def test_six_mistakes_are_six_mistakes(mistakes: Mistakes) -> None:
    """One run tells them all, in the order of the file."""
    assert [mistake.split(": ")[:2] for mistake in mistakes(SIX)] == [
        ["octet.yaml:2:3", "server.listen[0]"],
        ["octet.yaml:4:12", "upstreams.openai.provider"],
        ["octet.yaml:4:29", "upstreams.openai.api_key"],
        ["octet.yaml:5:33", "upstreams.claude.timeout"],
        ["octet.yaml:9:16", "routes[0].targets[0].upstream"],
        ["octet.yaml:11:34", "routes[1].targets[0].weight"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        up("{provider: openai, api_key: '${KEY}'}"),
        up("{provider: openai, headers: {authorization: 'Bearer ${KEY}'}}"),
        up("{provider: openai, query: {key: '${KEY}'}}"),
        "server: {callers: [{name: a, key: '${KEY}'}]}\n" + UP,
    ],
    ids=["api_key", "header", "query", "caller"],
)
def test_secrets_are_not_shown(config: Loaded, text: str) -> None:
    """What may be a key never stands in a configuration's repr."""
    assert "s3cret" not in repr(config(text, KEY="s3cret"))


@pytest.mark.parametrize(
    "text",
    [
        up("{provider: openai, api_key: '${KEY}', wire: raw}"),
        up("{provider: openai, api_key_file: '${KEY}'}"),
        up("{provider: openai, base_url: '${KEY}'}"),
        up("{provider: openai, headers: {a: '${KEY}é'}}"),
        up("{provider: '${KEY}'}"),
        UP + "server: {admin: '${KEY}', callers: [{name: '${KEY}/', key: '${KEY}'}]}",
        ROUTE + "targets: [{upstream: '${KEY}'}]",
        ROUTE + "{match: {caller: '${KEY}'}, targets: [{upstream: up}]}",
    ],
)
def test_no_message_shows_the_environment(mistakes: Mistakes, text: str) -> None:
    """A variable put in the wrong place may hold a key: its value stands in no message."""
    assert "s3cret" not in "".join(mistakes(text, KEY="s3cret"))


def test_a_file_is_read(known: Mapping[str, ProviderTraits], tmp_path: Path) -> None:
    """A file on disk is loaded with the environment; mistakes name it; one that is not there is a mistake too."""
    file = tmp_path / "octet.yaml"
    file.write_text(up("{provider: openai, api_key: '${KEY}'}"))
    key: Any = load(str(file), known, {"KEY": "k"}).upstreams["up"].api_key
    assert key.get_secret_value() == "k"
    with pytest.raises(ConfigError, match=r"octet\.yaml:3:24: upstreams\.up\.api_key: the environment variable KEY"):
        load(str(file), known, {})
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(str(tmp_path / "nope.yaml"), known, {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(str(tmp_path), known, {})
