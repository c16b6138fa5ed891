"""The dialect of Ollama's own API: NDJSON, whole tool calls, streaming unless told otherwise."""

from proxy.simulator.ollama.reply import Ollama

dialect = Ollama()
