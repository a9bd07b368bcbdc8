"""Speed and memory, measured; see __main__.py."""
