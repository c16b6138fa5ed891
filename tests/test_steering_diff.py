"""`octet diff`: what another configuration would change, and for which calls."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.__main__ import main
from proxy.simulator import Simulator

Tree = dict[str, Any]
Capture = pytest.CaptureFixture[str]
Run = Callable[..., Awaitable[tuple[int, str, str]]]
ROOT = Path(__file__).parent.parent
LINE = {"model_asked": "one", "route": "one", "upstream": "a", "model": "m", "stream": False, "caller": None}


def tree(**sections: Any) -> Tree:
    """Two upstreams, and a route to the first."""
    upstreams = {name: {"provider": "openai", "api_key": "sk-secret"} for name in "ab"}
    routes = [{"name": "one", "match": {"model": "one"}, "targets": [{"upstream": "a", "model": "m"}]}]
    return {"upstreams": upstreams, "routes": routes, **sections}


def to_b(base: Tree) -> Tree:
    """The same, whose route leads to the second."""
    return {**base, "routes": [{**base["routes"][0], "targets": [{"upstream": "b", "model": "m"}]}]}


@pytest.fixture
def diff(tmp_path: Path, capsys: Capture) -> Callable[..., tuple[int, list[str], str]]:
    """Runs the command; its exit code, its lines and its complaints."""

    def run(old: Tree, new: Tree, *options: str) -> tuple[int, list[str], str]:
        for name, content in (("old", old), ("new", new)):
            tmp_path.joinpath(f"{name}.yaml").write_text(json.dumps(content))
        code = main(["diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), *options])
        captured = capsys.readouterr()
        assert "sk-secret" not in captured.out + captured.err
        return code, captured.out.splitlines(), captured.err

    return run


Diff = Callable[..., tuple[int, list[str], str]]
TWO = {"name": "two", "match": {"model": "two"}, "targets": [{"upstream": "a"}]}
CALLERS = {"callers": [{"name": "x", "key": "sk-secret-1"}]}
CHANGES: list[tuple[Tree, Tree, list[str]]] = [
    ({}, {}, ["no difference"]),
    ({}, {"server": {"drain_seconds": 5}}, ["server altered (drain_seconds)"]),
    ({}, {"server": CALLERS}, ["server.callers.x added"]),
    ({"server": CALLERS}, {}, ["server.callers.x removed"]),
    (
        {"server": CALLERS},
        {"server": {"callers": [{"name": "x", "key": "sk-secret-2"}]}},
        ["server.callers.x altered (key)"],
    ),
    ({}, {"routes": [*tree()["routes"], TWO]}, ["routes.two added"]),
    ({"routes": [*tree()["routes"], TWO]}, {}, ["routes.two removed"]),
    ({}, to_b(tree()), ["routes.one altered (targets)"]),
    ({"routes": [TWO, *tree()["routes"]]}, {"routes": [*tree()["routes"], TWO]}, ["routes moved"]),
    ({}, {"redis": {"url": "redis://127.0.0.1"}}, ["redis added"]),
    ({"redis": {"url": "redis://127.0.0.1"}}, {}, ["redis removed"]),
    ({}, {"cache": {"memory": {"max_bytes": 1}}}, ["cache altered (memory)"]),
]


@pytest.mark.parametrize(("old", "new", "lines"), CHANGES)
def test_changes_of_every_kind(diff: Diff, old: Tree, new: Tree, lines: list[str]) -> None:
    """Every change has its line, with the place and what was altered there, and no value; the exit code is 0."""
    assert diff(tree(**old), tree(**new)) == (0, [f"  {line}" for line in lines], "")


def test_upstreams(diff: Diff) -> None:
    """Upstreams that come, go and change are told in this order, keys by their names alone."""
    old, new = tree(), tree()
    new["upstreams"] = {
        "a": {"provider": "openai", "api_key": "sk-secret-2", "labels": {"z": "1"}},
        "c": {"provider": "ollama"},
    }
    code, lines, _ = diff(old, new)
    assert code == 0
    assert lines[:2] == ["  upstreams.b removed", "  upstreams.a altered (api_key, labels)"]
    assert lines[2:] == ["  upstreams.c added"]


def test_a_log_with_odd_lines(diff: Diff, tmp_path: Path) -> None:
    """Lines that are no access lines are passed over, whatever they are; the calls are counted."""
    log = tmp_path / "access.log"
    odd = [b"octet 0.1.0", b"", b"[1]", b'"text"', b"null", b"5", b"\xff\xfe", b"{", b"{}", b'{"route": "o',
           json.dumps({**LINE, "route": None}).encode(), b"9" * 5000]  # fmt: skip
    log.write_bytes(b"\n".join([*odd, *[json.dumps(LINE).encode()] * 3]))
    code, lines, _ = diff(tree(), to_b(tree()), "--log", str(log))
    assert code == 0
    assert lines == [
        "  routes.one altered (targets)",
        "of 3 calls: 0 would go where they went, 3 elsewhere, 0 would be refused, of 0 it cannot be told",
        "  3  one: a/m  ->  one: b/m",
    ]


def test_an_empty_log(diff: Diff, tmp_path: Path) -> None:
    """A log without calls says so."""
    tmp_path.joinpath("empty").write_bytes(b"")
    code, lines, _ = diff(tree(), tree(), "--log", str(tmp_path / "empty"))
    assert (code, lines[1][:10]) == (0, "of 0 calls")


def test_what_would_be_refused_or_cannot_be_told(diff: Diff, tmp_path: Path) -> None:
    """Calls that nobody would take, and calls of which nobody knows, are told by their routes."""
    log = tmp_path / "access.log"
    log.write_text(
        "\n".join(json.dumps(line) for line in [*[LINE] * 2, *[{**LINE, "model_asked": "two", "route": "two"}] * 3])
    )
    old = tree(routes=[*tree()["routes"], TWO])
    new = tree(routes=[{**tree()["routes"][0], "match": {"model": "one", "tools": False}}])
    code, lines, _ = diff(old, new, "--log", str(log))
    assert code == 0
    assert "of 5 calls: 0 would go where they went, 0 elsewhere, 3 would be refused, of 2 it cannot be told" in lines
    assert lines[-2:] == ["  3  two  ->  refused", "  2  one  ->  cannot be told"]


def test_a_line_that_is_nested_too_deeply(diff: Diff, tmp_path: Path) -> None:
    """A line that nests too deeply is passed over like any other nonsense."""
    tmp_path.joinpath("log").write_text("[" * 100_000 + "\n" + json.dumps(LINE))
    code, lines, _ = diff(tree(), tree(), "--log", str(tmp_path / "log"))
    assert (code, lines[1][:10]) == (0, "of 1 calls")


@pytest.mark.parametrize("model", ["m\x1b[2J", "m\ud800"])
def test_what_callers_wrote_does_not_steer_a_terminal(diff: Diff, tmp_path: Path, model: str) -> None:
    """A log's texts are shown without control characters, and what cannot be printed is no traceback."""
    tmp_path.joinpath("log").write_text(json.dumps({**LINE, "model": model}))
    code, lines, _ = diff(tree(), to_b(tree()), "--log", str(tmp_path / "log"))
    assert code == 0
    assert all(line.isprintable() for line in lines)


def test_bad_files_and_logs(diff: Diff, tmp_path: Path) -> None:
    """A file with mistakes, in either place, and a log that is not there are told; exit code 2."""
    bad = tree(routes=[{"name": "one", "targets": [{"upstream": "c"}]}])
    for old, new, name in ((bad, tree(), "old.yaml"), (tree(), bad, "new.yaml")):
        code, lines, complaint = diff(old, new)
        assert (code, lines) == (2, [])
        assert name in complaint
    for nothing in (tmp_path / "nowhere", tmp_path):
        code, lines, complaint = diff(tree(), tree(), "--log", str(nothing))
        assert (code, lines, complaint.count("\n")) == (2, [], 1)
        assert complaint.startswith(f"octet diff: no calls to be had from {nothing}: ")


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[str]:
    """Somebody who says the same to whoever connects; the address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)


ODD = [
    b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ok(b"no JSON"), ok(b"{}"), b"",
    b"-ERR unknown command\r\n", ok(b"[]"),
    ok(b'{"calls": 5}'), ok(b'{"calls": [5]}'),
    b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
]  # fmt: skip


@pytest.mark.parametrize("data", ODD)
async def test_an_address_that_is_no_sidecar(diff: Diff, data: bytes) -> None:
    """Whatever answers at the address, if it is not the admin side of a sidecar that is one line, and exit code 2."""
    async with answering(data) as url:
        code, _, complaint = await asyncio.to_thread(diff, tree(), tree(), "--calls", url)
    assert code == 2
    assert complaint.startswith(f"octet diff: no calls to be had from {url}: ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8081", "localhost:8081", "http://", "nonsense"])
def test_an_address_where_nobody_is(diff: Diff, url: str) -> None:
    """Where nobody answers, or what is no address, is told; exit code 2."""
    code, lines, complaint = diff(tree(), tree(), "--calls", url)
    assert (code, lines) == (2, [])
    assert complaint.startswith(f"octet diff: no calls to be had from {url}: ")


def test_a_log_and_a_sidecar_exclude_each_other(diff: Diff) -> None:
    """Calls come from one place."""
    with pytest.raises(SystemExit) as ended:
        diff(tree(), tree(), "--log", "x", "--calls", "http://x")
    assert ended.value.code == 2


@pytest.mark.parametrize("workers", [1, 3])
async def test_the_calls_of_a_running_sidecar(simulator: Simulator, tmp_path: Path, workers: int) -> None:
    """The last calls of a sidecar, of all its workers, are judged; its token is sent, and nothing goes upstream."""
    base = tree(server={"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "admin_token": "sk-token", "workers": workers})
    for upstream in base["upstreams"].values():
        upstream["base_url"] = simulator.base_url("openai")
    for name, content in (("old", base), ("new", to_b(base))):
        tmp_path.joinpath(f"{name}.yaml").write_text(json.dumps(content))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    command = (sys.executable, "-m", "proxy")
    serving = await asyncio.create_subprocess_exec(
        *command, "serve", "old.yaml", stdout=DEVNULL, stderr=PIPE, env=environ, cwd=tmp_path
    )
    try:
        assert serving.stderr is not None
        urls = dict[str, str]()
        while "routes" not in (line := (await serving.stderr.readline()).decode()):
            assert line, "it has ended"
            if found := [word for word in line.split() if word.startswith("http")]:
                urls[line.split()[0]] = found[0]
        body = {"model": "one", "messages": [{"role": "user", "content": "Hi"}]}
        for _ in range(9):
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{urls['base']}/chat/completions", json=body) as response,
            ):
                assert response.status == 200
        admin = urls["admin"].removesuffix("metrics")  # ends with a slash, as people paste it
        diff = await asyncio.create_subprocess_exec(
            *command, "diff", "old.yaml", "new.yaml", "--calls", admin, "--token", "sk-token",
            stdout=PIPE, stderr=PIPE, env=environ, cwd=tmp_path,
        )  # fmt: skip
        out, err = await diff.communicate()
    finally:
        serving.terminate()
        await serving.communicate()
    assert (diff.returncode, err) == (0, b"")
    assert "of 9 calls: 0 would go where they went, 9 elsewhere" in out.decode()
    assert "  9  one: a/m  ->  one: b/m" in out.decode()
    assert simulator.report.calls == 9


async def test_the_token_is_sent(diff: Diff) -> None:
    """With --token the sidecar sees it as it wants it, without there is none."""
    seen = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ok(json.dumps({"calls": [LINE]}).encode()))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
        for options in ([], ["--token", "sk-token"]):
            code, lines, _ = await asyncio.to_thread(diff, tree(), tree(), "--calls", url, *options)
            assert (code, lines[1][:27]) == (0, "of 1 calls: 1 would go wher")
    assert [b"Bearer sk-token" in head for head in seen] == [False, True]
    assert all(head.startswith(b"GET /admin/calls?limit=1000 HTTP/1.1\r\n") for head in seen)


async def test_no_proxy_is_told_the_token(diff: Diff, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of an operator's own sidecar is asked itself, whatever proxy the environment names."""
    async with answering(ok(b'{"calls": []}')) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setattr("urllib.request._opener", None)  # which remembers what the environment was
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        code, _, _ = await asyncio.to_thread(diff, tree(), tree(), "--calls", "http://127.0.0.1:1", "--token", "t")
    assert code == 2
