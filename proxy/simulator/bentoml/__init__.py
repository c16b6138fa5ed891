"""The dialect of BentoML: a vLLM server mounted under /v1, and endpoints that a service declared itself."""

from proxy.simulator.bentoml.reply import BentoML

dialect = BentoML()
