"""Networks: one architecture per file, registered under the name that recipes use."""

from ..registry import Registry

models = Registry("model", __name__)
