"""Fixtures of the systems' tests: small checkpoints of every part."""
