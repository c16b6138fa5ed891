"""Route -> the first attempt that succeeds."""
