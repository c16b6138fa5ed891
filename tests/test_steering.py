"""`octet explain`: where a call would go, and why; nothing is sent."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.__main__ import main
from proxy.simulator import Simulator

Tree = dict[str, Any]
ROOT = Path(__file__).parent.parent
Capture = pytest.CaptureFixture[str]


def tree(base: str = "http://127.0.0.1:9", **server: Any) -> Tree:
    """Two upstreams, and a route of every kind that a call can tell apart."""
    openai = {"provider": "openai", "base_url": f"{base}/openai/v1", "api_key": "sk-secret", "labels": {"zone": "eu"}}
    claude = {"provider": "anthropic", "base_url": f"{base}/anthropic", "api_key": "sk-secret"}
    targets = [{"upstream": "claude", "model": "claude-haiku-4-5"}]
    return {
        "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "direct_models": True, **server},
        "upstreams": {"openai": openai, "claude": claude, "laptop": {"provider": "ollama", "base_url": base}},
        "routes": [
            {"name": "team", "match": {"headers": {"x-team": "search"}, "model": "gpt-*"}, "targets": targets},
            {"name": "streams", "match": {"stream": True, "model": "gpt-*"}, "targets": targets},
            {"name": "tools", "match": {"tools": True}, "targets": targets},
            {
                "name": "gpt", "match": {"model": "gpt-*"}, "require": {"zone": "eu"},
                "targets": [{"upstream": "openai", "model": "gpt-4o-mini"}, {"upstream": "laptop"}],
                "fallback": [{"upstream": "openai", "model": "gpt-4o"}], "cache": {"any_temperature": True},
                "mirror": {"upstream": "openai", "model": "copy", "share": 0.25},
            },
        ],
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The usual file."""
    return write(tmp_path, tree())


def write(directory: Path, content: Tree, name: str = "octet.yaml") -> Path:
    made = directory / name
    made.write_text(json.dumps(content))
    return made


def explained(path: Path, *options: str, capsys: Capture) -> Tree:
    """What --json prints."""
    assert main(["explain", str(path), *options, "--json"]) == 0
    told: Tree = json.loads(capsys.readouterr().out)
    return told


def test_the_text(path: Path, capsys: Capture) -> None:
    """People are told what was passed over, where the call goes first, what is skipped, copied and kept."""
    assert main(["explain", str(path), "--model", "gpt-5"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("gpt-5: about ")
    assert lines[1] == "passed over team: match.headers.x-team does not fit"
    assert lines[2:4] == ["streams: match.stream does not fit", "tools: match.tools does not fit"]
    assert lines[4] == "route gpt (ordered)"
    assert lines[5].startswith("targets 1. openai/gpt-4o-mini (")
    assert lines[5].endswith("<- goes here")
    assert lines[6].startswith("2. openai/gpt-4o (fallback; ")
    assert "skipped laptop/gpt-5: require of the route" in lines
    assert "copies openai/copy (25.0%)" in lines
    assert lines[-1].startswith("cache key ")
    assert out.count("<- goes here") == 1
    assert "sk-secret" not in out


CASES: list[tuple[list[str], str]] = [
    (["--model", "gpt-5"], "gpt"),
    (["--model", "gpt-5", "--header", "X-Team=search"], "team"),
    (["--model", "gpt-5", "--header", "x-team=other", "--header", "x-other=search"], "gpt"),
    (["--model", "gpt-5", "--header", "x-team="], "gpt"),
    (["--model", "gpt-5", "--stream"], "streams"),
    (["--model", "claude/anything"], "direct"),
    (["--model", "gpt-5", "--operation", "embeddings"], "gpt"),
    (["--model", "gpt-5", "--operation", "completions", "--stream"], "streams"),
]


@pytest.mark.parametrize(("options", "route"), CASES)
def test_what_is_told_of_a_call_decides(path: Path, options: list[str], route: str, capsys: Capture) -> None:
    """Model, headers, mode and operation are those of the call that is explained."""
    assert explained(path, *options, capsys=capsys)["route"] == route


def test_a_body_of_a_file(path: Path, tmp_path: Path, capsys: Capture) -> None:
    """A call's own body can be explained; what is named beside it wins over what it says."""
    body = {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "x" * 4000}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    file = write(tmp_path, body, "body.json")
    told = explained(path, "--body", str(file), capsys=capsys)
    assert (told["model"], told["route"]) == ("gpt-5", "tools")
    assert told["tokens"]["prompt"] >= 1000
    told = explained(path, "--body", str(file), "--model", "gpt-6", "--stream", capsys=capsys)
    assert (told["model"], told["route"]) == ("gpt-6", "streams")


def test_callers(tmp_path: Path, capsys: Capture) -> None:
    """A caller is named as the file names it; what it may not ask for is refused, and an unknown one is an error."""
    callers = [{"name": "search", "key": "k1", "models": ["gpt-*"]}, {"name": "batch", "key": "k2"}]
    path = write(tmp_path, tree(callers=callers))
    assert explained(path, "--model", "gpt-5", "--caller", "search", capsys=capsys)["caller"] == "search"
    told = explained(path, "--model", "claude/x", "--caller", "search", capsys=capsys)
    assert (told["route"], told["refused"]["status"]) == (None, 403)
    assert main(["explain", str(path), "--model", "gpt-5", "--caller", "nobody"]) == 2
    assert capsys.readouterr().err == "octet explain: there is no such caller; known: search, batch\n"


def test_no_route(path: Path, capsys: Capture) -> None:
    """A call that no rule takes is said to be refused, with every rule that was passed over."""
    assert main(["explain", str(path), "--model", "nobody"]) == 0
    out = capsys.readouterr().out
    assert out.count("does not fit") == 4
    assert "refused      404 model_not_found" in out
    told = explained(path, "--model", "nobody", capsys=capsys)
    assert (told["route"], told["targets"], told["refused"]["code"]) == (None, [], "model_not_found")


BAD: list[tuple[list[str], str]] = [
    ([], "you must provide a model parameter"),
    (["--model", ""], "must be 1 to"),
    (["--model", "x\ny"], "printable"),
    (["--model", "x", "--header", "x-team"], "write a header as NAME=VALUE"),
    (["--model", "x", "--header", "=v"], "write a header as NAME=VALUE"),
    (["--model", "x", "--body", "nowhere.json"], "holds no call"),
    (["--body", "odd.json"], "holds no call"),
    (["--model", "x", "--body", "list.json"], "'body' is a call's body, an object"),
]


@pytest.mark.parametrize(("options", "wanted"), BAD)
def test_what_is_no_call(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], wanted: str, capsys: Capture
) -> None:
    """What describes no call is one line on stderr, and exit code 2."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("odd.json").write_bytes(b'{"model": \xff')
    tmp_path.joinpath("list.json").write_text("[1]")
    assert main(["explain", str(path), *options]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith("octet explain: ")
    assert wanted in captured.err


def test_a_body_that_is_nested_too_deeply(path: Path, tmp_path: Path, capsys: Capture) -> None:
    """A body that nests too deeply holds no call, like any other nonsense."""
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    assert main(["explain", str(path), "--model", "x", "--body", str(file)]) == 2
    assert "holds no call" in capsys.readouterr().err


def test_a_bad_file(tmp_path: Path, capsys: Capture) -> None:
    """A configuration with mistakes explains nothing: each is told, exit code 2."""
    path = write(tmp_path, {"upstreams": {"a": {"provider": "opnai"}}})
    for file in (path, tmp_path / "nowhere.yaml"):
        assert main(["explain", str(file), "--model", "x"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert str(file) in captured.err


def test_a_key_that_is_not_here(tmp_path: Path, capsys: Capture) -> None:
    """A key's file that cannot be used is a mistake as it is when serving, with its place."""
    content = tree()
    del content["upstreams"]["openai"]["api_key"]
    tmp_path.joinpath("empty").touch()
    for file, wanted in (("nowhere", "there is no file"), ("empty", "the file cannot be read, or holds no key")):
        content["upstreams"]["openai"]["api_key_file"] = str(tmp_path / file)
        assert main(["explain", str(write(tmp_path, content)), "--model", "gpt-5"]) == 2
        assert f"upstreams.openai.api_key_file: {wanted}" in capsys.readouterr().err


def test_with_redis_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    """What is shared through Redis is not asked for: an address where nobody is changes nothing."""
    content = {
        **tree(),
        "redis": {"url": "redis://127.0.0.1:1/0"},
        "cache": {"redis": {"url": "redis://127.0.0.1:1/1"}},
    }
    assert explained(write(tmp_path, content), "--model", "gpt-5", capsys=capsys)["route"] == "gpt"


async def test_the_same_as_the_admin_side_and_nothing_is_sent(simulator: Simulator, tmp_path: Path) -> None:
    """The command and a running sidecar with the same file give the same answer, and no upstream hears of either."""
    content = tree(simulator.url)
    content["upstreams"]["laptop"]["list_models"] = False
    path = write(tmp_path, content)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    async def octet(*arguments: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "proxy", *arguments)
        return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environ, cwd=tmp_path)

    serving = await octet("serve", str(path))
    try:
        assert serving.stderr is not None
        while not (line := (await serving.stderr.readline()).decode()).startswith("  admin "):
            assert line, "it has ended"
        admin = line.split()[1].removesuffix("/metrics")
        for options, asked in (
            (["--model", "gpt-5"], {"model": "gpt-5"}),
            (["--model", "gpt-5", "--stream"], {"model": "gpt-5", "stream": True}),
            (["--model", "gpt-5", "--header", "x-team=search"], {"model": "gpt-5", "headers": {"x-team": "search"}}),
            (["--model", "gpt-5", "--operation", "embeddings"], {"model": "gpt-5", "operation": "embeddings"}),
            (["--model", "claude/x"], {"model": "claude/x"}),
            (["--model", "nobody"], {"model": "nobody"}),
        ):
            process = await octet("explain", str(path), *options, "--json")
            out, err = await process.communicate()
            assert (process.returncode, err) == (0, b"")
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{admin}/admin/explain", json=asked) as response,
            ):
                assert json.loads(out) == await response.json()
    finally:
        serving.kill()
        await serving.communicate()
    assert (simulator.report.calls, list(simulator.report.requests)) == (0, [])


async def test_upstreams_whose_models_are_listed_are_not_asked(simulator: Simulator, tmp_path: Path) -> None:
    """Explaining opens no connection to any upstream, also not to ask for its models."""
    path = write(tmp_path, tree(simulator.url))
    assert await asyncio.to_thread(main, ["explain", str(path), "--model", "laptop/x"]) == 0
    assert (list(simulator.report.requests), simulator.report.open_connections) == ([], 0)


def test_names_that_are_no_text_can_be_printed(path: Path) -> None:
    """A name that a terminal cannot show is refused or shown somehow: never a traceback."""
    assert main(["explain", str(path), "--model", "gpt-\udcff"]) in (0, 2)


def test_a_target_that_stands_twice_is_marked_once(tmp_path: Path, capsys: Capture) -> None:
    """Only one line says that the call goes there."""
    content = tree()
    content["routes"] = [{"name": "one", "targets": [{"upstream": "openai", "model": "m"}] * 2}]
    assert main(["explain", str(write(tmp_path, content)), "--model", "x"]) == 0
    assert capsys.readouterr().out.count("<- goes here") == 1
