"""Networks: one architecture per file, registered under the name that recipes use."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from ..registry import RecipeError, Registry

LARGEST = 1 << 24  # number that a size can be; the widest published vocabulary has 49,408 entries
MOST_TENSORS = 10_000  # of a model; the largest published one has a tenth


class Models(Registry):
    """As any registry, with bounds to what a recipe may ask for: it may be a stranger's, or have a key slipped."""

    def bind(self, node: Any, path: str | None = None, given: Iterable[str] = ()) -> tuple[Callable, dict[str, Any]]:
        """Raises RecipeError for negative numbers too, and for those that no size can be."""
        part, arguments = super().bind(node, path, given)
        for key, value in arguments.items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int) and not 0 <= number < LARGEST:
                    raise RecipeError(f"{path or self.section}.{key}: {number} is not between 0 and {LARGEST}")
        return part, arguments

    def build(self, node: Any, path: str | None = None, **given: Any) -> Any:
        """Build a part. Raises RecipeError as soon as it has more tensors than any network needs."""
        from torch.nn.modules.module import register_module_parameter_registration_hook

        count = 0

        def counted(module: Any, name: str, parameter: Any) -> None:
            nonlocal count
            count += 1
            if count > MOST_TENSORS:
                raise RecipeError(
                    f"{path or self.section}: more than {MOST_TENSORS} tensors; lower the number of layers"
                )

        hook = register_module_parameter_registration_hook(counted)
        try:
            return super().build(node, path, **given)
        finally:
            hook.remove()


@runtime_checkable
class AdoptsWeights(Protocol):
    """A network that can start from the weights of a smaller one."""

    def adopt(self, weights: dict[str, Any], source: Any) -> dict[str, Any]:
        """Return the weights of `source` as weights of this network."""
        ...


models = Models("model", __name__)
