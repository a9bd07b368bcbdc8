"""Parts of `make bench` that need the packages users would run otherwise (extra `bench`; see the Makefile).

Networks of published sizes with random weights, in bfloat16 where the machine multiplies it fast. A row gives our
figure and theirs and their ratio. Each side has a process of its own, one after the other: theirs as its users run it,
ours with memory kept as the commands keep it (hardware/capabilities.py).
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
from dalle_cli.hardware.capabilities import fast_bf16, keep_memory
from dalle_cli.models import dalle as transformer
from dalle_cli.models import models
from dalle_cli.models.unet import UNet
from dalle_cli.nn.prepacked import LEAST, packed
from tests.parity import packages
from tests.parity.peers import Missing, absent, peer
from tests.stopwatch import line, seconds


class Row(NamedTuple):
    """count: of the unit, that a call of `work` does; target: what is promised, of the ratio where there is a peer."""

    what: str
    count: int
    unit: str
    target: str
    work: Callable[[], object]
    repeats: int = 3


def clip(ours: bool) -> Iterator[Row]:
    """ViT-B/32 at batch 64 against open_clip's: reading pictures, reading texts, a step of training."""
    if ours:
        network = _built("clip", "vit-b32", "model.gradient_checkpointing=false")
    else:
        theirs = peer("open_clip")
        network = theirs.model.CLIP(**theirs.get_model_config("ViT-B-32") | {"quick_gelu": True})
    images, ids = torch.randn(64, 3, 224, 224), torch.randint(1, 49_000, (64, 77))
    ids[:, -1] = 49_407  # the end token: no text is shorter
    with _ready(ours, network):
        yield Row("CLIP reads pictures", 64, "pictures/s", "1.2 times", _quiet(lambda: network.encode_image(images)))
        yield Row("CLIP reads texts", 64, "texts/s", "1.2 times", _quiet(lambda: network.encode_text(ids)))
    yield Row("CLIP trains", 64, "pairs/s", "1.4 times", _training(network, lambda: _contrasted(network, images, ids)))


def _contrasted(network: Any, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    features = [F.normalize(x.float(), dim=-1) for x in (network.encode_image(images), network.encode_text(ids))]
    scores = network.logit_scale.exp() * features[0] @ features[1].T
    each = torch.arange(len(scores))
    return F.cross_entropy(scores, each) + F.cross_entropy(scores.T, each)


def dvae(ours: bool) -> Iterator[Row]:
    """The published dVAE at batch 4 against OpenAI's own modules, encoding and decoding 256 px."""
    images, codes = torch.randn(4, 3, 256, 256), torch.randint(8192, (4, 32, 32))
    if ours:
        network = _built("dvae", "openai")
        works = [lambda: network.encode_logits(images), lambda: network.decode_codes(codes)]
    else:
        theirs = peer("dall_e")
        encoder, decoder = theirs.Encoder(), theirs.Decoder()
        maps = F.one_hot(codes, 8192).permute(0, 3, 1, 2).float()  # what its users decode
        if not fast_bf16():
            for module in (*encoder.modules(), *decoder.modules()):
                if hasattr(module, "use_float16"):
                    module.use_float16 = False
        works = [lambda: encoder(images), lambda: decoder(maps)]
    for what, work in zip(("encodes", "decodes"), works):
        yield Row(f"dVAE {what}", 4, "pictures/s", "1.6 times", _quiet(work))


def dalle(ours: bool) -> Iterator[Row]:
    """Codes after 256 text tokens, width 512, 12 layers, from the fifth row of 32 on; against transformers' GPT-2."""
    if ours:
        network: Any = _transformer()
    else:
        theirs = peer("transformers")
        config = theirs.GPT2Config(vocab_size=8192, n_positions=1280, n_embd=512, n_layer=12, n_head=8)
        network = theirs.GPT2LMHeadModel(config)
    network.eval()
    if fast_bf16():
        network.to(torch.bfloat16)
    for batch, places, target in ((1, 128, "2 times"), (8, 128, "3 times"), (32, 64, "6 times")):
        work = partial(_draw, network, batch, places) if ours else partial(_generate, theirs, network, batch, places)
        yield Row(f"codes of {batch} together", places * batch, "codes/s", target, _quiet(work, False))
    if ours:
        # the text is read before: over the 1,024 places of a picture that is nothing, over these few it would be much
        begun: Any = _quiet(
            partial(network.prefill, torch.randint(network.vocab_size, (1, network.context_length)), 512), False
        )()
        work = partial(_go_on, network, *begun, 32)
        yield Row("codes of 512 together", 32 * 512, "codes/s", "3000 codes/s", _quiet(work, False))


def _draw(model: Any, batch: int, places: int) -> None:
    batch = max(2, batch)  # a picture alone is drawn as two, to be the same beside others
    scores, cache = model.prefill(torch.randint(model.vocab_size, (1, model.context_length)), batch)
    _go_on(model, scores, cache, places)


def _go_on(model: Any, scores: torch.Tensor, cache: Any, places: int) -> None:
    with packed(model, least=LEAST):
        for place in range(4 * model.grid_size, 4 * model.grid + places):
            scores = model.step(scores.argmax(-1), place, cache)


def _generate(package: Any, model: Any, batch: int, places: int) -> None:
    ids = torch.randint(model.config.vocab_size, (batch, 256))
    cache = package.StaticCache(config=model.config, max_cache_len=1280)
    for place in range(places):
        where = torch.arange(256) if not place else torch.tensor([255 + place])
        ids = model(ids, past_key_values=cache, cache_position=where, use_cache=True).logits[:, -1:].argmax(-1)


def dalle_trains(ours: bool) -> Iterator[Row]:
    """The same transformer trained at batch 4; against DALLE-pytorch's, its kinds of attention in turn.

    Theirs has gated layers between its attentions, a third more of weights in its blocks.
    """
    words, codes = torch.randint(1, 16384, (4, 255 if ours else 256)), torch.randint(8192, (4, 1024))
    if ours:
        network: Any = _transformer()

        def measured() -> torch.Tensor:
            text, image = transformer.loss(*network(words, codes), words, codes)
            return text / 8 + image
    else:
        # of the packages that it asks for at its start, these are for what it does beside, or out of use
        with absent("taming.models.vqgan", "pkg_resources"):
            theirs = peer("dalle_pytorch")
        codec = theirs.DiscreteVAE(image_size=256, num_layers=3, num_tokens=8192, codebook_dim=64, hidden_dim=16)
        numbers = {"num_text_tokens": 16384, "text_seq_len": 256, "heads": 8, "dim_head": 64}
        kinds = ("full", "axial_row", "axial_col", "conv_like")
        network = theirs.DALLE(dim=512, vae=codec, depth=12, attn_types=kinds, **numbers)
        measured = partial(network, words, codes, return_loss=True)
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
    """A step of GLIDE's published base, guided, and of its upsampler, one picture, against diffusers' equal U-Nets."""
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
    """A step of Karlo's prior and decoder, guided, and of its upsampler, one picture, against diffusers' networks."""
    yield from _prior(ours)
    embedding, states, real = torch.randn(2, 768), torch.randn(2, 77, 768), torch.ones(2, 77).bool()
    embedding, states = embedding.to(_kind()), states.to(_kind())
    told = {"text": (embedding, states, real), "clip": embedding}
    if ours:
        network, work = _unet_step("karlo-decoder", 64, **told)
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
    """A network of ours and a step of it; what does not change from step to step is made once."""
    network = _published("decoder", name)
    with torch.no_grad(), _autocast():
        told = network.encode(**given)
    rows = len(next(iter(told.values())))
    x, t = torch.randn(rows, 3, size, size), torch.full((rows,), 500)
    return network, _quiet(lambda: network(x, t, **told))


def _their_step(network: Any, size: int, rows: int, tokens: int = 0) -> tuple[nn.Module, Callable[[], object]]:
    """The same of diffusers' U-Net, given what it takes of what does not change."""
    network = network.to(_kind())
    x, t, told = torch.randn(rows, network.config.in_channels, size, size), torch.full((rows,), 500), {}
    if tokens:
        told["encoder_hidden_states"] = torch.randn(rows, tokens, network.config.cross_attention_dim).to(_kind())
        told["class_labels"] = torch.randn(rows, network.time_embedding.linear_2.out_features).to(_kind())
    return network, _quiet(lambda: network(x.to(_kind()), t, **told), False)


def _ready(ours: bool, network: nn.Module) -> ExitStack:
    """Ours as where many pictures or steps follow one another."""
    stack = ExitStack()
    if ours:
        with _autocast():
            stack.enter_context(packed(network))
    return stack


def _published(family: str, name: str) -> Any:
    """A recipe's network with weights of no meaning, its ends in float32 as where it draws."""
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
    return torch.bfloat16 if fast_bf16() else torch.float32


def _autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16())


def _quiet(work: Callable[[], object], mixed: bool = True) -> Callable[[], object]:
    """Without gradients; mixed: in bfloat16 where that is fast, of weights in float32."""

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
    """What, unit, target and how many a second, of each row. Raises Missing."""
    if ours:
        keep_memory()
    return [(row.what, row.unit, row.target, row.count / seconds(row.work, row.repeats)) for row in PARTS[name](ours)]


def run(name: str) -> None:
    """A part, or a line that says which package it misses."""
    found = []
    for ours in (False, True):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                found.append(pool.apply(measure, (name, ours)))
            except Missing as error:
                print(f"{name}: left out, {error}; make bench installs it")
                return
    theirs = {what: rate for what, _, _, rate in found[0]}
    for what, unit, target, rate in found[1]:
        how = f"{rate / theirs[what]:.2f} times the peer's {theirs[what]:,.3g}" if what in theirs else ""
        line(what, how, rate, unit, target)
