"""Systems: checkpoints composed to generate images from prompts. DALL-E 1, GLIDE and unCLIP are one file each.

A system is a class registered here that follows `system.System`: its constructor takes a device and the checkpoints of
its parts, and its class attributes say what it can do. `loading.resolve` makes one of a recipe, once per command.
"""

from ..registry import Registry

systems = Registry("system", __name__)
