"""Third-party weights whose heads have other widths than the published 64, imported with overrides."""

import json
from pathlib import Path

import pytest
import torch

from dalle_cli import checkpoint
from dalle_cli.convert.importing import ImportOptions, import_weights
from dalle_cli.convert.layout import ConvertError, export_tensors
from dalle_cli.convert.layouts import all_layouts
from dalle_cli.convert.recognition import complete
from dalle_cli.exits import USAGE
from dalle_cli.models import models
from dalle_cli.registry import RecipeError
from dalle_cli.text.learn import learn
from tests.cli.conftest import dalle  # noqa: F401
from tests.convert.miniatures import DECODER, PRIOR, UNET
from tests.convert.test_importing import CAPTIONS, no_vocabularies  # noqa: F401  (a fixture)
from tests.parity.run_case import LIMIT, error

TEXT = {"type": "text-condition", "vocab_size": 0, "context_length": 6, "width": 96, "depth": 1, "heads": 3}
SMALL = UNET | {"base_channels": 32, "channel_mult": [1, 3], "head_dim": 32}
CLASSIFIER = {
    **{"type": "classifier", "size": 16, "classes": 5, "base_channels": 32, "channel_mult": [1, 3]},
    **{"num_res_blocks": 1, "attention_factors": [2], "head_dim": 32, "attention_order": "legacy"},
}
NOISED_CLIP = {
    **{"type": "noised-clip", "embed_dim": 24, "fixed_logit_scale": 100.0},
    "image": {
        **{"type": "noised-vit", "size": 16, "patch_size": 8, "width": 64, "depth": 1, "heads": 4, "steps": 50},
    },
    "text": {"type": "noised-clip-text", "vocab_size": 0, "context_length": 9, "width": 96, "depth": 1, "heads": 6},
}
CLIP = {
    **{"type": "clip", "embed_dim": 24},
    "image": {"type": "vit", "size": 16, "patch_size": 8, "width": 160, "depth": 1, "heads": 5},
    "text": {"type": "clip-text", "vocab_size": 0, "context_length": 9, "width": 96, "depth": 1, "heads": 3},
}
DIM = "model.head_dim=32"
# By name: the layout, the model that wrote the weights, and the overrides that weights need.
CASES = {
    "glide": ("openai-glide", SMALL | {"conditions": {"text": TEXT}}, [DIM, "model.conditions.text.heads=3"]),
    "adm": ("openai-adm", SMALL | {"conditions": {"label": {"type": "label-condition", "classes": 4}}}, [DIM]),
    "adm-heads": ("openai-adm", SMALL | {"conditions": {}, "heads": 2, "head_dim": 64}, ["model.heads=2"]),
    "adm-order": (
        "openai-adm",
        SMALL | {"conditions": {}, "attention_order": "new"},
        [DIM, "model.attention_order=new"],
    ),
    "adm-classifier": ("openai-adm-classifier", CLASSIFIER, [DIM]),
    "noised-clip": ("openai-noised-clip", NOISED_CLIP, ["model.image.heads=4", "model.text.heads=6"]),
    "clip": ("openai-clip", CLIP, ["model.image.heads=5", "model.text.heads=3"]),
    "karlo-prior": ("karlo-prior", PRIOR | {"heads": 4}, ["model.heads=4"]),
    "karlo-decoder": ("karlo-decoder", DECODER | SMALL, [DIM]),
    "diffusers-decoder": ("diffusers-decoder", DECODER | SMALL, [DIM]),
    "diffusers-prior": ("diffusers-prior", PRIOR | {"heads": 4}, ["model.heads=4"]),
}


@pytest.fixture(scope="module")
def vocabularies():
    return {kind: learn(CAPTIONS, size, kind) for kind, size in (("clip", 522), ("glide", 300))}


def write(layout, node, tokenizer):
    """Write published weights of a model of ours; returns it, and the path of the weights."""
    for part in (node.get("text"), (node.get("conditions") or {}).get("text")):
        if part and "vocab_size" in part:
            part["vocab_size"] = tokenizer.vocab_size
    torch.manual_seed(0)
    network = models.build(node).eval()
    for parameter in network.parameters():  # some begin at zero, and would hide an attention
        torch.nn.init.normal_(parameter, std=0.2)
    state = export_tensors(network.state_dict(), layout.table(complete(node)))
    if layout.files:
        for prefix, name in layout.files.items():
            part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            file = name if "." in name else f"{name}.pt"
            Path("in").mkdir(exist_ok=True)
            torch.save(part, Path("in", file))
        return network, "in"
    torch.save(state, "weights.pt")
    return network, "weights.pt"


def outputs(network, node):
    """The output of a model for inputs of its kind."""
    torch.manual_seed(1)
    x, t, ids = torch.randn(2, 3, 16, 16), torch.tensor([3, 40]), torch.tensor([[1, 2, 3, 4, 0, 0], [5, 6, 0, 0, 0, 0]])
    real = ids > 0
    with torch.no_grad():
        if node["type"] == "noised-clip":
            return torch.cat(network(x, t, ids, real.sum(1))[:2])
        if node["type"] == "clip":
            return torch.cat(network(x, ids)[:2])
        if node["type"] == "classifier":
            return network(x, t)
        embedding, states = torch.randn(2, 24), torch.randn(2, 7, 24)
        if node["type"] == "diffusion-prior":
            mask = torch.arange(7) < torch.tensor([[5], [2]])
            return network(embedding, t, **network.encode(embedding, states, mask))
        inputs = {
            "label": torch.tensor([1, 3]),
            "clip": embedding,
            "text": (ids, real) if node["conditions"].get("text") and "depth" in node["conditions"]["text"] else None,
        }
        if "clip" in node["conditions"]:
            inputs["text"] = (embedding, states, torch.ones(2, 7, dtype=torch.bool))
        return network(x, t, **network.encode(**{name: inputs[name] for name in node["conditions"]}))


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_original(case, vocabularies):
    name, node, overrides = CASES[case]
    layout = all_layouts()[name]
    tokenizer = vocabularies.get(layout.tokenizer)
    if tokenizer:
        tokenizer.save("words.json")
    network, source = write(layout, node, tokenizer)
    vocab = "words.json" if tokenizer else None
    if name.startswith("diffusers-decoder"):
        source = diffusers_folder(layout)
    lines = []
    result = import_weights(source, "out", ImportOptions(vocab, overrides=overrides), lines.append)
    assert complete(result["model"]) == complete(node)
    assert not any("head" in line for line in lines)
    ours = load(node)
    assert error(outputs(ours, node), outputs(network, node)) < LIMIT
    assumed = assumed_only(source, vocab, node)
    assert assumed is None or error(outputs(assumed, node), outputs(network, node)) > 0.01


def diffusers_folder(layout):
    """Move the parts of a model into the folders in which diffusers keeps them."""
    for name in layout.files.values():
        Path("in", name).mkdir()
        Path("in", f"{name}.pt").rename(Path("in", name, "diffusion_pytorch_model.bin"))
    return "in/decoder"


def load(node, run="out"):
    path = checkpoint.resolve(run)
    network = models.build(checkpoint.metadata(path)["recipe"]["model"]).eval()
    network.load_state_dict(checkpoint.read_tensors(path))
    return network


def assumed_only(source, vocab, node):
    """The model as an import without overrides makes it, None where that is refused."""
    lines = []
    try:
        import_weights(source, "assumed", ImportOptions(vocab), lines.append)
    except ConvertError as refusal:
        lines.append(f"{refusal}")
        return None
    finally:
        assert any("the weights do not store model." in line for line in lines)
    return load(node, "assumed")


@pytest.mark.parametrize(
    ("word", "error_type", "message"),
    [
        (
            "model.head_dmi=32",
            RecipeError,
            r"takes no 'head_dmi' \(did you mean 'head_dim'\?\)",
        ),
        ("model.head_dim=wide", RecipeError, "model.head_dim: expected a whole number"),
        ("model.head_dim=40", ConvertError, "add it to the command, such as model.head_dim=32"),
        ("head_dim=32", RecipeError, "an import takes overrides of model and task"),
        ("train.steps=3", RecipeError, "an import takes overrides of model and task"),
        ("model.base_channels=64", ConvertError, "keys do not fit"),
    ],
)
def test_overrides_are_checked(word, error_type, message):
    write(all_layouts()["openai-adm"], SMALL | {"conditions": {}}, None)
    with pytest.raises(error_type, match=message):
        import_weights("weights.pt", "out", ImportOptions(overrides=[DIM, word]), print)


def test_a_task_is_given_by_overrides():
    write(all_layouts()["openai-adm"], SMALL | {"conditions": {}}, None)
    words = [DIM, "task.type=decoder", "task.size=16", "task.schedule=linear"]
    import_weights("weights.pt", "out", ImportOptions(overrides=words), print)
    recipe = checkpoint.metadata(checkpoint.resolve("out"))["recipe"]
    assert recipe["task"] == {"type": "decoder", "size": 16, "schedule": "linear"}
    assert checkpoint.load("out", "unet").size == 16


def test_configurations_give_head_widths():
    layout = all_layouts()["diffusers-prior"]
    node = PRIOR | {"heads": 4}
    network, _ = write(layout, node, None)
    state = layout.config.write(node)
    assert state["attention_head_dim"] == 32
    learn(CAPTIONS, 522, "clip").save("words.json")
    with open("config.json", "w") as file:
        json.dump(state, file)
    result = import_weights("weights.pt", "out", ImportOptions("words.json"), print)
    assert result["model"] == node
    assert error(outputs(load(node), node), outputs(network, node)) < LIMIT


def test_command_takes_overrides(dalle):  # noqa: F811
    write(all_layouts()["openai-adm"], SMALL | {"conditions": {}}, None)
    refused = dalle("import", "weights.pt", "--out", "out")
    assert (refused.code, refused.out) == (3, "")
    assert "the weights do not store model.head_dim" in refused.err
    ended = dalle("import", "weights.pt", DIM, "--out", "out")
    assert (ended.code, ended.result["model"]["head_dim"]) == (0, 32)
    assert dalle("import", "weights.pt", "model.heads=", "--out", "other").code == USAGE
