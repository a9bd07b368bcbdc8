import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint
from dalle_cli.convert.exporting import export
from dalle_cli.convert.importing import ImportOptions, import_weights
from dalle_cli.convert.layout import ConvertError
from dalle_cli.convert.recognition import export_state, import_state
from dalle_cli.generate.options import GenerationOptions
from dalle_cli.generate.reconstruct import reconstruct
from dalle_cli.models import models

NODE = {
    **{
        "type": "vqgan",
        "vocab_size": 24,
        "embed_dim": 6,
        "base_channels": 32,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
    },
    **{"attention_factors": [2], "latent_channels": 8},
}
LOSS = {
    "loss.perceptual_loss.net.slice1.0.weight": torch.ones(4, 3, 3, 3),
    "loss.discriminator.main.0.weight": torch.ones(4, 3, 4, 4),
}


def state_of(node=NODE):
    torch.manual_seed(0)
    return models.build(node).state_dict()


@pytest.fixture
def lightning(tmp_path, monkeypatch):
    """A checkpoint as Lightning writes them, with states of the training by the class that they are of."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("pytorch_lightning.callbacks")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks"})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", module)
    others = {
        "epoch": 10,
        "global_step": 1000,
        "pytorch-lightning_version": "1.0.8",
        "callbacks": {module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "best_model_path": "a.ckpt"}},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [],
    }
    torch.save(others | {"state_dict": state_of() | LOSS}, "last.ckpt")
    monkeypatch.delitem(sys.modules, "pytorch_lightning.callbacks")
    return "last.ckpt"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channel_mult": [1, 1, 2.5], "attention_factors": []},
        {"num_res_blocks": 2, "attention_factors": [1, 2], "latent_channels": 3},
    ],
)
def test_round_trip(changes):
    node = NODE | changes | ({"base_channels": 64} if 2.5 in changes.get("channel_mult", []) else {})
    state = state_of(node)
    published = export_state("taming-vqgan", node, state)
    model, back = import_state(published)
    assert model == node
    assert back.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(back[key], tensor), key


@pytest.mark.parametrize("vocab", [1024, 16384])
def test_published_sizes(vocab):
    with torch.device("meta"):
        state = models.build({"type": "vqgan", "vocab_size": vocab}).state_dict()
    assert import_state(state)[0] == {
        **{
            "type": "vqgan",
            "vocab_size": vocab,
            "embed_dim": 256,
            "base_channels": 128,
            "channel_mult": [1, 1, 2, 2, 4],
        },
        **{"num_res_blocks": 2, "attention_factors": [16], "latent_channels": 256},
    }


def test_lightning_checkpoints(lightning):
    lines = []
    result = import_weights(lightning, "codec", ImportOptions(), lines.append)
    assert (result["layout"], result["model"]) == ("taming-vqgan", NODE)
    assert lines == [
        "last.ckpt: 2 tensors that only training needs were left out (loss.perceptual_loss.net.slice1.0.weight, ...)"
    ]
    export("codec", "taming-vqgan", "back.ckpt", None, False)
    back = torch.load("back.ckpt", weights_only=True)["state_dict"]
    assert back.keys() == state_of().keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state_of().items())


def test_unknown_keys_are_refused():
    with pytest.raises(ConvertError, match=r"taming-vqgan: keys do not fit; 1 unknown: lossy\.weight"):
        import_state(state_of() | LOSS | {"lossy.weight": torch.ones(1)})
    gone = {key: tensor for key, tensor in state_of().items() if key != "decoder.mid.attn_1.k.bias"}
    with pytest.raises(ConvertError, match=r"1 missing: decoder\.mid\.attn_1\.k\.bias"):
        import_state(gone)


def test_images_are_reconstructed(lightning, tmp_path, capsys):
    import_weights(lightning, "codec", ImportOptions(), print)
    capsys.readouterr()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.png")
    code = reconstruct(["a.png"], "codec", 16, GenerationOptions(json=True, precision="float32"))
    printed = capsys.readouterr()
    (result,) = (json.loads(line) for line in printed.out.splitlines())
    model = checkpoint.load("codec", "vqgan").model
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
        tokens = model.encode(image)
        error = ((image - model.decode(tokens)) / 2).square().mean()
    assert code == 0
    assert result["unique_tokens"] == tokens.unique().numel()
    assert result["psnr"] == pytest.approx(-10 * error.log10().item(), abs=0.01)
    assert np.asarray(Image.open(result["path"])).shape == (32, 16, 3)
    assert f"{result['unique_tokens']} of 24 tokens used" in printed.err
