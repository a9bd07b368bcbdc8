"""Drawing: systems composed of checkpoints, candidates and their choice, and what all commands share."""

from ..registry import Registry

systems = Registry("system", __name__)
