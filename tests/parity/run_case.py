"""Compare this package with a published implementation: python tests/parity/run_case.py CASE_FOLDER

A case folder holds `case.json`, the numbers that the reference was built with, a seed and the published name, shape and
type of each of its weights, and `io.safetensors`, inputs and the outputs that the reference gave. The weights are made
from their names and the seed, go through the import of published layouts, and must give the stored outputs.

Prints one JSON object, {"case": name, "outputs": {name: relative error}}; null stands for an output that is not finite
or of another shape. Exit code: 0 when every error is below 1e-4, 1 when one is not, 2 for a folder that is no case of a
known kind.
"""

import json
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dalle_cli import convert
from dalle_cli.models import models

LIMIT = 1e-4
Tensors = dict[str, Tensor]


def weights(case: dict) -> Tensors:
    """The reference's state dict: numbers drawn from crc32(key) + seed, scaled as suits the kind of the tensor."""
    seed = case["weights"]["seed"]
    return {key: _weight(key, seed, **spec) for key, spec in case["weights"]["tensors"].items()}


def _weight(key: str, seed: int, shape: list[int], dtype: str) -> Tensor:
    if dtype != "float32":  # counters
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    if key.endswith("running_var"):
        numbers = 1 + 0.1 * random.uniform(size=shape)
    elif key.endswith("running_mean"):
        numbers = 0.1 * random.standard_normal(shape)
    elif len(shape) < 2:  # gains around one, biases around zero
        numbers = 0.1 * random.standard_normal(shape) + (1 if key.endswith("weight") else 0)
    else:
        numbers = random.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(numbers, dtype=np.float32))


def build(model: dict, state: Tensors) -> nn.Module:
    network = models.build(model).eval()
    network.load_state_dict(state)
    return network


def clip(case: dict, io: Tensors) -> Tensors:
    model, state = convert.read(weights(case))
    model["text"]["heads"] = case["transformer_heads"]  # not in the weights; the import takes the published width / 64
    network = build(model, state)
    # the stored pictures are normalised already, which the network does itself
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    image = 2 * (io["image"] * std + mean) - 1
    image_unit, text_unit, scale = network(image, io["tokens"])
    return {
        "image_features": network.encode_image(image),
        "text_features": network.encode_text(io["tokens"]),
        "logits_per_image": scale * image_unit @ text_unit.T,
        "logits_per_text": scale * text_unit @ image_unit.T,
    }


def dvae(case: dict, io: Tensors) -> Tensors:
    network = build(*convert.read(weights(case)))
    logits = network.encode_logits(2 * io["image_0_1"] - 1)
    onehot = nn.functional.one_hot(io["token_ids"], logits.shape[1]).movedim(-1, 1).float()
    # where the reference's id scores as high as our best within the limit, either is right
    reached = logits.gather(1, io["token_ids"].unsqueeze(1)).squeeze(1)
    tied = logits.amax(dim=1) - reached < LIMIT * logits.abs().max()
    return {
        "encoder_logits": logits,
        "token_ids": torch.where(tied, io["token_ids"], logits.argmax(dim=1)),
        "decoder_stats": network.decode_stats(onehot),
        "reconstruction_0_1": (network.decode(io["token_ids"]) + 1) / 2,
    }


# By the case's `kind`: the function from a case and its stored tensors to our outputs, and the names of the inputs.
KINDS: dict[str, tuple[Callable[[dict, Tensors], Tensors], set[str]]] = {
    "clip": (clip, {"image", "tokens"}),
    "dvae": (dvae, {"image_0_1"}),
}


def compare(folder: Path) -> dict[str, float | None]:
    """Relative error of each stored output, max|ours - theirs| / max|theirs|; None where ours is not comparable."""
    case = json.loads((folder / "case.json").read_text())
    io = load_file(folder / "io.safetensors")
    function, inputs = KINDS[case["kind"]]
    with torch.no_grad():
        ours = function(case, io)
    stored = io.keys() - inputs
    assert stored <= ours.keys(), f"nothing computes {sorted(stored - ours.keys())}"
    return {name: _error(ours[name], io[name]) for name in sorted(stored)}


def _error(ours: Tensor, theirs: Tensor) -> float | None:
    if ours.shape != theirs.shape:
        return None
    largest = theirs.double().abs().max().item()
    error = (ours.double() - theirs.double()).abs().max().item()
    error = error / largest if largest else error
    return error if math.isfinite(error) else None


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        kind = json.loads((folder / "case.json").read_text())["kind"]
    except (OSError, ValueError, KeyError) as error:
        print(f"{folder} is no case: {error}", file=sys.stderr)
        return 2
    if kind not in KINDS:
        print(f"{folder}: no kind '{kind}'; known: {', '.join(sorted(KINDS))}", file=sys.stderr)
        return 2
    outputs = compare(folder)
    print(json.dumps({"case": folder.resolve().name, "outputs": outputs}))
    return 0 if all(error is not None and error < LIMIT for error in outputs.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
