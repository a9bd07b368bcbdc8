import torch

from dalle_cli.convert.networks.karlo import decoder_task, prior_assumed, prior_task, under, upsampler_task
from dalle_cli.tasks import tasks


def test_keys_under_a_prefix_lose_it():
    one = torch.ones(1)
    assert under({"model.a": one, "other.b": one}, "model.") == {"a": one}


def test_tasks_are_registered_with_their_arguments():
    for task in (prior_task({}), decoder_task({}), upsampler_task({})):
        assert tasks.typed(task, given=("model", "tokenizer")) == task


def test_heads_of_unpublished_priors_are_assumed():
    assert prior_assumed({"width": 2048}, {}) == ()
    assert prior_assumed({"width": 512}, {}) == ("model.heads",)
