"""The demo: its configuration, and what to paste into another terminal."""

from pathlib import Path

from proxy.config import Config, load
from proxy.providers import traits

_HERE = Path(__file__).parent
_PLACES = (_HERE / "demo.yaml", _HERE.parent / "config" / "demo.yaml")  # installed, and in the repository

_SNIPPETS = """
Paste one into another terminal:

curl {url}/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

curl -N {url}/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "claude-haiku-4-5", "stream": true, "messages": [{{"role": "user", "content": "Count to ten."}}]}}'

{python} - <<'PY'
from openai import OpenAI
client = OpenAI(base_url="{url}", api_key="any")
messages = [{{"role": "user", "content": "Tell me a story."}}]
for chunk in client.chat.completions.create(model="ollama/qwen3", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
PY

Stop with Ctrl-C.
"""


def demo_config(simulator_url: str) -> Config:
    """The demo's configuration, its upstreams being simulated at this URL."""
    path = next(place for place in _PLACES if place.exists())
    return load(str(path), traits(), {"SIMULATOR_URL": simulator_url})


def snippets(url: str) -> str:
    """Three ways to call it."""
    python = ".venv/bin/python" if Path(".venv/bin/python").exists() else "python"
    return _SNIPPETS.format(url=url, python=python)
