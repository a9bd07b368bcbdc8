import inspect

import pytest

from dalle_cli.systems import systems
from dalle_cli.systems.system import System

FLAGS = [name for name, kind in inspect.get_annotations(System).items() if "bool" in str(kind)]


def cls_of(name):
    cls: type[System] = systems.get(name)  # type: ignore[assignment]
    return cls


@pytest.mark.parametrize("name", systems.names())
def test_systems_take_the_arguments_of_the_protocol(name):
    own = inspect.signature(cls_of(name).generate).parameters
    assert list(own) == list(inspect.signature(System.generate).parameters)


@pytest.mark.parametrize("name", systems.names())
def test_flags_say_which_methods_are_implemented(name):
    cls = cls_of(name)
    assert cls.supports_image_prefix == (cls.encode_image_prefix is not System.encode_image_prefix)
    assert cls.estimates_memory == (cls.memory_needs is not System.memory_needs)
    assert cls.has_latents == all(callable(vars(cls).get(name)) for name in ("embed_images", "invert", "decode"))


def test_every_flag_is_off_unless_set():
    assert len(FLAGS) >= 8
    assert not any(getattr(System, flag) for flag in FLAGS)
