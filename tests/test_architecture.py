"""The picture of the rooms, enforced: imports point down, stages are strangers, pure rooms stay pure."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from proxy.edge.server import C_PARSER
from tests.together import together

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.joinpath("proxy").rglob("*.py"))

# From the top down. A room may import what stands on a lower line, and of its own line only itself.
LEVELS = (
    {"__main__"},
    {"commands"},
    {"demo", "workers"},
    {"app", "summary", "steering"},
    {"operations"},
    {"generations", "reload", "explain", "forecast"},
    {"resources"},
    {"equipment", "sources"},
    {"edge"},
    {"pipeline"},
    {"admission", "limits", "routing", "cache", "resilience", "upstream", "renewal"},
    {"providers"},
    {"telemetry", "shared_state"},
    {"config"},
    {"openai_format"},
    {"framing", "reply"},
    {"call", "errors", "process", "probe"},
    {"__init__"},
)
PURE = {"routing", "providers", "openai_format", "framing", "call", "errors"}
IMPURE_MODULES = {"asyncio", "time", "random", "socket", "logging", "os", "aiohttp", "secrets", "urllib.request"}
# Of the providers' room, what is no dialect; and the dialects that are served by other dialects' engines.
SHARED_BY_PROVIDERS = {"__init__", "seam", "exact", "pattern", "splice", "relay", "fanout", "embeddings"}
BUILDS_ON = {
    "huggingface": {"tgi", "vllm"},
    "tgi": {"template"},
    "template": {"vllm"},
    "rayserve": {"template", "vllm"},
    "bentoml": {"template", "vllm"},
}
AIOHTTP_ROOMS = {"edge", "upstream", "simulator"}
MAX_LINES = 300


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "proxy").parts[0].removesuffix(".py")


def level_of(room: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    """The rooms of ours that a file imports from."""
    parts = [name.split(".") for name in imports(path) if name.split(".")[0] == "proxy"]
    names = {name[1] for name in parts if len(name) > 1}
    return {"__init__" if name.startswith("__version") else name for name in names}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_file = together(
    "path", {room: [path for path in FILES if room_of(path) == room] for room in sorted(set(map(room_of, FILES)))}
)


@each_file
def test_imports_point_down(path: Path) -> None:
    """A room knows only the rooms below it."""
    room = room_of(path)
    if room == "simulator":
        assert rooms_imported(path) <= {"simulator"}, "the simulator judges the proxy, and so knows none of it"
        return
    for other in rooms_imported(path) - {room}:
        if other == "simulator":
            assert room == "commands"
        else:
            assert level_of(other) > level_of(room), f"{room} imports {other}"


@each_file
def test_pure_rooms_stay_pure(path: Path) -> None:
    """Rules and dialects know neither clock, chance, network nor log."""
    if room_of(path) in PURE:
        assert not {
            name for name in imports(path) for module in IMPURE_MODULES if (name + ".").startswith(module + ".")
        }


@each_file
def test_aiohttp_lives_at_the_ends(path: Path) -> None:
    """HTTP is spoken towards callers and upstreams, and nowhere in between."""
    if any(name.split(".")[0] == "aiohttp" for name in imports(path)):
        assert room_of(path) in AIOHTTP_ROOMS


@each_file
def test_providers_are_strangers(path: Path) -> None:
    """A dialect knows the seam and OpenAI's, not the others."""
    if room_of(path) != "providers" or path.stem in SHARED_BY_PROVIDERS:
        return
    own = path.relative_to(ROOT / "proxy/providers").parts[0].removesuffix(".py")
    known = {own, "openai", "seam", "exact", "splice", "embeddings", *BUILDS_ON.get(own, ())}
    assert {name.split(".")[2] for name in imports(path) if name.startswith("proxy.providers.")} <= known


@each_file
def test_files_are_short(path: Path) -> None:
    """300 lines is the wall."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_the_c_parser_is_in_use() -> None:
    """The suite tries the parser that users run."""
    assert C_PARSER


def test_only_credentials_read_secrets() -> None:
    """Keys leave the configuration in one place, callers' keys in one other; config itself only checks them."""
    readers = {relative(path) for path in FILES if "get_secret_value" in path.read_text()}
    assert readers == {
        "proxy/upstream/credentials.py",
        "proxy/admission/auth.py",
        "proxy/config/values.py",
        "proxy/shared_state/client.py",
        "proxy/telemetry/otel.py",
    }


def test_no_module_is_a_drawer() -> None:
    """A function that fits no room means that a room is missing."""
    assert not {path.stem for path in FILES} & {"utils", "helpers", "common", "manager", "service", "misc"}


def test_redis_is_for_those_who_configure_it() -> None:
    """Its client library is not loaded by the sidecar as such: it would double the time until it is ready."""
    code = "import sys, proxy.app; sys.exit(any(name.split('.')[0] == 'redis' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
