"""Peak memory of imports, in processes of their own."""

import json

import pytest
import torch
from safetensors.torch import save_file

from dalle_cli.convert.recognition import export_state
from dalle_cli.models import models
from tests.convert.test_importing import CLIP, TEXT, VIT, no_vocabularies, vocab  # noqa: F401  (fixtures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.pt", "hf/model.safetensors", "old.pt"])
def test_import_of_a_file(peak, tmp_path, vocab, name):  # noqa: F811
    node = CLIP | {"image": VIT | {"width": 1024, "depth": 8, "heads": 16}}
    layout = "hf-clip" if "hf" in name else "openai-clip"
    state = {key: torch.zeros(shape) for key, shape in shapes(layout, node).items()}
    (tmp_path / "hf").mkdir()
    if name.endswith(".safetensors"):
        save_file(state, name)
    else:
        torch.save(state, name, _use_new_zipfile_serialization=name != "old.pt")
    grown = peak(
        "from dalle_cli.convert.importing import *\n"
        "from dalle_cli.convert.layouts import all_layouts; from dalle_cli.models import models\n"
        "from dalle_cli.text import tokenizers; tokenizers.names(), models.names(), all_layouts()",
        "import_weights(sys.argv[1], 'out', ImportOptions(sys.argv[2]), print)",
        name,
        vocab,
    )
    print(f"{grown / (tmp_path / name).stat().st_size:.2f} of the file")
    assert 0.9 * (tmp_path / name).stat().st_size < grown < 1.3 * (tmp_path / name).stat().st_size


@pytest.mark.slow
def test_import_of_systems_and_shards(peak, tmp_path, vocab):  # noqa: F811
    """Of a system, the peak is that of its largest part. q, k and v are joined on the way."""
    prior = {
        **{"type": "diffusion-prior", "embed_dim": 64, "context_length": 12, "text_width": 64},
        **{"width": 768, "depth": 6, "heads": 12},
    }
    conditions = {
        "clip": {"type": "clip-condition", "embed_dim": 64, "tokens": 4, "width": 512},
        "text": {"type": "clip-text-condition", "embed_dim": 64, "text_width": 64, "width": 512},
    }
    unet = {
        "type": "unet",
        "base_channels": 128,
        "channel_mult": [1, 2, 3],
        "num_res_blocks": 2,
        "attention_factors": [2, 4],
        "heads": None,
    }
    unet |= {"head_dim": 64, "conditions": conditions}
    clip = {"type": "clip", "embed_dim": 64, "text": TEXT, "fixed_logit_scale": 100.0}
    state = {f"text_encoder.{key}": shape for key, shape in shapes("hf-clip", clip).items()}
    state |= {f"prior.{key}": shape for key, shape in shapes("diffusers-prior", prior).items()}
    state |= shapes("diffusers-decoder", unet)
    sizes = {}
    for name in ("text_encoder", "prior", "decoder", "text_proj"):
        part = {key.removeprefix(f"{name}."): shape for key, shape in state.items() if key.startswith(f"{name}.")}
        (tmp_path / "theirs" / name).mkdir(parents=True)
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        places = {}
        for i in range(3):
            file = f"{stem}-0000{i + 1}-of-00003.safetensors"
            save_file(
                {key: torch.zeros(shape) for key, shape in list(part.items())[i::3]}, tmp_path / "theirs" / name / file
            )
            places |= dict.fromkeys(list(part)[i::3], file)
        index = tmp_path / "theirs" / name / f"{stem}.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": places}))
        sizes[name] = sum(4 * shape.numel() for shape in part.values())
    (tmp_path / "theirs" / "text_encoder" / "config.json").write_text(json.dumps({"num_attention_heads": 1}))
    grown = peak(
        "from dalle_cli.convert.importing import *; from dalle_cli.convert.systems import import_system\n"
        "import_weights('theirs/text_encoder', 'small', ImportOptions(sys.argv[1]), print)  # what is loaded once",
        "import_system('theirs', 'out', ImportOptions(sys.argv[1]), print)",
        vocab,
    )
    largest = max(sizes["prior"], sizes["decoder"] + sizes["text_proj"])
    print(f"{grown / largest:.2f} of the largest of {sizes}")
    assert 0.9 * largest < grown < 1.3 * largest


def shapes(layout, node):
    with torch.device("meta"):
        state = export_state(layout, node, models.build(node).state_dict())
    return {key: tensor.shape for key, tensor in state.items()}
