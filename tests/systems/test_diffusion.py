import pytest
import torch

from dalle_cli.registry import RecipeError
from dalle_cli.systems.diffusion import (
    DiffusionOptions,
    clips_x0,
    known_at,
    load_base_decoder,
    load_decoder,
    load_upsampler,
    upsampled_side,
)
from tests.fixtures.miniatures import CPU


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "many"}, "many"),
        ({"up_steps": "0"}, "0"),
        ({"eta": 2.0}, "eta 2.0 is not between 0 and 1"),
        ({"eta": 0.5, "sampler": "ddpm"}, "eta is only for sampler ddim; ddpm has none"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0"),
        ({"guidance_interval": [999, 400]}, "give the first and the last timestep"),
        ({"dynamic_threshold": 0.0}, "dynamic_threshold 0.0"),
        ({"up_temperature": 3.0}, "up_temperature 3.0"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        DiffusionOptions(**options)


def test_decoders_and_upsamplers_are_distinguished(glide):
    upsampler = load_decoder(CPU, glide.upsampler)
    assert upsampled_side(upsampler, 8) == 16
    assert upsampled_side(load_decoder(CPU, glide.decoder), 8) is None
    with pytest.raises(RecipeError, match="is an upsampler"):
        load_base_decoder(CPU, glide.upsampler)
    with pytest.raises(RecipeError, match="does not upsample images of 8 px"):
        load_upsampler(CPU, "upsampler", glide.decoder, 8)


def test_x0_is_clipped_where_eps_is_predicted(glide):
    task = load_decoder(CPU, glide.decoder)
    assert clips_x0(task) == (task.process.prediction_type == "eps")


def test_known_region_is_repeated_for_the_batch():
    region = lambda size: (torch.ones(1, 3, size, size), torch.zeros(1, 1, size, size))  # noqa: E731
    image, mask = known_at(CPU, region, 4, 3) or (torch.empty(0), torch.empty(0))
    assert (image.shape, mask.shape) == ((3, 3, 4, 4), (3, 1, 4, 4))
    assert known_at(CPU, None, 4, 3) is None
