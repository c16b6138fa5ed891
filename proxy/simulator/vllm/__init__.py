"""The dialect of vLLM's OpenAI-compatible server."""

from proxy.simulator.vllm.reply import VLLM

dialect = VLLM()
