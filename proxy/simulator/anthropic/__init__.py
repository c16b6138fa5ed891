"""The dialect of Anthropic's Messages API."""

from proxy.simulator.anthropic.reply import Anthropic

dialect = Anthropic()
