"""The dialect of Hugging Face: the router, serverless hf-inference, and a dedicated endpoint."""

from proxy.simulator.huggingface.services import HuggingFace

dialect = HuggingFace()
