import pytest

from dalle_cli.training.options import check

RECIPE = {
    "model": {"type": "dvae", "vocab": 8, "hidden": 4, "init": 4, "groups": 2, "blocks": 1, "gain": 0.5,
              "patches": True},
    "task": {"type": "dvae", "kl": 0.1, "kl_steps": 4, "temperature_steps": 4},
    "data": {"type": "scenes", "glyphs": "shapes", "size": 16, "samples": 400, "validation": 8, "captions": False},
    "optim": {"type": "adamw", "lr": 2e-3, "warmup": 2, "clip_norm": 1.0},
    "train": {"steps": 8, "batch_size": 8, "save_every": "3", "log_every": 2, "validate_every": 4, "preview_every": 4,
              "preview": 2, "precision": "float32"},
}  # fmt: skip


@pytest.fixture
def recipe():
    """A run of seconds: a small dVAE on scenes of shapes."""

    def made(**sections):
        return check({name: node | sections.get(name, {}) for name, node in RECIPE.items()})

    return made
