"""Compare full-size networks with the packages that users run today: python -m tests.parity.packages [WORD ...]

Every network has the published size and random weights, made by the package's module. They go through the import of
published layouts into ours, and both read the same small inputs in float32. Starters are exported and opened there. One
network is in memory at a time; the largest takes twice 5 GiB.

Prints a row for each as soon as it is done: its package, parameters, and the largest error of its outputs, max|ours -
theirs| / max|theirs|. WORD: only the networks whose name has one. Exit code: 0 when every error is below 1e-4, 1 when
one is not, 3 when nothing was compared. What cannot be compared here is a row with the reason.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from dalle_cli import checkpoint
from dalle_cli.convert.exporting import export
from dalle_cli.convert.recognition import import_state
from dalle_cli.models import models
from tests.parity.peers import Missing, fill, peer, unfilled
from tests.parity.run_case import LIMIT, error

Tensors = dict[str, Tensor]
Pair = tuple[int, Tensors, Tensors]
"""Parameters of a network, our outputs, theirs."""
CASES: dict[str, Callable[[], Pair]] = {}


def case(name: str) -> Callable[[Callable[[], Pair]], Callable[[], Pair]]:
    """name: of the network, and of the package after a colon."""
    return lambda function: CASES.setdefault(name, function)


def ours(*overrides: str, **networks: nn.Module) -> Any:
    """Our network with the weights of a package's, or of several under their names.

    overrides: what the weights do not store, as words of `dalle import`.
    """
    one = networks.pop("one", None)
    parts = {"": one} if one is not None else {f"{name}.": network for name, network in networks.items()}
    state = {prefix + key: value for prefix, network in parts.items() for key, value in network.state_dict().items()}
    model, mine = import_state(state, overrides=overrides)
    with unfilled():
        network = models.build(model)
    network.load_state_dict(mine, assign=True)
    return network.eval().requires_grad_(False)


def size(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def texts(*lengths: int) -> Tensor:
    """Ids of texts of so many words, of a vocabulary of CLIP's size."""
    ids = torch.zeros(len(lengths), 77, dtype=torch.int64)
    for row, length in zip(ids, lengths):
        row[: length + 2] = torch.tensor([49406, *torch.randint(1, 49000, (length,)).tolist(), 49407])
    return ids


# ---- CLIP ------------------------------------------------------------------------------------------------------------


def _clip(network: Any, theirs: Callable[[Tensor, Tensor], tuple], pixels: int) -> tuple[Tensors, Tensors]:
    """Embeddings of one image and two texts. theirs: from normalized images and ids to both embeddings."""
    image, ids = 2 * torch.rand(1, 3, pixels, pixels) - 1, texts(5, 40)
    names = "image", "text"
    mine = dict(zip(names, network(image, ids)))
    return mine, dict(zip(names, theirs((image - network.mean) / network.std, ids)))


def _hf_clip(embed_dim: int, patch: int, vision: tuple[int, int], text: tuple[int, int], *overrides: str) -> Pair:
    """vision, text: width and heads; 12 layers for every 768 of the vision's."""
    transformers = peer("transformers")
    sizes = [{"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
             for width, heads in (vision, text)]  # fmt: skip
    depth = 24 if vision[0] > 768 else 12
    config = transformers.CLIPConfig(
        projection_dim=embed_dim,
        vision_config={**sizes[0], "num_hidden_layers": depth, "patch_size": patch, "projection_dim": embed_dim},
        text_config={**sizes[1], "num_hidden_layers": 12, "projection_dim": embed_dim, "eos_token_id": 49407},
    )
    with unfilled():
        theirs = transformers.CLIPModel(config)
    fill(theirs)
    return size(theirs), *_clip(ours(*overrides, one=theirs), _embeddings(theirs), 224)


def _embeddings(network: Any) -> Callable[[Tensor, Tensor], tuple]:
    """From normalized images and ids to both embeddings, by a CLIP of transformers."""

    def run(pixels: Tensor, ids: Tensor) -> tuple:
        output = network(pixel_values=pixels, input_ids=ids)
        return output.image_embeds, output.text_embeds

    return run


case("CLIP ViT-B/32: transformers")(lambda: _hf_clip(512, 32, (768, 12), (512, 8)))
case("CLIP ViT-L/14: transformers")(lambda: _hf_clip(768, 14, (1024, 16), (768, 12)))
case("CLIP with heads of 80 and 32: transformers")(
    lambda: _hf_clip(64, 32, (320, 4), (128, 4), "model.image.heads=4", "model.text.heads=4")
)


def _open_clip(name: str) -> Pair:
    library = peer("open_clip")
    config = library.get_model_config(name)
    config["quick_gelu"] = True
    theirs = fill(library.model.CLIP(**config))
    return size(theirs), *_clip(ours(one=theirs), lambda image, ids: theirs(image, ids)[:2], 224)


case("CLIP RN50: open_clip")(lambda: _open_clip("RN50"))
case("CLIP ViT-B/16: open_clip")(lambda: _open_clip("ViT-B-16"))


# ---- unCLIP ----------------------------------------------------------------------------------------------------------

UNET = {"block_out_channels": (320, 640, 960, 1280), "layers_per_block": 3}
DOWN, UP = ("ResnetDownsampleBlock2D",), ("ResnetUpsampleBlock2D",)
ATTEND_DOWN, ATTEND_UP = ("SimpleCrossAttnDownBlock2D",), ("SimpleCrossAttnUpBlock2D",)


def _text() -> tuple[Tensor, Tensor, Tensor]:
    """The embedding of a text, the states of its tokens, and which of them are not padding."""
    return torch.randn(1, 768), torch.randn(1, 77, 768), torch.arange(77)[None] < 9


def prior(heads: int = 32, head_dim: int = 64, layers: int = 20) -> nn.Module:
    """Diffusers' prior, by default of Karlo's size."""
    diffusers = peer("diffusers")
    with unfilled():
        network = diffusers.PriorTransformer(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            num_layers=layers,
            embedding_dim=768,
            num_embeddings=77,
        )
    return fill(network)


@case("unCLIP prior: diffusers")
def _prior() -> Pair:
    return _compare_prior(prior())


@case("unCLIP prior with heads of 32: diffusers")
def _prior_32() -> Pair:
    return _compare_prior(prior(heads=8, head_dim=32, layers=2), "model.heads=8")


def _compare_prior(theirs: Any, *overrides: str) -> Pair:
    network = ours(*overrides, one=theirs)
    x, t, (embedding, states, real) = torch.randn(1, 768), torch.tensor([417]), _text()
    mine = network(x, t, **network.encode(embedding, states, real))
    inputs = {"proj_embedding": embedding, "encoder_hidden_states": states, "attention_mask": real}
    both = theirs(x, t, **inputs).predicted_image_embedding
    mine = {"x0": mine, "embedding": network.unwhiten(mine)}
    return size(theirs), mine, {"x0": both, "embedding": theirs.post_process_latents(both)}


def decoder(tokens: int = 1536, **sizes: Any) -> nn.Module:
    """Diffusers' U-Net that attends to tokens of a width; by default of Karlo's decoder."""
    diffusers = peer("diffusers")
    karlo = {
        **{"down_block_types": DOWN + 3 * ATTEND_DOWN, "up_block_types": 3 * ATTEND_UP + UP, **UNET},
        **{"sample_size": 64, "in_channels": 3, "out_channels": 6, "attention_head_dim": 64},
        **{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "class_embed_type": "identity"},
        **{"resnet_time_scale_shift": "scale_shift"},
    }
    with unfilled():
        network = diffusers.UNet2DConditionModel(cross_attention_dim=tokens, **karlo | sizes)
    return fill(network)


@case("unCLIP decoder: diffusers")
def _decoder() -> Pair:
    return _compare_decoder(decoder(), 1280)


@case("unCLIP decoder with heads of 32: diffusers")
def _decoder_32() -> Pair:
    small = {"block_out_channels": (64, 96, 128, 160), "layers_per_block": 1, "attention_head_dim": 32}
    return _compare_decoder(decoder(**small), 256, "model.head_dim=32")


def _compare_decoder(theirs: Any, time_embed_dim: int, *overrides: str) -> Pair:
    """time_embed_dim: 4 times the channels of the first level."""
    projection = peer("diffusers.pipelines.deprecated.unclip.text_proj")
    with unfilled():
        projections = projection.UnCLIPTextProjModel(time_embed_dim=time_embed_dim, cross_attention_dim=1536)
    network = ours(*overrides, decoder=theirs, text_proj=fill(projections))
    x, t, image = torch.randn(2, 3, 32, 32), torch.tensor([417]), torch.randn(1, 768)
    embedding, states, real = _text()
    # first without the embedding, then with it
    twice = [part.expand(2, *part.shape[1:]) for part in (embedding, states, real)]
    keep = torch.tensor([False, True])
    encoded = network.encode(clip=(image.expand(2, -1), keep), text=tuple(twice))
    mine = network(x, t.expand(2), **encoded)
    tokens, added = projections(image_embeddings=image, prompt_embeds=twice[0], text_encoder_hidden_states=twice[1],
                         do_classifier_free_guidance=True)  # fmt: skip
    mask = torch.nn.functional.pad(twice[2], (4, 0), value=True)
    output = theirs(x, t, encoder_hidden_states=tokens, class_labels=added, attention_mask=mask).sample
    return size(theirs, projections), {"output": mine}, {"output": output}


def upsampler() -> nn.Module:
    """Diffusers' U-Net of Karlo's super-resolution."""
    diffusers = peer("diffusers")
    with unfilled():
        network = diffusers.UNet2DModel(
            sample_size=256, in_channels=6, out_channels=3, add_attention=False,
            down_block_types=4 * DOWN, up_block_types=4 * UP, **UNET,
        )  # fmt: skip
    return fill(network)


@case("unCLIP super-resolution: diffusers")
def _upsampler() -> Pair:
    first, last = upsampler(), upsampler()
    network = ours(super_res_first=first, super_res_last=last)
    x, small = torch.randn(1, 3, 32, 32), torch.rand(1, 3, 8, 8) * 2 - 1
    enlarged = torch.nn.functional.interpolate(small, size=[32, 32], mode="bicubic", antialias=True)
    conditions, mine, theirs = network.encode(low_res=small), {}, {}
    for name, network_there, t in (("first", first, 999), ("last", last, 0)):
        mine[name] = network(x, torch.tensor([t]), **conditions)
        theirs[name] = network_there(torch.cat([x, enlarged], dim=1), t).sample
    return size(first, last), mine, theirs


# ---- VQGAN -----------------------------------------------------------------------------------------------------------


@case("VQGAN f16, codebook of 16,384: taming")
def _vqgan() -> Pair:
    layers, vectors = peer("taming.modules.diffusionmodules.model"), peer("taming.modules.vqvae.quantize")
    sizes: dict[str, Any] = {
        **{"ch": 128, "out_ch": 3, "ch_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2, "attn_resolutions": [16]},
        **{"in_channels": 3, "resolution": 256, "z_channels": 256, "double_z": False},
    }
    theirs: Any = nn.Module()
    with redirect_stdout(sys.stderr):  # it prints its sizes
        theirs.encoder, theirs.decoder = layers.Encoder(**sizes), layers.Decoder(**sizes)
    theirs.quantize = vectors.VectorQuantizer2(16384, 256, beta=0.25)
    theirs.quant_conv, theirs.post_quant_conv = nn.Conv2d(256, 256, 1), nn.Conv2d(256, 256, 1)
    network = ours(one=fill(theirs))
    image = 2 * torch.rand(1, 3, 64, 64) - 1
    latent = theirs.quant_conv(theirs.encoder(image))
    rounded, _, (_, _, tokens) = theirs.quantize(latent)
    mine = {
        "latent": network.encode_latent(image),
        "tokens": network.encode(image).flatten().float(),
        "image": network.decode_latent(network.vectors(network.encode(image))),
    }
    decoded = theirs.decoder(theirs.post_quant_conv(rounded))
    return size(theirs), mine, {"latent": latent, "tokens": tokens.flatten().float(), "image": decoded}


# ---- exported weights ------------------------------------------------------------------------------------------------


def _starter(layout: str, load: Callable[[str], Callable[[Tensor, Tensor], tuple]]) -> Pair:
    """The starter CLIP, exported. load: from the folder to a function that computes embeddings."""
    task: Any = checkpoint.load("starter/clip", "clip")
    with tempfile.TemporaryDirectory() as folder:
        export("starter/clip", layout, f"{folder}/clip", None, False)
        run = load(f"{folder}/clip")
    model, words = task.model, ["an avocado chair", "two cats on a blue background"]
    image = 2 * torch.rand(1, 3, model.visual.size, model.visual.size) - 1
    ids = torch.from_numpy(task.tokenizer.pack(words, model.text.context_length)[0])
    names = "image", "text"
    mine = dict(zip(names, model(image, ids)))
    return size(model), mine, dict(zip(names, run((image - model.mean) / model.std, ids)))


@case("starter CLIP, exported: transformers")
def _to_transformers() -> Pair:
    transformers = peer("transformers")

    def load(folder: str) -> Callable[[Tensor, Tensor], tuple]:
        return _embeddings(transformers.CLIPModel.from_pretrained(folder).float().eval())

    return _starter("hf-clip", load)


@case("starter CLIP, exported: open_clip")
def _to_open_clip() -> Pair:
    library = peer("open_clip")

    def load(folder: str) -> Callable[[Tensor, Tensor], tuple]:
        network = library.create_model(f"local-dir:{folder}").float().eval()
        return lambda pixels, ids: network(pixels, ids)[:2]

    return _starter("open-clip", load)


# ---- the table -------------------------------------------------------------------------------------------------------


def compare(name: str) -> tuple[int, float | None]:
    """Parameters of a network, and the largest relative error of its outputs, None for one of another shape."""
    torch.manual_seed(0)
    parameters, mine, theirs = CASES[name]()
    assert mine.keys() == theirs.keys()
    errors = [error(mine[key], theirs[key]) for key in theirs]
    return parameters, None if None in errors else max(errors)  # type: ignore[type-var]


def main(words: list[str]) -> int:
    chosen = [name for name in CASES if not words or any(word.lower() in name.lower() for word in words)]
    print(f"{'network':34}{'package':14}{'parameters':>15}{'error':>10}{'seconds':>9}", flush=True)
    compared, wrong = 0, 0
    for name in chosen:
        start = time.perf_counter()
        network, package = name.split(": ")
        try:
            with torch.no_grad():
                parameters, largest = compare(name)
        except Missing as reason:
            print(f"{network:34}{package:14}not compared: {reason}", flush=True)
            continue
        finally:
            gc.collect()
        compared += 1
        wrong += largest is None or largest >= LIMIT
        cell = "shape" if largest is None else f"{largest:.1e}"
        seconds = time.perf_counter() - start
        print(f"{network:34}{package:14}{parameters:15,}{cell:>10}{seconds:9.0f}", flush=True)
    print(f"{compared} of {len(chosen)} compared, {wrong} of them not below {LIMIT:.0e}")
    return 1 if wrong else 0 if compared else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
