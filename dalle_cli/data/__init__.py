"""Sources of captioned images, the order they are visited in, and the loader that batches them."""

from ..registry import Registry

sources = Registry("data", __name__)
