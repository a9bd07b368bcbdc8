import pickle

import pytest
import torch

from dalle_cli.diffusion.loss import diffusion_loss
from dalle_cli.diffusion.process import timesteps_like
from dalle_cli.images import to_float
from dalle_cli.models import embedding, models
from dalle_cli.models.conditions.base import Condition
from dalle_cli.models.conditions.text import TextCondition
from dalle_cli.registry import RecipeError
from dalle_cli.tasks.decoder import DecoderTask
from dalle_cli.tasks.noising import add_noise
from tests.models.test_adm import awake

from .conftest import (
    CAPTIONS,
    IMAGE,
    INPAINT,
    LABEL,
    LOW_RES,
    SIZE,
    STATES,
    TEXT,
    UNET,
    clip,
    decoder,
    samples,
    words,
)

ALL = {"inpaint": INPAINT, "low_res": LOW_RES}


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
@pytest.mark.parametrize("variance", ["small", "learned-range"])
def test_loss_is_diffusion_loss_with_own_noise(predict, variance):
    one = decoder({"prediction_type": predict, "variance": variance})
    batch = one.collate(samples())
    total, logs = one(batch, 0)
    x, t, eps = add_noise(one.process, batch["image"], batch["seed"])
    told = one.model.encode(text=(batch["ids"], batch["real"]))
    expected = diffusion_loss(one.process, one.model(x, t, **told), batch["image"], t, eps)
    torch.testing.assert_close(total, expected.total.mean())
    assert logs.keys() == ({"mse"} if variance == "small" else {"mse", "bound"})
    parts = torch.stack([one(one.collate([sample]), 0)[0] for sample in samples()])
    torch.testing.assert_close(parts.mean(), total, rtol=1e-4, atol=1e-5)  # no sample depends on its neighbours


def test_every_parameter_learns():
    one = decoder({"variance": "learned-range"}, **ALL)
    one(one.collate(samples()), 0)[0].backward()
    without = [name for name, parameter in one.model.named_parameters() if parameter.grad is None]
    assert without == []


def test_drops_and_masks_follow_sample_seeds():
    one = decoder({"text_drop_prob": 0.5}, **ALL)
    many = samples(64)
    batch = one.collate(many)
    empty = ~batch["real"].any(dim=1)
    assert 16 < empty.sum() < 48
    backwards = one.collate(many[::-1])
    assert torch.equal(backwards["ids"].flip(0), batch["ids"])
    assert torch.equal(backwards["known"].flip(0), batch["known"])
    assert len({tuple(mask.flatten().tolist()) for mask in batch["known"]}) > 20
    assert not decoder({"full_mask_prob": 1.0}, **ALL).collate(many)["known"].any()
    assert decoder({"full_mask_prob": 0.0}, **ALL).collate(many)["known"].flatten(1).any(dim=1).all()
    assert "known" not in decoder().collate(many)
    assert decoder().collate(many)["real"].any(dim=1).all()


def test_labels_come_from_captions():
    one = decoder({"classes": ["square", "star", "circle"]}, text=None, label=LABEL)
    batch = one.collate(samples())
    assert batch["label"].tolist() == [2, 0, 2, 0]
    assert "ids" not in batch
    assert one(batch, 0)[0].isfinite()
    with pytest.raises(ValueError, match="names no class"):
        one.collate(samples(texts=["a heart"]))
    with pytest.raises(ValueError, match="scale 2: guidance needs a decoder that is conditioned on text"):
        one.denoiser(["a star"], guidance_scale=2)


def test_guidance_extrapolates_from_no_text():
    one = decoder()
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    t = timesteps_like(300, x)
    plain, null = one.denoiser(CAPTIONS)(x, t), one.denoiser(["", ""])(x, t)
    assert (plain.eps - null.eps).abs().max() > 1e-3
    guided = one.denoiser(CAPTIONS, guidance_scale=3.0)(x, t)
    torch.testing.assert_close(guided.eps, null.eps + 3 * (plain.eps - null.eps), rtol=1e-3, atol=1e-3)
    for times, same in (((300, 300), guided), ((301, 999), plain), ((0, 299), plain)):
        part = one.denoiser(CAPTIONS, guidance_scale=3.0, guidance_interval=times)(x, t)
        torch.testing.assert_close(part.eps, same.eps, rtol=1e-4, atol=1e-4)


def test_each_text_is_encoded_once(monkeypatch):
    read = []
    whole = TextCondition.forward
    monkeypatch.setattr(
        TextCondition, "forward", lambda self, ids, real: read.append(len(ids)) or whole(self, ids, real)
    )
    one = decoder()
    x = torch.randn(3, 3, SIZE, SIZE)
    denoise = one.denoiser(["a star", "a ring", "a star"], guidance_scale=2.0)
    together = denoise(x, timesteps_like(5, x))
    denoise(x, timesteps_like(3, x))
    assert read == [3]  # two texts and none
    alone = one.denoiser(["a star"], guidance_scale=2.0)(x[2:], timesteps_like(5, x[2:]))
    torch.testing.assert_close(alone.eps[0], together.eps[2], rtol=1e-4, atol=1e-4)


def test_embedding_comes_from_clip_or_data():
    companion = clip()
    one = decoder({"image_drop_prob": 0.0}, companion, image=IMAGE)
    batch = one.collate(samples())
    assert batch["keep"].all()
    total, _ = one(batch, 0)
    x, t, eps = add_noise(one.process, batch["image"], batch["seed"])
    told = embedding.embed_images(companion, batch["image"])
    given = one.model.encode(text=(batch["ids"], batch["real"]), image=told)
    torch.testing.assert_close(
        total, diffusion_loss(one.process, one.model(x, t, **given), batch["image"], t, eps).total.mean()
    )
    stored = decoder(image=IMAGE)
    assert stored.clip is None
    torch.testing.assert_close(stored({**batch, "embedding": told}, 0)[0], total)
    assert (stored({**batch, "embedding": told.flip(0)}, 0)[0] - total).abs() > 1e-6
    total.backward()
    assert all(parameter.grad is None for parameter in companion.parameters())
    with pytest.raises(RecipeError, match=r"frozen\.clip: name the CLIP"):
        stored(batch, 0)


def test_clip_may_read_larger_images():
    one = decoder({}, clip(), image=IMAGE)
    batch = one.collate(samples(size=16))
    assert one(batch, 0)[0].isfinite()
    assert torch.equal(one._inputs(batch)["image"][0], one.clip.encode_image(batch["image"]))
    small = torch.nn.functional.interpolate(batch["image"], SIZE, mode="bicubic", antialias=True).clamp(-1, 1)
    assert torch.equal(one._target(batch), small)
    assert len(one.preview(batch)[0]) == 4
    assert one(one.example(2, 16), 0)[0].isfinite()


def test_embeddings_are_dropped_by_sample_seed():
    one = decoder({"image_drop_prob": 0.3, "text_drop_prob": 0.5}, clip(), image=IMAGE)
    many = samples(200)
    batch = one.collate(many)
    assert 100 < batch["keep"].sum() < 180
    assert torch.equal(one.collate(many[::-1])["keep"].flip(0), batch["keep"])
    both = ~batch["keep"] & ~batch["real"].any(dim=1)
    assert 10 < both.sum() < 50  # one does not follow the other


def test_dropped_embeddings_are_not_computed(monkeypatch):
    companion = clip()
    one = decoder({"image_drop_prob": 0.3}, companion, image=IMAGE)
    batch = one.collate(samples(20))
    x, t, eps = add_noise(one.process, batch["image"], batch["seed"])
    given = one.model.encode(
        text=(batch["ids"], batch["real"]), image=(embedding.embed_images(companion, batch["image"]), batch["keep"])
    )
    expected = diffusion_loss(one.process, one.model(x, t, **given), batch["image"], t, eps).total.mean()
    seen, embed = [], embedding.embed_images
    monkeypatch.setattr(embedding, "embed_images", lambda clip, image: seen.append(len(image)) or embed(clip, image))
    torch.testing.assert_close(one(batch, 0)[0], expected)
    assert seen == [batch["keep"].sum()]
    assert 0 < seen[0] < 20
    one({**batch, "keep": torch.zeros(20, dtype=torch.bool), "kept_rows": torch.arange(0)}, 0)
    assert len(seen) == 1


def test_clip_text_condition():
    companion = clip()
    one = decoder({"text_drop_prob": 0.5}, companion, text=STATES, image=IMAGE)
    batch = one.collate(samples())
    assert one(batch, 0)[0].isfinite()
    assert one(one.example(2, SIZE), 0)[0].isfinite()
    told = torch.randn(2, 8)
    x = torch.randn(2, 3, SIZE, SIZE)
    plain = one.denoiser(CAPTIONS, image_embedding=told)(x, timesteps_like(300, x)).eps
    read = embedding.read_texts(companion, embedding.tokenize(companion, one.tokenizer, CAPTIONS))
    given = one.model.encode(text=read, image=told)
    torch.testing.assert_close(one.process.denoiser(one.model, **given)(x, timesteps_like(300, x)).eps, plain)
    assert (one.denoiser(["", ""], image_embedding=told)(x, timesteps_like(300, x)).eps - plain).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"image\.embed_dim: 7, and frozen\.clip has 8"):
        decoder({}, companion, image=IMAGE | {"embed_dim": 7})
    with pytest.raises(ValueError, match=r"text\.vocab_size: 7 is less than the tokenizer's"):
        decoder({}, companion, text=STATES | {"vocab_size": 7})
    own = decoder({"text_drop_prob": 0.5}, companion, text=STATES | {"vocab_size": 520}, image=IMAGE)
    own(batch, 0)[0].backward()
    assert own.model.conditions["text"].token_embedding.weight.grad.abs().sum() > 0
    drawn = own.denoiser(CAPTIONS, image_embedding=told)(x, timesteps_like(300, x)).eps
    assert (
        own.denoiser(CAPTIONS[::-1], image_embedding=told)(x, timesteps_like(300, x)).eps - drawn
    ).abs().max() > 1e-3
    with pytest.raises(ValueError, match="texts are read by the frozen CLIP, of 520 entries, and there is none"):
        DecoderTask(one.model, SIZE, None, companion, variance="small")


def test_guidance_drops_text_and_embedding():
    one = decoder({}, clip(), image=IMAGE)
    told = torch.randn(2, 8)
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    t = timesteps_like(300, x)
    plain, null = one.denoiser(CAPTIONS, image_embedding=told)(x, t), one.denoiser(["", ""])(x, t)
    guided = one.denoiser(CAPTIONS, guidance_scale=3.0, image_embedding=told)(x, t)
    torch.testing.assert_close(guided.eps, null.eps + 3 * (plain.eps - null.eps), rtol=1e-3, atol=1e-3)
    assert (one.denoiser(CAPTIONS)(x, t).eps - plain.eps).abs().max() > 1e-3  # the text alone
    assert (one.denoiser(["", ""], image_embedding=told)(x, t).eps - null.eps).abs().max() > 1e-3  # the embedding alone


def test_upsampler_trains_on_crops():
    torch.manual_seed(0)
    model = awake(
        models.build(UNET | {"learned_variance": False, "attention_factors": [], "conditions": {"low_res": LOW_RES}})
    )
    one = DecoderTask(model, 32, variance="small", crop_fraction=0.25, degradation="bsr")
    many = [{**one, "image": (127.5 * (one["image"] + 1)).byte()} for one in samples(size=32)]
    batch = one.collate(many)
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["low_res"].shape == (4, 3, 4, 4)
    batch["image"] = to_float(batch["image"])  # as the loader does
    assert one(batch, 0)[0].isfinite()
    assert one(one.example(2, 32), 0)[0].isfinite()
    assert one._inputs(batch)["low_res"][0].abs().max() <= 1
    with torch.no_grad():
        assert len(one.preview(batch)[0]) == 12
    x = torch.randn(1, 3, 32, 32)
    assert one.denoiser([""], low_res=torch.randn(1, 3, 16, 16))(x, timesteps_like(9, x)).x0.shape == x.shape
    with pytest.raises(ValueError, match=r"generates 32 px, not 16: set data\.size=32"):
        one.collate(samples(size=16))
    with pytest.raises(ValueError, match=r"task\.crop_fraction: 9 does not divide by 2"):
        DecoderTask(model, 32, variance="small", crop_fraction=0.27)
    with pytest.raises(ValueError, match=r"task\.crop_fraction: 1\.5 is not in \(0, 1\]"):
        DecoderTask(model, 32, variance="small", crop_fraction=1.5)


def test_known_region_is_input_and_kept():
    one, plain = decoder(inpaint=INPAINT), decoder()
    x, image = torch.randn(1, 3, SIZE, SIZE), torch.rand(1, 3, SIZE, SIZE)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., :4] = 1
    t = timesteps_like(500, x)
    for task in (one, plain):
        found = task.denoiser(["a star"], known=(image, mask))(x, t)
        torch.testing.assert_close(found.x0[..., :4], image[..., :4])
        torch.testing.assert_close(found.alpha * found.x0 + found.sigma * found.eps, x, rtol=1e-4, atol=1e-4)
    unknown = one.denoiser(["a star"])(x, t).x0
    assert (one.denoiser(["a star"], known=(image, mask))(x, t).x0 - unknown)[..., 4:].abs().max() > 1e-3
    nothing = one.denoiser(["a star"], known=(image, 0 * mask))(x, t).x0
    torch.testing.assert_close(nothing, unknown)


def test_upsampler_needs_a_small_image():
    one = decoder({"max_noise": 0.5, "max_blur": 1.0}, low_res=LOW_RES)
    with pytest.raises(ValueError, match="upsamples: give it a low-resolution image"):
        one.denoiser(["a star"])
    batch = one.collate(samples())
    (small,) = one._inputs(batch)["low_res"]
    assert small.shape == (4, 3, 4, 4)
    (clean,) = decoder(low_res=LOW_RES)._inputs(batch)["low_res"]
    assert (small - clean).abs().amax(dim=(1, 2, 3)).median() > 0.02
    x = torch.randn(4, 3, SIZE, SIZE)
    a, b = (one.denoiser(CAPTIONS * 2, low_res=given)(x, timesteps_like(9, x)).eps for given in (small, clean))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("conditions", [{}, {"low_res": LOW_RES}, {"inpaint": INPAINT}, ALL])
def test_preview_shows_input_output_and_truth(conditions):
    one = decoder({"text_drop_prob": 0.1}, **conditions)
    batch = one.collate(samples(2))
    with torch.no_grad():
        pictures, captions, columns = one.preview(batch)
    assert (len(pictures), columns) == ((6, 2) if conditions else (2, None))
    assert captions == (None if conditions else CAPTIONS)
    assert all(picture.shape == (3, SIZE, SIZE) for picture in pictures)
    if "inpaint" in conditions:
        kept = batch["known"].expand(-1, 3, -1, -1) == 1
        drawn = torch.stack(pictures[2:4])
        torch.testing.assert_close(drawn[kept], batch["image"][kept], atol=1e-3, rtol=1e-3)
        assert (torch.stack(pictures[:2])[~kept] == 0).all()


def test_mismatched_parts_are_refused():
    good = decoder()
    with pytest.raises(ValueError, match=r"task\.size: 9 does not divide by 2"):
        DecoderTask(good.model, 9, words(), variance="small")
    with pytest.raises(ValueError, match=r"task\.variance: 'learned-range' needs model\.learned_variance=True"):
        DecoderTask(good.model, SIZE, words())
    with pytest.raises(ValueError, match=r"task\.timestep_shift: 0 is not over 0"):
        DecoderTask(good.model, SIZE, words(), variance="small", timestep_shift=0)
    with pytest.raises(ValueError, match="tokenizer: a model that reads text needs one"):
        DecoderTask(good.model, SIZE, variance="small")
    with pytest.raises(ValueError, match=r"conditions\.text\.vocab_size: 259 is less than the tokenizer's 260"):
        decoder(text=TEXT | {"vocab_size": 259})
    with pytest.raises(ValueError, match=r"does not divide by the factor of model\.conditions\.low_res, 3"):
        decoder(low_res=LOW_RES | {"factor": 3})
    good.model.conditions["own"] = Condition()
    with pytest.raises(ValueError, match=r"conditions\.own: task 'decoder' cannot train a Condition"):
        DecoderTask(good.model, SIZE, words(), variance="small")
    del good.model.conditions["own"]
    with pytest.raises(ValueError, match="2 names for a model of 3 classes"):
        decoder({"classes": ["a", "b"]}, label=LABEL)
    batch = good.collate(samples(size=16))
    with pytest.raises(ValueError, match=r"generates 8 px, not 16: set data\.size=8"):
        good(batch, 0)


def test_capabilities_are_those_of_the_conditions():
    one = decoder(inpaint=INPAINT)
    assert (one.reads_text, one.inpaints, one.low_res_factor, one.image_embed_dim) == (True, True, None, None)
    other = decoder(text=STATES, image=IMAGE, low_res=LOW_RES)
    assert (other.inpaints, other.low_res_factor, other.image_embed_dim) == (False, 2, 8)
    assert not other.reads_text  # without the CLIP
    assert decoder({}, clip(), text=STATES).reads_text


def test_base_becomes_inpainting_model():
    base = decoder().model
    wider = models.build(UNET | {"learned_variance": False, "conditions": {"text": TEXT, "inpaint": INPAINT}})
    wider.load_state_dict(wider.adopt(base.state_dict(), base))
    task = DecoderTask(wider.eval(), SIZE, words(), variance="small")
    x = torch.randn(1, 3, SIZE, SIZE)
    region = torch.randn(1, 3, SIZE, SIZE), torch.zeros(1, 1, SIZE, SIZE)
    expected = decoder().denoiser(["a star"])(x, timesteps_like(7, x)).eps
    torch.testing.assert_close(task.denoiser(["a star"], known=region)(x, timesteps_like(7, x)).eps, expected)


def test_workers_get_a_small_collator_without_networks():
    one = decoder({"text_drop_prob": 0.5, "degradation": "bsr"}, clip(), image=IMAGE, **ALL)
    pickled = pickle.dumps(one.collator())
    assert len(pickled) < 50_000
    assert b"torch" not in pickled
    many = [{**sample, "image": (127.5 * (sample["image"] + 1)).byte()} for sample in samples()]
    expected, batch = one.collate(many), pickle.loads(pickled)(many)
    assert batch.keys() == expected.keys() > {"ids", "known", "keep", "low_res"}
    assert all(torch.equal(batch[key], value) for key, value in expected.items() if isinstance(value, torch.Tensor))
