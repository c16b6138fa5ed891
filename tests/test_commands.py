"""The commands, as a person runs them."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.simulator import Behaviour, Simulator
from tests.redis_server import free_port

Octet = Callable[..., Awaitable[Process]]
Serving = Callable[..., Awaitable[tuple[Process, str]]]
ROOT = Path(__file__).parent.parent


@pytest.fixture
async def octet(tmp_path: Path) -> AsyncIterator[Octet]:
    """Starts `octet ARGUMENTS` with nothing of ours in its environment; ends what still runs."""
    running: list[Process] = []

    async def started(*arguments: str, stdout: int = PIPE, **environ: str) -> Process:
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", *arguments, stdout=stdout, stderr=PIPE, env=clean | environ, cwd=tmp_path
        )
        running.append(process)
        return process

    yield started
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def serving(octet: Octet, simulator: Simulator, tmp_path: Path) -> Serving:
    """Starts `octet serve` in front of the simulator, with more settings of the server; gives its base URL too."""

    async def started(settings: str, **options: Any) -> tuple[Process, str]:
        tmp_path.joinpath("octet.yaml").write_text(
            f"server: {{listen: '127.0.0.1:0', admin: '127.0.0.1:0', {settings}}}\n"
            f"upstreams: {{openai: {{provider: openai, base_url: '{simulator.base_url('openai')}'}}}}\n"
        )
        process = await octet("serve", "octet.yaml", **options)
        url = re.search(r"base URL +(\S+)", await read_until(process, "routes"))
        assert url is not None
        return process, url[1]

    return started


async def said(process: Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, out.decode(), err.decode()


async def read_until(process: Process, text: str) -> str:
    """What it says on stderr, up to and with a line that holds the text."""
    assert process.stderr is not None
    told = ""
    async with asyncio.timeout(30):
        while text not in told:
            line = await process.stderr.readline()
            assert line, f"it ended, saying: {told}"
            told += line.decode()
    return told


SIX_MISTAKES = """\
server: {listen: "127.0.0.1:99999", kep_alive_seconds: 5}
upstreams:
  openai: {provider: opnai, api_key: "${NO_SUCH_KEY}"}
  claude: {provider: anthropic, timeouts: {idle_seconds: soon}}
routes:
  - targets: [{upstream: cloude}]
"""


async def test_check_names_every_mistake(octet: Octet, tmp_path: Path) -> None:
    """Six mistakes are six lines, each with its place and a remedy; the exit code is 2."""
    tmp_path.joinpath("octet.yaml").write_text(SIX_MISTAKES)
    code, out, err = await said(await octet("check", "octet.yaml"))
    assert code == 2
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 6
    assert all(re.match(r"octet\.yaml:\d+:\d+: [\w.\[\]]+: ", line) for line in lines)
    for place, remedy in (
        ("1:", "write HOST:PORT"),
        ("1:", 'did you mean "keep_alive_seconds"?'),
        ("3:", 'did you mean "openai"?'),
        ("3:", "set it, or write ${NO_SUCH_KEY:-default}"),
        ("4:", "must be a number"),
        ("6:", 'did you mean "claude"?'),
    ):
        assert [line for line in lines if line.startswith(f"octet.yaml:{place}") and remedy in line]


async def test_check_of_a_good_file(octet: Octet) -> None:
    """A good file is said to be good."""
    code, out, _ = await said(await octet("check", str(ROOT / "config/octet.yaml")))
    assert code == 0
    assert "no mistakes" in out


async def test_check_prints_what_follows_each_failure(octet: Octet) -> None:
    """The table that decides, in aligned columns; a file beside it is checked too, and one of the two is needed."""
    code, out, _ = await said(await octet("check", "--faults"))
    assert code == 0
    heading, *rows = out.splitlines()
    assert re.split("  +", heading)[:3] == ["what", "examples", "next target"]
    (limited,) = (row for row in rows if row.startswith("limited "))
    assert limited.split() == [*"limited other 429 yes yes ignored 429 and retry-after".split()]
    code, out, _ = await said(await octet("check", "--faults", str(ROOT / "config/octet.yaml")))
    assert (code, out.splitlines()[0], "no mistakes" in out) == (0, heading, True)
    code, _, err = await said(await octet("check"))
    assert (code, "name a CONFIG" in err) == (2, True)


async def test_a_bad_file_is_not_served(octet: Octet, tmp_path: Path) -> None:
    """`serve` refuses what `check` refuses, and a file that is not there."""
    tmp_path.joinpath("octet.yaml").write_text(SIX_MISTAKES)
    code, _, err = await said(await octet("serve", "octet.yaml"))
    assert (code, len(err.splitlines())) == (2, 6)
    code, _, err = await said(await octet("serve", "nowhere.yaml"))
    assert code == 2
    assert "nowhere.yaml: cannot be read: No such file" in err


@pytest.mark.parametrize("unix", [False, True])
async def test_healthcheck_asks_whether_a_sidecar_is_ready(octet: Octet, tmp_path: Path, unix: bool) -> None:
    """0 where one is ready; 1, with the reason, where none is there or it drains."""
    admin = f"unix:{tmp_path}/admin" if unix else f"127.0.0.1:{await free_port()}"
    nobody = await said(await octet("healthcheck", "--admin", admin))
    assert (nobody[0], nobody[1]) == (1, "")
    assert f"octet healthcheck: {admin}: " in nobody[2]
    settings = f"{{listen: '127.0.0.1:0', admin: '{admin}', drain_delay_seconds: 20}}"
    tmp_path.joinpath("octet.yaml").write_text(
        f"server: {settings}\nupstreams: {{one: {{provider: openai, base_url: 'http://127.0.0.1:9/v1'}}}}\n"
    )
    sidecar = await octet("serve", "octet.yaml")
    await read_until(sidecar, "routes")
    assert await said(await octet("healthcheck", "--admin", admin)) == (0, "", "")
    sidecar.terminate()
    await read_until(sidecar, "stopping")
    code, _, told = await said(await octet("healthcheck", "--admin", admin))
    assert (code, told) == (1, f"octet healthcheck: {admin}: not ready (503)\n")


@pytest.mark.parametrize("admin", ["nonsense", "127.0.0.1:http", "unix:"])
async def test_healthcheck_of_no_address(octet: Octet, admin: str) -> None:
    """What is no address is a reason like any other, and no traceback."""
    code, _, told = await said(await octet("healthcheck", "--admin", admin))
    assert code == 1
    assert told.startswith(f"octet healthcheck: {admin}: ")
    assert "Traceback" not in told


async def test_healthcheck_loads_none_of_the_rest(octet: Octet, tmp_path: Path) -> None:
    """It runs every few seconds, and so imports neither the configuration nor a server."""
    script = "import sys; from proxy.__main__ import main; main(['healthcheck']); print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=PIPE, stderr=PIPE, cwd=ROOT, env={"PATH": os.environ["PATH"]}
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert not {"pydantic", "aiohttp", "yaml", "proxy.commands"} & set(out.decode().split())


async def test_schema_prints_json(octet: Octet) -> None:
    """The schema is one JSON document."""
    code, out, _ = await said(await octet("schema"))
    assert code == 0
    assert json.loads(out)["title"] == "Octet"


async def test_nothing_in_the_environment(octet: Octet) -> None:
    """Without file and keys it says what to do."""
    code, _, err = await said(await octet("serve"))
    assert code == 2
    assert "octet demo" in err
    assert "OPENAI_API_KEY" in err


async def test_the_environment_alone(octet: Octet) -> None:
    """With a key in the environment it starts, says what it found but not the key, and never reads OPENAI_BASE_URL."""
    process = await octet(
        *("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        OPENAI_API_KEY="sk-secret",
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
    )
    told = await read_until(process, "everything")
    assert "configured by the environment" in told
    assert "openai (exact) at https://api.openai.com/v1, key given" in told
    assert "gpt-* chatgpt-* ft:*" in told
    assert "sk-secret" not in told
    process.send_signal(signal.SIGTERM)
    assert (await said(process))[0] == 0


async def test_the_demo(octet: Octet) -> None:
    """The demo serves all its models, says how to call them, logs one JSON line per call, and stops on Ctrl-C."""
    process = await octet("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    told = await read_until(process, "Stop with Ctrl-C")
    url = re.search(r"base URL +(\S+)", told)
    assert url is not None
    snippets = re.findall(r"^(?:curl.*\\\n.*|\S+ - <<'PY'\n(?:.*\n)*?PY)$", told, re.MULTILINE)
    assert len(snippets) == 3
    async with aiohttp.ClientSession() as session:
        for snippet, wanted in zip(snippets[:2], ("chat.completion", "data: [DONE]"), strict=True):
            words = shlex.split(snippet)  # as a shell reads it; curl itself may not be there
            address = next(word for word in words if word.startswith("http"))
            headers = {"content-type": words[words.index("-H") + 1].partition(": ")[2]}
            async with session.post(address, data=words[words.index("-d") + 1], headers=headers) as response:
                assert wanted in await response.text()
    pasted = snippets[2].replace("python -", f"{sys.executable} -")
    shell = await asyncio.create_subprocess_shell(pasted, stdout=PIPE, stderr=PIPE)
    printed, complaint = await asyncio.wait_for(shell.communicate(), 30)
    assert "京都" in printed.decode(), complaint.decode()
    async with aiohttp.ClientSession() as session:
        for model in ("gpt-4o-mini", "claude-haiku-4-5", "ollama/qwen3"):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            async with session.post(f"{url[1]}/chat/completions", json=body) as response:
                assert response.status == 200
    process.send_signal(signal.SIGINT)
    code, out, _ = await said(process)
    assert code == 0
    assert [json.loads(line)["status"] for line in out.splitlines()] == [200] * 6


async def test_a_drain_ends_with_exit_code_0(serving: Serving, simulator: Simulator) -> None:
    """SIGTERM during a stream: the stream ends with an error event when drain_seconds are over; exit 0."""
    simulator.always("openai", Behaviour(text="one two three", stall=2))
    process, url = await serving("drain_seconds: 0.2")
    async with aiohttp.ClientSession() as session:
        body = {"model": "openai/x", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with session.post(f"{url}/chat/completions", json=body) as response:
            await response.content.readuntil(b"two")
            process.send_signal(signal.SIGTERM)
            rest = await response.read()
    assert b"shutting_down" in rest
    assert b"[DONE]" not in rest
    assert (await said(process))[0] == 0


async def test_a_second_signal_ends_at_once(serving: Serving, simulator: Simulator) -> None:
    """Who does not want to wait for the drain sends another signal; no traceback."""
    simulator.always("openai", Behaviour(text="one two three", stall=2))
    process, url = await serving("drain_seconds: 600")
    async with aiohttp.ClientSession() as session:
        body = {"model": "openai/x", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with session.post(f"{url}/chat/completions", json=body) as response:
            await response.content.readuntil(b"two")
            process.send_signal(signal.SIGTERM)
            await read_until(process, "1 in flight")
            process.send_signal(signal.SIGTERM)
            code, _, err = await said(process)
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in err


async def test_a_log_that_nobody_reads(serving: Serving, simulator: Simulator) -> None:
    """With a full pipe behind standard output calls go on, and SIGTERM ends the process."""
    reader, writer = os.pipe()
    process, url = await serving("drain_seconds: 1", stdout=writer)
    os.close(writer)
    async with aiohttp.ClientSession() as session:
        body = {"model": "openai/x", "messages": [{"role": "user", "content": "Hi"}]}
        for _ in range(400):
            async with session.post(f"{url}/chat/completions", json=body) as response:
                assert response.status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    os.close(reader)


async def test_simulate(octet: Octet) -> None:
    """The simulated upstreams alone say where each dialect is."""
    process = await octet("simulate", "--listen", "127.0.0.1:0")
    told = await read_until(process, "ollama")
    assert re.search(r"openai +http://127.0.0.1:\d+/openai/v1", told)
    process.send_signal(signal.SIGTERM)
    assert (await said(process))[0] == 0
