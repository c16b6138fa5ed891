"""OpenAI's own shapes: build, read, collect and replay completions, chunks and errors. Pure."""
