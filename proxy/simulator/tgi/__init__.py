"""The dialect of Text Generation Inference: chats, and raw prompts in its own shape."""

from proxy.simulator.tgi.endpoints import TGI

dialect = TGI()
