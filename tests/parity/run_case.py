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

from dalle_cli.convert.recognition import import_state
from dalle_cli.diffusion.guidance import classifier_free, score_gradient, threshold
from dalle_cli.diffusion.loss import diffusion_loss
from dalle_cli.diffusion.process import Process, timesteps_like
from dalle_cli.diffusion.respacing import timesteps
from dalle_cli.diffusion.samplers import ddim
from dalle_cli.diffusion.schedules import cosine, linear
from dalle_cli.models import models

LIMIT = 1e-4
Tensors = dict[str, Tensor]


def weights(case: dict) -> Tensors:
    """The reference's state dict: random numbers from crc32(key) + seed, scaled by the kind of the tensor."""
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


def load(case: dict, *overrides: str, more: Tensors | None = None) -> nn.Module:
    """Our network with the weights of a case. overrides: what the weights do not store, as words of `dalle import`."""
    model, state = import_state(weights(case) | (more or {}), overrides=overrides)
    network = models.build(model).eval()
    network.load_state_dict(state)
    return network


def clip(case: dict, io: Tensors) -> Tensors:
    network = load(case, f"model.text.heads={case['transformer_heads']}")
    # The stored images are normalized already, which the network does itself.
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
    network = load(case)
    logits = network.encode_logits(2 * io["image_0_1"] - 1)
    onehot = nn.functional.one_hot(io["token_ids"], logits.shape[1]).movedim(-1, 1).float()
    # Where the reference's id has the highest logit within the limit, either is right.
    reached = logits.gather(1, io["token_ids"].unsqueeze(1)).squeeze(1)
    tied = logits.amax(dim=1) - reached < LIMIT * logits.abs().max()
    return {
        "encoder_logits": logits,
        "token_ids": torch.where(tied, io["token_ids"], logits.argmax(dim=1)),
        "decoder_stats": network.decode_stats(onehot),
        "reconstruction_0_1": (network.decode(io["token_ids"]) + 1) / 2,
    }


STEPS = timesteps("ddim5")


def heads(sizes: dict) -> list[str]:
    """Overrides for the attentions of a U-Net or a classifier."""
    words = [f"model.head_dim={sizes['num_head_channels']}"]
    if sizes["num_head_channels"] == -1:
        words = [f"model.heads={sizes['num_heads']}"]
    return [*words, "model.attention_order=new"] if sizes.get("use_new_attention_order") else words


def unet(case: dict) -> nn.Module:
    """The U-Net of a case, with its heads, and those of its text transformer."""
    sizes = case["model"]["hparams"] if "model" in case else case
    text = [f"model.conditions.text.heads={sizes['xf_heads']}"] if case["kind"] == "glide" else []
    return load(case, *heads(sizes), *text)


def glide(case: dict, io: Tensors) -> Tensors:
    network = unet(case)
    x, t = io["x"], io["t"]
    inputs: dict = {"text": (io["tokens"], io["mask"])}
    if "inpaint_mask" in io:
        inputs["inpaint"] = io["inpaint_image"], io["inpaint_mask"]
    if "low_res" in io:
        inputs["low_res"] = io["low_res"]
    conditions = network.encode(**inputs)
    schedule = {"squaredcos_cap_v2": cosine, "linear": linear}[case["noise_schedule"]]
    process = Process(schedule(1000), variance="learned-range")
    conditional = process.denoiser(network, **conditions)
    clipped = threshold(conditional)
    outputs = {"model_output": network(x, t, **conditions), "ddim5_chain": ddim(process, clipped, x, STEPS)}
    if "cfg3_ddim5_chain" in io:
        null = torch.zeros_like(io["tokens"]), torch.zeros_like(io["mask"])
        both = network.encode(text=tuple(torch.cat(pair) for pair in zip(inputs["text"], null)))
        guided = threshold(classifier_free(process.denoiser(network, **both), 3.0))
        outputs["cfg3_ddim5_chain"] = ddim(process, guided, x, STEPS)
        outputs["ddim_reverse_step_t2"] = process.move(
            x, conditional(x, timesteps_like(STEPS[2], x)).eps, STEPS[2], STEPS[3]
        )
        prediction = clipped(x, timesteps_like(STEPS[3], x))
        outputs["p_mean_t3"], outputs["p_log_variance_t3"] = process.respaced(STEPS).reverse(
            prediction, x, timesteps_like(3, x)
        )
        outputs["pred_xstart_t3"] = prediction.x0
    return outputs


def noised_clip(case: dict, io: Tensors) -> Tensors:
    network = load(case, f"model.image.heads={case['n_head']}", f"model.text.heads={case['n_head']}")

    def score(x: Tensor, t: Tensor) -> Tensor:
        image, text, scale = network(x, t, io["tokens"], io["lengths"])
        return scale * (image * text).sum(dim=-1)

    image, text, _ = network(io["x"], io["t"], io["tokens"], io["lengths"])
    guidance = score_gradient(score, 3.0)(io["x"], io["t"])
    return {"image_embeddings": image, "text_embeddings": text, "guidance_gradient_scale3": guidance}


def adm(case: dict, io: Tensors) -> Tensors:
    network = unet(case)
    conditions = network.encode(label=io["y"])
    process = Process(cosine(1000), variance="learned-range")
    noised = process.noise(io["x0"], io["t"], io["noise"])
    total, mse, bound = diffusion_loss(process, network(noised, io["t"], **conditions), io["x0"], io["t"], io["noise"])
    assert bound is not None
    return {
        "model_output": network(io["x"], io["t"], **conditions),
        "q_sample": noised,
        "loss": total,
        "loss_mse": mse,
        "loss_vb": bound,
        "ddim5_chain": ddim(process, threshold(process.denoiser(network, **conditions)), io["x"], STEPS),
    }


def adm_upsampler(case: dict, io: Tensors) -> Tensors:
    network = unet(case)
    return {"model_output": network(io["x"], io["t"], **network.encode(low_res=io["low_res"]))}


def adm_classifier(case: dict, io: Tensors) -> Tensors:
    network = load(case, *heads(case))

    def score(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t).log_softmax(dim=-1).gather(1, io["y"][:, None])[:, 0]

    return {"logits": network(io["x"], io["t"]), "guidance_gradient": score_gradient(score)(io["x"], io["t"])}


def karlo_prior(case: dict, io: Tensors) -> Tensors:
    statistics = {name: io[name] for name in ("clip_mean", "clip_std")}
    network = load(case, f"model.heads={case['model']['hparams']['xf_heads']}", more=statistics)
    conditions = network.encode(io["text_embedding"], io["text_encodings"], io["mask"])
    process = Process(cosine(1000), prediction_type="x0")
    denoise = threshold(process.denoiser(network, **conditions), limit=10.0)
    return {
        "model_output": network(io["x"], io["t"], **conditions),
        "ddim5_chain_denormalised": network.unwhiten(ddim(process, denoise, io["x"], STEPS)),
    }


def karlo_decoder(case: dict, io: Tensors) -> Tensors:
    network = unet(case)
    text = io["text_embedding"], io["text_encodings"], io["mask"]
    conditions = network.encode(clip=io["image_embedding"], text=text)
    process = Process(cosine(1000), variance="learned-range")
    return {
        "model_output": network(io["x"], io["t"], **conditions),
        "ddim5_chain": ddim(process, threshold(process.denoiser(network, **conditions)), io["x"], STEPS),
    }


def karlo_upsampler(case: dict, io: Tensors) -> Tensors:
    network = load(case)
    conditions = {"channels": io["low_res"]}  # the stored image has the output size already
    return {
        "first_steps_output": network.first(io["x"], io["t"], **conditions),
        "last_step_output": network.last(io["x"], io["t"], **conditions),
    }


# By the case's `kind`: the function from a case and its stored tensors to our outputs, and the names of the inputs.
KINDS: dict[str, tuple[Callable[[dict, Tensors], Tensors], set[str]]] = {
    "clip": (clip, {"image", "tokens"}),
    "dvae": (dvae, {"image_0_1"}),
    "glide": (glide, {"x", "t", "tokens", "mask", "low_res", "inpaint_image", "inpaint_mask"}),
    "noised-clip": (noised_clip, {"x", "t", "tokens", "lengths"}),
    "adm": (adm, {"x", "t", "y", "x0", "noise"}),
    "adm-upsampler": (adm_upsampler, {"x", "t", "low_res"}),
    "adm-classifier": (adm_classifier, {"x", "t", "y"}),
    "karlo-prior": (
        karlo_prior,
        {"x", "t", "text_embedding", "text_encodings", "mask", "clip_mean", "clip_std"},
    ),
    "karlo-decoder": (karlo_decoder, {"x", "t", "image_embedding", "text_embedding", "text_encodings", "mask"}),
    "karlo-upsampler": (karlo_upsampler, {"x", "t", "low_res"}),
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
    return {name: error(ours[name], io[name]) for name in sorted(stored)}


def error(ours: Tensor, theirs: Tensor) -> float | None:
    """max|ours - theirs| / max|theirs|; None for another shape, and for what is not finite."""
    if ours.shape != theirs.shape:
        return None
    largest = theirs.double().abs().max().item()
    difference = (ours.double() - theirs.double()).abs().max().item() / (largest or 1)
    return difference if math.isfinite(difference) else None


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
