"""What a process says on its outputs: one JSON line for each call, whatever callers send, and no secret at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from proxy.__main__ import main
from proxy.simulator import Simulator
from tests.security.far_side import answer, far_side
from tests.security.process import serving
from tests.security.wire import head, read_answers, talk

CANARY = "cnry-8d41"
ODD = [
    "a\r\nb",
    "a\nb",
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x9b31m",
    "a\x00b",
    "a\u2028b",
    "a\u0085b",
    "\u202etxt",
    "\x7f",
]
PRINTABLE = ['{"forged":true}', '"}\\n{"', "\\n", "%0a", "ü\u4e2d", "<script>", "$(id)", "{{7*7}}", "${jndi:ldap://x}"]


def tree(simulator: Simulator) -> dict[str, Any]:
    upstream = {"provider": "openai", "base_url": simulator.base_url("openai"), "api_key": "sk-ours"}
    return {"upstreams": {"a": upstream}, "routes": [{"name": "r", "targets": [{"upstream": "a"}]}]}


def call(model: str, *lines: bytes, user: str = "u") -> bytes:
    """A call by hand."""
    fields = {"model": model, "messages": [{"role": "user", "content": "hi"}], "user": user, "metadata": {user: user}}
    body = json.dumps(fields).encode()
    return head(*lines, b"Content-Length: %d" % len(body), b"Connection: close") + body


async def test_no_line_is_forged(simulator: Simulator, tmp_path: Path) -> None:
    """A call is a line, in which nothing ends it, moves a cursor or is not JSON; standard error has none of it."""
    async with serving(tree(simulator), tmp_path) as served:
        for text in (*ODD, *PRINTABLE):
            value = text.encode().replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
            for whole in (
                call(text, user=text),
                call("gpt-4o-mini", b"X-Request-Id: " + value, b"Traceparent: " + value, b"User-Agent: " + value),
                call("gpt-4o-mini", b"Authorization: Bearer " + value, b"Cache-Control: " + value, b"Via: " + value),
            ):
                (told,) = read_answers(await talk(served.address, whole))
                assert told.status in (200, 400)
    lines = served.out.split(b"\n")
    assert lines.pop() == b""
    read = [json.loads(line) for line in lines]
    assert len(read) >= 2 * (len(ODD) + len(PRINTABLE))
    assert {tuple(line) for line in read} == {tuple(read[0])}
    assert {line["model_asked"] for line in read} == {None, "gpt-4o-mini", *PRINTABLE}
    for letter in served.out.replace(b"\n", b"").decode():
        assert letter.isprintable()
    assert served.err.decode().replace("\n", "").isprintable()
    assert len(served.err.splitlines()) < 20


async def test_an_upstreams_words_are_in_no_log(tmp_path: Path) -> None:
    """Nor do an upstream's header, id or error make a line, or stand on standard error."""
    error = json.dumps({"error": {"message": f"{CANARY}\n\x1b[2J", "code": CANARY, "type": CANARY}}).encode()
    async with far_side() as side:
        upstream = {"provider": "openai", "base_url": f"{side.url}/v1", "api_key": "sk-ours"}
        config = {"upstreams": {"a": upstream}, "routes": [{"targets": [{"upstream": "a"}], "retry": {"attempts": 1}}]}
        async with serving(config, tmp_path) as served:
            for status in (b"200 OK", b"400 a\x1b[2J", b"401 No", b"500 \xff", b"503 " + b"x" * 300):
                for body in (error, b"\x1b[2J\n" + CANARY.encode(), CANARY.encode() * 10):
                    side.said = answer(body, b"X-Request-Id: a\x1b[2J", b"X-Odd: " + CANARY.encode(), status=status)
                    await talk(served.address, call("gpt-4o-mini"))
    assert CANARY not in served.out.decode()
    assert served.out.replace(b"\n", b"").decode().isprintable()
    assert CANARY not in served.err.decode()
    assert b"\x1b" not in served.err


SPOILT: dict[str, str] = {
    "a user in the address": f"base_url: 'https://u:{CANARY}@h/v1'",
    "a query in the address": f"base_url: 'https://h/v1?sig={CANARY}'",
    "a fragment in the address": f"base_url: 'https://h/v1#{CANARY}'",
    "an address that is none": f"base_url: '{CANARY}'",
    "a user of the proxy": f"proxy: 'http://u:{CANARY}@h:1'",
    "another kind of proxy": f"proxy: 'socks5://u:{CANARY}@h:1'",
    "a header beyond ASCII": f'headers: {{x-a: "{CANARY}\\u00e9"}}',
    "a header's name": f"headers: {{'x a': {CANARY}, host: {CANARY}}}",
    "a list": f"api_key: [{CANARY}]",
    "a line end": f'api_key: "{CANARY}\\n{CANARY}"',
    "twice": f"api_key: {CANARY}, api_key: {CANARY}",
    "a key and a file": f"api_key: {CANARY}, api_key_file: /nowhere",
    "a default": f'api_key: "${{NO_SUCH:-{CANARY}}}", wire: wrong',
    "a quote": f"api_key: '{CANARY}",
    "a sign that YAML keeps": f"api_key: @{CANARY}",
    "an escape": f'api_key: "{CANARY}\\q"',
    "a query": f"query: {{code: {CANARY}}}, wire: wrong",
    "a key's file": "tls: {cert_file: c.pem, key_file: bad.pem}",
}


def said_by(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and words of a command."""
    code = main(arguments)
    return code, "".join(capfd.readouterr())


@pytest.mark.parametrize("case", SPOILT)
def test_no_secret_in_a_mistake(tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str) -> None:
    """`check`, `explain`, `diff` and `serve` name the place and quote no value; no traceback stands in for a word."""
    good, bad = tmp_path / "good.yaml", tmp_path / "octet.yaml"
    good.write_text("upstreams: {a: {provider: openai}}\nroutes: [{targets: [{upstream: a}]}]\n")
    spoilt = SPOILT[case].replace("c.pem", str(tmp_path / "c.pem")).replace("bad.pem", str(tmp_path / "bad.pem"))
    bad.write_text(f"upstreams: {{a: {{provider: openai, {spoilt}}}}}\nroutes: [{{targets: [{{upstream: a}}]}}]\n")
    trustme.CA().cert_pem.write_to_path(tmp_path / "c.pem")
    (tmp_path / "bad.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n")
    for arguments in (
        ("check", str(bad)),
        ("explain", str(bad), "--model", "x"),
        ("diff", str(good), str(bad)),
        ("serve", str(bad), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
    ):
        code, said = said_by(capfd, *arguments)
        assert CANARY not in said, arguments
        assert "Traceback" not in said, arguments
        assert code == 2 or (case == "a key's file" and arguments[0] != "serve"), (arguments, said)


def test_a_key_that_looks_like_a_tag(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A key with `!` before it, without quotes, is a tag to YAML, and quoted no more than any other value."""
    file = tmp_path / "octet.yaml"
    file.write_text(f"upstreams: {{a: {{provider: openai, api_key: !{CANARY} }}}}\n")
    code, said = said_by(capfd, "check", str(file))
    assert code == 2
    assert CANARY not in said


def full(base_url: str, endpoint: str, directory: Path) -> dict[str, Any]:
    """A configuration that loads, with a secret wherever one may stand."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    (directory / "key").write_text(f"{CANARY}-file\n")
    beside = {"headers": {"x-own": f"{CANARY}-header"}, "query": {"sig": f"{CANARY}-query"}}
    one = {"provider": "openai", "base_url": base_url, "api_key": f"{CANARY}-key", **beside}
    two = {
        **one,
        "provider": "vllm",
        "api_key_file": str(directory / "key"),
        "tls": {"ca_file": str(directory / "ca.pem")},
    }
    del two["api_key"]
    targets = [{"upstream": "a", "headers": {"x-t": f"{CANARY}-target"}}]
    url = f"redis://u:{CANARY}-redis@127.0.0.1:1/0"
    return {
        "server": {"admin_token": f"{CANARY}-token", "callers": [{"name": "c", "key": f"{CANARY}-caller"}]},
        "upstreams": {"a": one, "b": two},
        "routes": [{"name": "r", "targets": targets, "fallback": [{"upstream": "b"}], "cache": {}}],
        "redis": {"url": url},
        "cache": {"redis": {"url": url}},
        "tracing": {"endpoint": endpoint, "headers": {"authorization": f"{CANARY}-tracing"}},
    }


def test_no_secret_of_a_good_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`check`, `explain`, `diff` and `schema` tell none, though they compare and decide by them."""
    config = full("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/traces", tmp_path)
    good, other, log = tmp_path / "good.yaml", tmp_path / "other.yaml", tmp_path / "access.log"
    good.write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    other.write_text(yaml.safe_dump(json.loads(json.dumps(config).replace(CANARY, f"other-{CANARY}"))))
    log.write_text('{"model_asked": "x", "caller": "c", "route": "r"}\n')
    for arguments in (
        ("check", str(good)),
        ("explain", str(good), "--model", "x", "--caller", "c"),
        ("diff", str(good), str(other), "--log", str(log)),
        ("schema",),
    ):
        code, said = said_by(capfd, *arguments)
        assert code == 0, said
        assert said
        assert CANARY not in said, arguments


async def test_no_secret_in_what_a_process_says(tmp_path: Path) -> None:
    """From its start to its end, on both outputs and in its metrics, while each secret goes where it belongs."""
    async with far_side() as side, far_side(answer(b"")) as collector:
        config = full(f"{side.url}/v1", f"{collector.url}/v1/traces", tmp_path)
        async with serving(json.loads(json.dumps(config)), tmp_path) as served:
            shown = b"Authorization: Bearer " + f"{CANARY}-caller".encode()
            (told,) = read_answers(await talk(served.address, call("x", shown)))
            assert told.status == 200
            side.said = answer(
                f'{{"error": "{CANARY}-key {CANARY}-header {CANARY}-target"}}'.encode(), status=b"400 No"
            )
            (refused,) = read_answers(await talk(served.address, call("y", shown)))
            page = await talk(served.admin, head(b"Connection: close", method="GET", target="/metrics"))
        sent, traced = b"".join(side.seen), b"".join(collector.seen)
    for place in ("key", "header", "query", "target"):
        assert f"{CANARY}-{place}".encode() in sent
    assert f"{CANARY}-tracing".encode() in traced
    assert not [text for text in (served.out, served.err, page, refused.body) if CANARY.encode() in text]
    assert len(served.out.splitlines()) == 2
