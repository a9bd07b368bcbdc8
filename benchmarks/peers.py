"""Comparison with the packages that one would use otherwise (extra `bench`; see the Makefile).

Networks of published sizes with random weights, in bfloat16 if the machine multiplies it fast. A row gives our figure,
the peer's and their ratio. Each side runs in its own process, one after the other: the peer as its users run it, ours
with the memory settings of the commands (hardware/capabilities.py).
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from dalle_cli import recipe
from dalle_cli.hardware.capabilities import has_fast_bf16, keep_freed_memory
from dalle_cli.models import dalle as transformer
from dalle_cli.models import models
from dalle_cli.models.unet import UNet
from dalle_cli.nn.prepacked import MIN_WEIGHTS, prepacked
from tests.parity import packages
from tests.parity.peers import Missing, absent, peer

from .stopwatch import line, seconds


class Row(NamedTuple):
    """count: units that a call of `work` processes. target: of the ratio if there is a peer, else of the figure."""

    what: str
    count: int
    unit: str
    target: str
    work: Callable[[], object]
    repeats: int = 3


def clip(ours: bool) -> Iterator[Row]:
    """ViT-B/32 at batch 64 against open_clip: encoding images, encoding texts, a training step."""
    if ours:
        network = _built("clip", "vit-b32", "model.gradient_checkpointing=false")
    else:
        theirs = peer("open_clip")
        network = theirs.model.CLIP(**theirs.get_model_config("ViT-B-32") | {"quick_gelu": True})
    images, ids = torch.randn(64, 3, 224, 224), torch.randint(1, 49_000, (64, 77))
    ids[:, -1] = 49_407  # the end token: all texts have the full length
    with _ready(ours, network):
        yield Row("CLIP encodes images", 64, "images/s", "1.2 times", _quiet(lambda: network.encode_image(images)))
        yield Row("CLIP encodes texts", 64, "texts/s", "1.2 times", _quiet(lambda: network.encode_text(ids)))
    yield Row("CLIP trains", 64, "pairs/s", "1.4 times", _training(network, lambda: _contrasted(network, images, ids)))


def _contrasted(network: Any, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    features = [F.normalize(x.float(), dim=-1) for x in (network.encode_image(images), network.encode_text(ids))]
    logits = network.logit_scale.exp() * features[0] @ features[1].T
    each = torch.arange(len(logits))
    return F.cross_entropy(logits, each) + F.cross_entropy(logits.T, each)


def dvae(ours: bool) -> Iterator[Row]:
    """The published dVAE at batch 4 against OpenAI's own modules, encoding and decoding 256 px."""
    images, tokens = torch.randn(4, 3, 256, 256), torch.randint(8192, (4, 32, 32))
    if ours:
        network = _built("dvae", "openai")
        works = [lambda: network.encode_logits(images), lambda: network.decode_token_stats(tokens)]
    else:
        theirs = peer("dall_e")
        encoder, decoder = theirs.Encoder(), theirs.Decoder()
        maps = F.one_hot(tokens, 8192).permute(0, 3, 1, 2).float()  # the input of its decoder
        if not has_fast_bf16():
            for module in (*encoder.modules(), *decoder.modules()):
                if hasattr(module, "use_float16"):
                    module.use_float16 = False
        works = [lambda: encoder(images), lambda: decoder(maps)]
    for what, work in zip(("encodes", "decodes"), works):
        yield Row(f"dVAE {what}", 4, "images/s", "1.6 times", _quiet(work))


def dalle(ours: bool) -> Iterator[Row]:
    """Image tokens after 256 text tokens, width 512, 12 layers, from the fifth row of 32; against GPT-2."""
    if ours:
        network: Any = _transformer()
    else:
        theirs = peer("transformers")
        config = theirs.GPT2Config(vocab_size=8192, n_positions=1280, n_embd=512, n_layer=12, n_head=8)
        network = theirs.GPT2LMHeadModel(config)
    network.eval()
    if has_fast_bf16():
        network.to(torch.bfloat16)
    for batch, count, target in ((1, 128, "2 times"), (8, 128, "3 times"), (32, 64, "6 times")):
        work = partial(_sample, network, batch, count) if ours else partial(_generate, theirs, network, batch, count)
        yield Row(f"tokens, batch {batch}", count * batch, "tokens/s", target, _quiet(work, False))
    if ours:
        # the text is encoded before: negligible over the 1,024 tokens of an image, not over these few
        prefilled: Any = _quiet(
            partial(network.prefill, torch.randint(network.vocab_size, (1, network.context_length)), 512), False
        )()
        work = partial(_continue, network, *prefilled, 32)
        yield Row("tokens, batch 512", 32 * 512, "tokens/s", "3000 tokens/s", _quiet(work, False))


def _sample(model: Any, batch: int, count: int) -> None:
    batch = max(2, batch)  # a single image is computed as two, so that it equals the same image of a larger batch
    logits, cache = model.prefill(torch.randint(model.vocab_size, (1, model.context_length)), batch)
    _continue(model, logits, cache, count)


def _continue(model: Any, logits: torch.Tensor, cache: Any, count: int) -> None:
    with prepacked(model, min_weights=MIN_WEIGHTS):
        for position in range(4 * model.grid_size, 4 * model.grid_size + count):
            logits = model.step(logits.argmax(-1), position, cache)


def _generate(package: Any, model: Any, batch: int, count: int) -> None:
    ids = torch.randint(model.config.vocab_size, (batch, 256))
    cache = package.StaticCache(config=model.config, max_cache_len=1280)
    for step in range(count):
        position = torch.arange(256) if not step else torch.tensor([255 + step])
        ids = model(ids, past_key_values=cache, cache_position=position, use_cache=True).logits[:, -1:].argmax(-1)


def dalle_trains(ours: bool) -> Iterator[Row]:
    """The same transformer trained at batch 4; against DALLE-pytorch with alternating kinds of attention.

    The peer has gated layers between its attentions: a third more weights in its blocks.
    """
    text, image = torch.randint(1, 16384, (4, 255 if ours else 256)), torch.randint(8192, (4, 1024))
    if ours:
        network: Any = _transformer()

        def measured() -> torch.Tensor:
            text_loss, image_loss = transformer.token_losses(*network(text, image), text, image)
            return text_loss / 8 + image_loss
    else:
        # of the packages that it imports, these serve other features or no longer exist
        with absent("taming.models.vqgan", "pkg_resources"):
            theirs = peer("dalle_pytorch")
        codec = theirs.DiscreteVAE(image_size=256, num_layers=3, num_tokens=8192, codebook_dim=64, hidden_dim=16)
        numbers = {"num_text_tokens": 16384, "text_seq_len": 256, "heads": 8, "dim_head": 64}
        kinds = ("full", "axial_row", "axial_col", "conv_like")
        network = theirs.DALLE(dim=512, vae=codec, depth=12, attn_types=kinds, **numbers)
        measured = partial(network, text, image, return_loss=True)
    yield Row("1,280 tokens train", 4 * 1280, "tokens/s", "1.8 times", _training(network, measured), 1)


def _transformer() -> Any:
    sizes = {
        "vocab_size": 16384,
        "context_length": 255,
        "image_vocab_size": 8192,
        "grid_size": 32,
        "width": 512,
        "depth": 12,
        "heads": 8,
    }
    return models.build({"type": "dalle", **sizes}, "model")


def glide(ours: bool) -> Iterator[Row]:
    """A guided step of GLIDE's published base and a step of its upsampler, against equal U-Nets of diffusers."""
    ids, real = torch.randint(50_000, (2, 128)), torch.ones(2, 128).bool()
    base = {"block_out_channels": (192, 384, 576, 768), "layers_per_block": 3}
    upsampler = {
        **{"block_out_channels": (192, 192, 384, 384, 768, 768), "layers_per_block": 2, "in_channels": 6},
        **{"down_block_types": 3 * packages.DOWN + 3 * packages.ATTEND_DOWN},
        **{"up_block_types": 3 * packages.ATTEND_UP + 3 * packages.UP, "sample_size": 256},
    }
    given = {"text": (ids[:1], real[:1]), "low_res": torch.randn(1, 3, 64, 64)}
    if ours:
        network, work = _unet_step("glide-small", 64, text=(ids, real))
    else:
        network, work = _their_step(packages.decoder(512, **base), 64, rows=2, tokens=128)
    with _ready(ours, network):
        yield Row("GLIDE base step", 1, "steps/s", "1.3 times", work)
    del network, work
    if ours:
        network, work = _unet_step("glide-small-256", 256, **given)
    else:
        network, work = _their_step(packages.decoder(512, **upsampler), 256, rows=1, tokens=128)
    with _ready(ours, network):
        yield Row("GLIDE upsampler step", 1, "steps/s", "1.6 times", work)


def unclip(ours: bool) -> Iterator[Row]:
    """A guided step of Karlo's prior and decoder and a step of its upsampler, one image, against diffusers."""
    yield from _prior(ours)
    embedding, states, real = torch.randn(2, 768), torch.randn(2, 77, 768), torch.ones(2, 77).bool()
    embedding, states = embedding.to(_kind()), states.to(_kind())
    conditioning = {"text": (embedding, states, real), "clip": embedding}
    if ours:
        network, work = _unet_step("karlo-decoder", 64, **conditioning)
    else:
        network, work = _their_step(packages.decoder(), 64, rows=2, tokens=81)
    with _ready(ours, network):
        yield Row("unCLIP decoder step", 1, "steps/s", "1.3 times", work)
    del network, work
    if ours:
        network, work = _unet_step("karlo-256", 256, low_res=torch.randn(1, 3, 64, 64))
    else:
        network, work = _their_step(packages.upsampler(), 256, rows=1)
    with _ready(ours, network):
        yield Row("unCLIP upsampler step", 1, "steps/s", "1.3 times", work, 1)


def _prior(ours: bool) -> Iterator[Row]:
    kind = _kind()
    embedding, states, real = torch.randn(2, 768).to(kind), torch.randn(2, 77, 768).to(kind), torch.ones(2, 77).bool()
    x, t = torch.randn(2, 768).to(kind), torch.tensor([500, 500])
    if ours:
        prior = _published("prior", "karlo-prior")
        with torch.no_grad():
            given = prior.encode(embedding, states, real)
    else:
        prior = packages.prior().to(kind)
        given = {"proj_embedding": embedding, "encoder_hidden_states": states, "attention_mask": real}
    with _ready(ours, prior):
        yield Row("unCLIP prior step", 1, "steps/s", "6 times", _quiet(lambda: prior(x, t, **given), False))


def _unet_step(name: str, size: int, **given: Any) -> tuple[nn.Module, Callable[[], object]]:
    """Return our network and a step of it; the conditioning is encoded once."""
    network = _published("decoder", name)
    with torch.no_grad(), _autocast():
        conditioning = network.encode(**given)
    rows = len(next(iter(conditioning.values())))
    x, t = torch.randn(rows, 3, size, size), torch.full((rows,), 500)
    return network, _quiet(lambda: network(x, t, **conditioning))


def _their_step(network: Any, size: int, rows: int, tokens: int = 0) -> tuple[nn.Module, Callable[[], object]]:
    """Return the U-Net of diffusers and a step of it, with encoded conditioning."""
    network = network.to(_kind())
    x, t, conditioning = torch.randn(rows, network.config.in_channels, size, size), torch.full((rows,), 500), {}
    if tokens:
        conditioning["encoder_hidden_states"] = torch.randn(rows, tokens, network.config.cross_attention_dim).to(
            _kind()
        )
        conditioning["class_labels"] = torch.randn(rows, network.time_embedding.linear_2.out_features).to(_kind())
    return network, _quiet(lambda: network(x.to(_kind()), t, **conditioning), False)


def _ready(ours: bool, network: nn.Module) -> ExitStack:
    """Prepack the weights of our network, as commands do for many images or steps."""
    stack = ExitStack()
    if ours:
        with _autocast():
            stack.enter_context(prepacked(network))
    return stack


def _published(family: str, name: str) -> Any:
    """Return the network of a recipe with random weights, its first and last layers in float32 as when sampling."""
    with torch.device("meta"):
        network = _built(family, name)
    network = network.to(_kind()).to_empty(device="cpu").eval()
    for value in [*network.parameters(), *network.buffers()]:
        value.data.uniform_(-0.02, 0.02)
    if isinstance(network, UNet):
        network.time_embed.float()
        network.out.float()
    return network


def _built(family: str, name: str, *overrides: str) -> Any:
    return models.build(recipe.load(name, family, list(overrides), complete=False)["model"], "model")


def _kind() -> torch.dtype:
    return torch.bfloat16 if has_fast_bf16() else torch.float32


def _autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16())


def _quiet(work: Callable[[], object], mixed: bool = True) -> Callable[[], object]:
    """Run without gradients. mixed: float32 weights, autocast to bfloat16 if it is fast."""

    def done() -> object:
        with torch.no_grad(), _autocast() if mixed else nullcontext():
            return work()

    return done


def _training(network: nn.Module, measured: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step() -> None:
        with _autocast():
            loss = measured()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "clip": clip,
    "dvae": dvae,
    "dalle": dalle,
    "dalle-trains": dalle_trains,
    "glide": glide,
    "unclip": unclip,
}


def measure(name: str, ours: bool) -> list[tuple[str, str, str, float]]:
    """Return what, unit, target and units per second of each row. Raises Missing."""
    if ours:
        keep_freed_memory()
    return [(row.what, row.unit, row.target, row.count / seconds(row.work, row.repeats)) for row in PARTS[name](ours)]


def run(name: str) -> None:
    """Print a part, or a line with the package that is missing."""
    sides = []
    for ours in (False, True):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                sides.append(pool.apply(measure, (name, ours)))
            except Missing as error:
                print(f"{name}: skipped, {error}; make bench installs it")
                return
    theirs = {what: rate for what, _, _, rate in sides[0]}
    for what, unit, target, rate in sides[1]:
        how = f"{rate / theirs[what]:.2f} times the peer's {theirs[what]:,.3g}" if what in theirs else ""
        line(what, how, rate, unit, target)
