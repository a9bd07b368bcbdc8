"""Fixtures of the systems' tests: small checkpoints of every part."""

from tests.generate.conftest import glide, tiny, unclip, used  # noqa: F401  (fixtures)
