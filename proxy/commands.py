"""The commands: serve, demo, simulate, check, explain, diff, schema, healthcheck."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy import __version__, probe
from proxy.config import Address, Config, ConfigError, parse_address
from proxy.process import run, settle

if TYPE_CHECKING:
    from proxy.app import App
    from proxy.sources import Source
    from proxy.workers.supervisor import Supervisor

FOUND_NOTHING = """octet: no configuration and no upstream in the environment.

  Try it without any:   octet demo
  With a file:          octet serve octet.yaml
  From the environment: set OPENAI_API_KEY, ANTHROPIC_API_KEY, HUGGINGFACE_API_KEY or HF_TOKEN, OLLAMA_BASE_URL,
                        VLLM_BASE_URL, TGI_BASE_URL, RAYSERVE_BASE_URL or BENTOML_BASE_URL and start again
"""
EXIT_MISTAKES = 2


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigError as error:
        _print(sys.stderr, *error.mistakes)
        return EXIT_MISTAKES
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="octet", description="An OpenAI-compatible sidecar.")
    parser.add_argument("--version", action="version", version=f"octet {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        return made

    serve = add("serve", _serve, "Run; without CONFIG, upstreams come from the environment.")
    serve.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file")
    demo = add("demo", _demo, "Run simulated upstreams and the sidecar in front of them.")
    for each in (serve, demo):
        each.add_argument("--listen", type=_address, action="append", metavar="HOST:PORT", help="or unix:PATH")
        each.add_argument("--admin", type=_address, metavar="HOST:PORT", help="or unix:PATH")
    simulate = add("simulate", _simulate, "Run the simulated upstreams alone.")
    simulate.add_argument("--listen", type=_address, default=Address("127.0.0.1", 8082), metavar="HOST:PORT")
    simulate.add_argument("--pace", type=float, default=0.02, metavar="SECONDS", help="between tokens (0.02)")
    check = add("check", _check, "Say what is wrong with a configuration; exit 0 or 2.")
    check.add_argument("config", nargs="?", metavar="CONFIG")
    check.add_argument("--faults", action="store_true", help="print what follows each kind of failure")
    why = add("explain", _explain, "Say where a call would go, and why; nothing is sent.")
    why.add_argument("config", metavar="CONFIG")
    why.add_argument("--model", help="as the application asks for it")
    why.add_argument("--header", action="append", metavar="NAME=VALUE")
    why.add_argument("--caller", help="the name of a caller in the file")
    why.add_argument("--stream", action="store_true")
    why.add_argument("--operation", choices=("chat", "completions", "embeddings"), default="chat")
    why.add_argument("--body", metavar="FILE", help="the call's body, in place of a short message")
    why.add_argument("--json", action="store_true", help="all that is known, as JSON")
    diff = add("diff", _diff, "Say what another configuration would change.")
    diff.add_argument("old", metavar="OLD")
    diff.add_argument("new", metavar="NEW")
    calls = diff.add_mutually_exclusive_group()
    calls.add_argument("--log", metavar="FILE", help="an access log: how many of its calls would go elsewhere")
    calls.add_argument("--calls", metavar="URL", help="the same of a running sidecar's last calls: its admin address")
    diff.add_argument("--token", help="its server.admin_token")
    add("schema", _schema, "Print the JSON Schema of the configuration.")
    add("healthcheck", probe.check, probe.PROMISE).add_argument("--admin", **probe.ADMIN)
    return parser


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _serve(options: argparse.Namespace) -> int:
    from proxy.config import load_environment
    from proxy.providers import traits
    from proxy.sources import FileSource, FixedSource

    if options.config is not None:
        file = FileSource(options.config, partial(_with_flags, options=options))
        text = file.read()
        return _serve_as(file.parse(text), file, text)
    config = load_environment(traits(), os.environ)
    if config is None:
        sys.stderr.write(FOUND_NOTHING)
        return EXIT_MISTAKES
    return _serve_as(_with_flags(config, options), FixedSource("the environment"))


def _serve_as(config: Config, source: "Source", text: bytes | None = None) -> int:
    if config.server.workers > 1:
        from proxy.workers.child import Nursery
        from proxy.workers.supervisor import Supervisor

        nursery = Nursery.forked()
        return run(_serve_until_stopped(lambda: Supervisor(config, source, text, nursery), config, source))
    from proxy.app import App

    return run(_serve_until_stopped(lambda: App(config, source=source, text=text), config, source))


def _with_flags(config: Config, options: argparse.Namespace) -> Config:
    flags: dict[str, Any] = {}
    if options.listen:
        flags["listen"] = tuple(options.listen)
    if options.admin:
        flags["admin"] = options.admin
    return config.model_copy(update={"server": config.server.model_copy(update=flags)})


async def _serve_until_stopped(
    make: "Callable[[], App | Supervisor]",
    config: Config,
    source: "Source",
    epilogue: Callable[[str], str] | None = None,
) -> int:
    from proxy.edge.listening import ListenError
    from proxy.summary import base_url, summary

    app = make()

    def tell() -> None:
        settle()
        _print(sys.stderr, summary(config, app.addresses, app.admin, source.name))
        if epilogue is not None:
            _print(sys.stderr, epilogue(base_url(app.addresses[0])))

    try:
        await app.run(tell)
    except ListenError as error:
        _print(sys.stderr, f"octet: {error}")
        return 1
    return 0


def _demo(options: argparse.Namespace) -> int:
    return run(_demo_until_stopped(options))


async def _demo_until_stopped(options: argparse.Namespace) -> int:
    from proxy.app import App
    from proxy.demo import demo_config, snippets
    from proxy.simulator import Simulator
    from proxy.sources import FixedSource

    async with Simulator(pace=0.05, record=False) as simulator:
        config = _with_flags(demo_config(simulator.url), options)
        source = FixedSource("the demo, with simulated upstreams")
        return await _serve_until_stopped(lambda: App(config, source=source), config, source, epilogue=snippets)


def _simulate(options: argparse.Namespace) -> int:
    return run(_simulate_until_stopped(options.listen, options.pace))


async def _simulate_until_stopped(address: Address, pace: float) -> int:
    from proxy.simulator import Simulator
    from proxy.simulator.server import DIALECTS

    simulator, stopped = Simulator(pace=pace, record=False), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        if address.path:
            await simulator.start(path=address.path)
        else:
            await simulator.start(address.host, address.port)
    except OSError as error:
        _print(sys.stderr, f"octet: cannot listen at {address}: {error.strerror or error}")
        return 1
    _print(sys.stderr, "simulated upstreams:", *(f"  {name:12} {simulator.base_url(name)}" for name in DIALECTS))
    await stopped.wait()
    await simulator.close()
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.faults:
        _print_faults()
    elif options.config is None:
        _print(sys.stderr, "octet check: name a CONFIG, or --faults")
        return EXIT_MISTAKES
    if options.config is None:
        return 0
    try:
        config = _load(options.config)
    except ConfigError as error:
        _print(sys.stdout, *error.mistakes)
        return EXIT_MISTAKES
    counts = f"upstreams: {len(config.upstreams)}, routes: {len(config.routes)}"
    _print(sys.stdout, f"{options.config}: no mistakes ({counts})")
    return 0


def _load(path: str) -> Config:
    from proxy.config import load
    from proxy.providers import traits

    return load(path, traits(), os.environ)


def _explain(options: argparse.Namespace) -> int:
    from proxy.errors import ProxyError
    from proxy.steering import explained, explanation

    try:
        told = asyncio.run(explained(_load(options.config), options))
    except ProxyError as error:
        _print(sys.stderr, f"octet explain: {error.message}")
        return EXIT_MISTAKES
    _print(sys.stdout, *([json.dumps(told, indent=2)] if options.json else explanation(told)))
    return 0


def _diff(options: argparse.Namespace) -> int:
    from proxy.steering import compared, log_lines, recent_calls

    old, new, lines = _load(options.old), _load(options.new), None
    try:
        if options.log is not None:
            lines = list(log_lines(options.log))
        elif options.calls is not None:
            lines = recent_calls(options.calls, options.token)
    except (OSError, ValueError, KeyError) as error:
        _print(sys.stderr, f"octet diff: no calls to be had from {options.log or options.calls}: {error}")
        return EXIT_MISTAKES
    _print(sys.stdout, *compared(old, new, lines))
    return 0


def _print_faults() -> None:
    from proxy.resilience.policy import table

    rows = list(table())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        _print(sys.stdout, "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _schema(options: argparse.Namespace) -> int:  # noqa: ARG001
    from proxy.config import json_schema
    from proxy.providers import traits

    _print(sys.stdout, json.dumps(json_schema(traits()), indent=2))
    return 0


def _print(stream: Any, *lines: object) -> None:
    stream.write("".join(f"{line}\n" for line in lines))
    stream.flush()
