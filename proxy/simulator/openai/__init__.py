"""The dialect of the OpenAI API's chat completions."""

from proxy.simulator.openai.reply import OpenAI

dialect = OpenAI()
