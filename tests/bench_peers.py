"""Parts of `make bench` that need the packages users would run otherwise (extra `bench`; see the Makefile).

Networks of published sizes with random weights, in bfloat16 where the machine multiplies it fast. A row gives our
figure and theirs, measured in turns in the same run, and their ratio.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dalle_cli import recipe
from dalle_cli.models import models
from dalle_cli.models.unet import UNet
from dalle_cli.nn.hardware import fast_bf16, keep_memory
from dalle_cli.nn.packed import packed
from tests.parity import packages
from tests.parity.peers import Missing, peer
from tests.stopwatch import line, seconds

REPEATS = 3


def clip() -> None:
    """ViT-B/32 at batch 64 against open_clip's: reading pictures, reading texts, a step of training."""
    keep_memory()
    theirs = peer("open_clip")
    config = theirs.get_model_config("ViT-B-32") | {"quick_gelu": True}
    networks = [_built("clip", "vit-b32", "model.checkpointing=false"), theirs.model.CLIP(**config)]
    images, ids = torch.randn(64, 3, 224, 224), torch.randint(1, 49_000, (64, 77))
    ids[:, -1] = 49_407  # the end token: no text is shorter
    with torch.no_grad(), autocast():
        _row("CLIP reads pictures", 64, [partial(one.encode_image, images) for one in networks], "pictures/s", 1.2)
        _row("CLIP reads texts", 64, [partial(one.encode_text, ids) for one in networks], "texts/s", 1.2)
    steps = [partial(_clip_step, one, optimizer(one), images, ids) for one in networks]
    _row("CLIP trains", 64, steps, "pairs/s", 1.4)


def _clip_step(network: Any, optimizer: torch.optim.Optimizer, images: torch.Tensor, ids: torch.Tensor) -> None:
    with autocast():
        features = [F.normalize(x.float(), dim=-1) for x in (network.encode_image(images), network.encode_text(ids))]
        scores = network.logit_scale.exp() * features[0] @ features[1].T
    each = torch.arange(len(scores))
    (F.cross_entropy(scores, each) + F.cross_entropy(scores.T, each)).backward()
    optimizer.step()
    optimizer.zero_grad()


def dvae() -> None:
    """The published dVAE at batch 4 against OpenAI's own modules, encoding and decoding 256 px."""
    keep_memory()
    theirs = peer("dall_e")
    ours = _built("dvae", "openai")
    images, codes = torch.randn(4, 3, 256, 256), torch.randint(8192, (4, 32, 32))
    encoder, decoder = theirs.Encoder(), theirs.Decoder()
    maps = F.one_hot(codes, 8192).permute(0, 3, 1, 2).float()  # what its users decode
    if not fast_bf16():
        for module in (*encoder.modules(), *decoder.modules()):
            if hasattr(module, "use_float16"):
                module.use_float16 = False
    with torch.no_grad(), autocast():
        _row("dVAE encodes", 4, [lambda: ours.encode_logits(images), lambda: encoder(images)], "pictures/s", 1.6)
        _row("dVAE decodes", 4, [lambda: ours.decode_codes(codes), lambda: decoder(maps)], "pictures/s", 1.6)


def dalle() -> None:
    """256 text and 1,024 image tokens, width 512, 12 layers, drawn; against transformers' GPT-2 of the same size."""
    keep_memory()
    theirs = peer("transformers")
    config = theirs.GPT2Config(vocab_size=8192, n_positions=1280, n_embd=512, n_layer=12, n_head=8)
    other = theirs.GPT2LMHeadModel(config).eval()
    ours = models.build(
        {
            "type": "dalle", "vocab": 16384, "context": 255, "codes": 8192, "grid": 32, "width": 512, "depth": 12,
            "heads": 8,
        },
        "model",
    ).eval()  # fmt: skip
    if fast_bf16():
        ours.to(torch.bfloat16)
        other.to(torch.bfloat16)
    for batch, target in ((1, 2.0), (8, 3.0), (32, 6.0)):
        with torch.no_grad():
            works = [partial(_draw, ours, batch), partial(_generate, theirs, other, batch)]
            _row(f"1,024 codes x {batch}", 1024 * batch, works, "codes/s", target, repeats=1)


def _draw(model: Any, batch: int) -> None:
    scores, cache = model.prefill(torch.randint(model.vocab, (1, model.context)), batch)
    with packed(model):
        for place in range(model.grid**2 - 1):
            scores = model.step(scores.argmax(-1), place, cache)


def _generate(package: Any, model: Any, batch: int) -> None:
    ids = torch.randint(model.config.vocab_size, (batch, 256))
    cache = package.StaticCache(config=model.config, max_cache_len=1280)
    for place in range(1024):
        where = torch.arange(256) if not place else torch.tensor([255 + place])
        ids = model(ids, past_key_values=cache, cache_position=where, use_cache=True).logits[:, -1:].argmax(-1)


def glide() -> None:
    """A step of GLIDE's published base, guided, and of its upsampler, one picture, against diffusers' equal U-Nets."""
    keep_memory()
    sizes = {"block_out_channels": (192, 384, 576, 768), "layers_per_block": 3}
    ids, real = torch.randint(50_000, (2, 128)), torch.ones(2, 128).bool()
    with torch.no_grad():
        ours, theirs = _published("decoder", "glide-small"), packages.decoder(512, **sizes)
        _unet_row("GLIDE base step", ours, theirs, 64, 1.3, text=(ids, real))
        del ours, theirs
        sizes = {
            **{"block_out_channels": (192, 192, 384, 384, 768, 768), "layers_per_block": 2, "in_channels": 6},
            **{"down_block_types": 3 * packages.DOWN + 3 * packages.ATTEND_DOWN},
            **{"up_block_types": 3 * packages.ATTEND_UP + 3 * packages.UP, "sample_size": 256},
        }
        ours, theirs = _published("decoder", "glide-small-256"), packages.decoder(512, **sizes)
        given = {"text": (ids[:1], real[:1]), "low_res": torch.randn(1, 3, 64, 64)}
        _unet_row("GLIDE upsampler step", ours, theirs, 256, 1.6, **given)


def unclip() -> None:
    """A step of Karlo's prior and decoder, guided, and of its upsampler, one picture, against diffusers' networks."""
    keep_memory()
    kind = torch.bfloat16 if fast_bf16() else torch.float32
    embedding, states, real = torch.randn(2, 768).to(kind), torch.randn(2, 77, 768).to(kind), torch.ones(2, 77).bool()
    with torch.no_grad():
        prior, other = _published("prior", "karlo-prior"), packages.prior().to(kind)
        x, t, told = torch.randn(2, 768).to(kind), torch.tensor([500, 500]), prior.encode(embedding, states, real)
        given = {"proj_embedding": embedding, "encoder_hidden_states": states, "attention_mask": real}
        works = [partial(prior, x, t, **told), partial(other, x, t, **given)]
        with packed(prior):
            _row("unCLIP prior step", 1, works, "steps/s", 6)
        del prior, other, works
        ours, theirs = _published("decoder", "karlo-decoder"), packages.decoder()
        _unet_row("unCLIP decoder step", ours, theirs, 64, 1.3, text=(embedding, states, real), clip=embedding)
        del ours, theirs
        ours, theirs = _published("decoder", "karlo-256"), packages.upsampler()
        _unet_row("unCLIP upsampler step", ours, theirs, 256, 1.3, low_res=torch.randn(1, 3, 64, 64))


def _unet_row(what: str, ours: Any, theirs: Any, size: int, target: float, **given: Any) -> None:
    """What does not change from step to step is made once in ours; theirs is given it, where it takes it."""
    kind = next(theirs.parameters()).dtype if not fast_bf16() else torch.bfloat16
    theirs = theirs.to(kind)
    told = ours.encode(**given)
    rows = len(next(iter(told.values())))
    x, t = torch.randn(rows, 3, size, size).to(kind), torch.full((rows,), 500)
    known = {}
    if "tokens" in told:
        known["encoder_hidden_states"] = torch.randn(rows, told["tokens"].shape[1], theirs.config.cross_attention_dim)
        known["class_labels"] = torch.randn(rows, theirs.time_embedding.linear_2.out_features)
        known = {name: value.to(kind) for name, value in known.items()}
    seen = torch.cat([x, told["channels"].to(kind)], dim=1) if "channels" in told else x
    works = [lambda: ours(x, t, **told), lambda: theirs(seen, t, **known)]
    _row(what, 1, works, "steps/s", target, repeats=1)


def _published(family: str, name: str) -> Any:
    """A recipe's network with weights of no meaning, its ends in float32 as where it draws."""
    kind = torch.bfloat16 if fast_bf16() else torch.float32
    with torch.device("meta"):
        network = _built(family, name)
    network = network.to(kind).to_empty(device="cpu").eval()
    for value in [*network.parameters(), *network.buffers()]:
        value.data.uniform_(-0.02, 0.02)
    if isinstance(network, UNet):
        network.time_embed.float()
        network.out.float()
    return network


PARTS: dict[str, Callable[[], None]] = {"clip": clip, "dvae": dvae, "dalle": dalle, "glide": glide, "unclip": unclip}


def autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16())


def optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), 1e-4, fused=True)


def _built(family: str, name: str, *overrides: str) -> Any:
    return models.build(recipe.load(name, family, list(overrides), complete=False)["model"], "model")


def _row(
    what: str, count: int, works: list[Callable[[], object]], unit: str, target: float, repeats: int = REPEATS
) -> None:
    """Ours and theirs; target: the promised ratio."""
    ours, theirs = (count / seconds(work, repeats) for work in works)
    how = f"{ours / theirs:.2f} times the peer's {theirs:,.1f}"
    line(what, how, ours, unit, f"{target} times")


def run(name: str) -> None:
    """A part, or a line that says which package it misses."""
    try:
        PARTS[name]()
    except Missing as error:
        print(f"{name}: left out, {error}; make bench installs it")
