"""Drawing: systems composed of checkpoints, candidates and their choice, and what all commands share.

A system is a class registered here. Its constructor takes a device and the checkpoints of its parts; `sampling` is the
dataclass of its options, `together` how many pictures are drawn at once where nothing else is asked for, `check` what
can be told of options and parts before anything is loaded, `files` the checkpoints that it uses, `draw` what it is for.
Some can also begin with a given picture (`begin_with`), show how one comes about (`draw(..., see=)`, where `shows`), or
say what drawing holds in memory (`needs`), for which they are loaded through their device, which may be `empty`.
"""

from ..registry import Registry

systems = Registry("system", __name__)
