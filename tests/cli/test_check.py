import pytest

from dalle_cli import checkpoint, recipe
from dalle_cli.data.scenes import objects
from dalle_cli.models import models
from dalle_cli.text.learn import learn
from tests.cli.conftest import one_line
from tests.cli.test_manage import write

DVAE = {"type": "dvae", "vocab_size": 128, "n_hid": 4, "n_init": 4, "groups": 3, "num_res_blocks": 1}
CLIP = {
    "type": "clip",
    "embed_dim": 8,
    "image": {"type": "vit", "size": 16, "patch_size": 8, "width": 8, "depth": 1, "heads": 1},
    "text": {"type": "clip-text", "vocab_size": 520, "context_length": 8, "width": 8, "depth": 1, "heads": 1},
}


@pytest.mark.parametrize(
    ("name", "count"),
    [  # computed from the published modules
        ("clip/rn50", 102_007_137),
        ("clip/rn101", 119_688_033),
        ("clip/rn50x4", 178_300_601),
        ("clip/rn50x16", 290_979_217),
        ("clip/rn50x64", 623_258_305),
        ("clip/vit-b32", 151_277_313),
        ("clip/vit-b16", 149_620_737),
        ("clip/vit-l14", 427_616_513),
        ("clip/vit-l14-336", 427_944_193),
    ],
)
def test_published_clips_are_counted(dalle, name, count):
    ended = dalle("check", "--recipe", name)
    assert ended.code == 0
    assert ended.result["num_parameters"] == count == sum(ended.result["parts"].values())
    assert "data.path" in ended.result["needs"]
    assert ended.result["samples"] == ended.result["steps"] * 32_768


@pytest.mark.parametrize(
    ("name", "count"),
    [  # computed from the published modules; those of the paper's GLIDE are 3.5 and 1.5 billion there
        ("decoder/glide-small", 385_030_726),
        ("decoder/glide-small-inpaint", 385_037_638),
        ("decoder/glide-small-256", 398_361_286),
        ("decoder/glide-small-256-inpaint", 398_368_198),
        ("decoder/glide-64", 3_554_414_086),
        ("decoder/unclip-decoder", 3_565_435_398),
        ("decoder/unclip-256", 729_710_726),
        ("decoder/unclip-1024", 282_064_326),
        ("decoder/karlo-decoder", 893_318_086),  # as published
        ("decoder/karlo-256", 691_579_523),
        ("decoder/glide-256", 1_540_932_998),
        ("decoder/adm-64", 295_904_454),
        ("decoder/adm-128", 421_529_606),
        ("decoder/adm-256", 553_838_086),
        ("decoder/adm-512", 558_997_638),
        ("decoder/adm-64-256", 311_795_910),
        ("decoder/adm-128-512", 308_835_270),
        ("classifier/adm-64", 65_438_568),
        ("classifier/adm-128", 42_568_040),
        ("classifier/adm-256", 54_096_360),
        ("classifier/adm-512", 54_448_360),
        ("clip/noised-glide", 86_443_776 + 71_679_488 + 1),
    ],
)
def test_published_diffusion_models_are_counted(dalle, name, count):
    ended = dalle("check", "--recipe", name, "data.path=nowhere", "data.type=folder")
    assert ended.code == 3  # the data is looked for
    assert dalle("check", "--recipe", name).result["num_parameters"] == count


def test_conditions_keep_the_published_order():
    for name in ("glide-256-inpaint", "glide-small-256-inpaint"):
        found = recipe.load(name, "decoder", complete=False)
        assert list(found["model"]["conditions"]) == ["text", "inpaint", "low_res"]


def test_largest_recipe_needs_no_memory(dalle):
    found = dalle("check", "--recipe", "prior/dalle1-12b").result
    assert round(found["num_parameters"] / 1e9) == 12
    assert found["frozen"] == {"dvae": None}
    assert found["needs"] == ["tokenizer.path", "frozen.dvae", "data.path"]


def test_all_recipes_pass(dalle):
    ended = dalle("check")
    assert ended.code == 0, ended.err
    assert [row["recipe"] for row in ended.results] == [
        f"{family}/{name}" for family in recipe.FAMILIES for name in recipe.names(family)
    ]
    assert len(ended.results) >= 20
    assert ended.err.endswith(f"{len(ended.results)} recipes checked, 0 failed\n")


def test_one_failure_does_not_hide_the_rest(dalle, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "FAMILIES", {"dvae": "train-dvae"})
    write(tmp_path / "recipes/dvae/wrong.yaml", "extends: tiny.yaml\nmodel: {widht: 3}\n")
    ended = dalle("check")
    assert ended.code == 4
    (wrong,) = [row for row in ended.results if "error" in row]
    assert wrong["recipe"] == "dvae/wrong"
    assert wrong["error"].startswith("model.widht: ")
    shown = dalle("check", terminal=True).out.splitlines()
    assert [line.split()[0] for line in shown if "FAILED: model.widht" in line] == ["dvae/wrong"]
    assert any(line.split()[:2] == ["dvae/tiny", "75,164"] for line in shown)


def test_epochs_follow_from_the_data(dalle, tmp_path):
    dalle("data", "scenes", "--out", "pairs", "--objects", "shapes", "--num-samples", "40", "--size", "16")
    words = ["check", "--recipe", "dvae/tiny", "data.type=folder", "data.path=pairs", "train.steps=19"]
    found = dalle(*words).result
    assert (found["batch_size"], found["samples"]) == (16, 304)
    assert (found["epoch_samples"], found["epochs"]) == (38, 8.0)  # a twentieth is held out
    assert "epoch_samples     38" in dalle(*words, terminal=True).out.splitlines()


def test_given_path_must_exist(dalle):
    ended = dalle("check", "--recipe", "dvae/tiny", "data.type=folder", "data.path=nowhere")
    assert ended.code == 3
    assert "no folder 'nowhere'" in ended.err


def test_missing_emoji_font_is_a_need(dalle, monkeypatch):
    monkeypatch.setattr(objects, "FONTS", ())
    monkeypatch.delenv("DALLE_EMOJI_FONT", raising=False)
    objects.font.cache_clear()
    objects.load_object_set.cache_clear()
    try:
        found = dalle("check", "--recipe", "dvae/starter").result
    finally:
        objects.font.cache_clear()
        objects.load_object_set.cache_clear()
    assert found["num_parameters"] > 0
    assert found["epoch_samples"] is None
    assert [need.startswith("data: no color emoji font found") for need in found["needs"]] == [True]


@pytest.fixture
def frozen_models(tmp_path):
    """Write an untrained vocabulary, dVAE and CLIP; return the command that uses the first two."""
    for name, node in (("codec", DVAE), ("clip", CLIP)):
        checkpoint.save(tmp_path / name / "model.safetensors", models.build(node).state_dict(), {"model": node})
    learn(["a red circle"] * 3, 514, "dalle").save(tmp_path / "words.json")
    return [
        "check",
        "--recipe",
        "prior/dalle1-tiny",
        "tokenizer.path=words.json",
        "model.vocab_size=514",
        "frozen.dvae=codec",
    ]


def test_cost_is_estimated(dalle, frozen_models):
    words = ["--processes", 4, "--device-memory", "1.5 GB", "--peak-tflops", 0.001, "--mfu", 0.5]
    found = dalle(*frozen_models, *words).result["estimate"]
    assumed = found["assumed"]
    assert (assumed["processes"], assumed["device_memory"], assumed["flops_per_s"]) == (4, 1_500_000_000, 1e9)
    assert (assumed["micro_batch_size"], assumed["precision"], assumed["substitutes"]) == (16, "bf16", [])
    assert found["samples_per_s"] == pytest.approx(4 * 0.5e9 / found["flops"]["training"])
    assert found["ddp"]["fits"]
    assert found["fsdp"]["moments"] < found["ddp"]["moments"] / 3
    shown = dalle(*frozen_models, *words, terminal=True).out
    assert (
        "4 GPUs of 1 GiB and 0.001 TFLOP/s at 50% MFU, bf16, 16 samples per GPU and pass, gradient checkpointing off"
        in shown
    )
    assert "memory, FSDP" in shown
    assert "estimate" not in dalle(*frozen_models).result


@pytest.mark.slow
def test_cost_of_the_largest_recipe(dalle):
    words = ["check", "--recipe", "dalle1-12b", "--processes", 64, "--device-memory", "80GiB"]
    found = dalle(*words).result["estimate"]
    vocabulary = "a vocabulary of 16384 entries, which the run learns from its captions"
    substitutes = [vocabulary, "the published dvae of 97.6M parameters"]
    assert found["assumed"]["substitutes"] == substitutes
    # 2 for every weight that multiplies, 1,280 positions, and a few percent of attention
    assert 2 * 12.2e9 * 1280 < found["flops"]["forward"] < 1.05 * 2 * 12.3e9 * 1280
    assert found["flops"]["training"] / found["flops"]["forward"] == pytest.approx(3.7, abs=0.35)
    assert not found["ddp"]["fits"]
    assert found["fsdp"]["fits"]
    assert found["ddp"]["weights"] == pytest.approx(4 * 12.4e9, rel=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "tokenizer/tiny", "--processes", "2"], "trains no network"),
        (["--processes", "2"], "need --recipe"),
        (["--recipe", "dvae/tiny", "--processes", "3"], "train.batch_size: 16 does not divide among 3 processes"),
        (["--recipe", "dvae/tiny", "--processes", "2", "--device-memory", "8x"], "is not a size such as 80GiB"),
    ],
)
def test_impossible_estimates_are_refused(dalle, words, said):
    ended = dalle("check", *words)
    assert ended.code == 2
    assert said in " ".join(ended.err.replace("│", " ").split())


def test_frozen_models_are_counted(dalle, frozen_models):
    found = dalle(*frozen_models).result
    assert found["needs"] == []
    assert found["frozen"] == {"dvae": sum(value.numel() for value in models.build(DVAE).parameters())}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.vocab_size=513", "model.vocab_size: 513 is not the tokenizer's 514: set model.vocab_size=514"),
        ("model.image_vocab_size=64", "model.image_vocab_size: 64 is not the dVAE's 128"),
        ("frozen.dvae=clip", "frozen.dvae: a CLIP, where task 'dalle' needs a DVAE"),
        ("frozen.clip=clip", "frozen.clip: task 'dalle' takes no 'clip'"),
    ],
)
def test_misfits_are_found(dalle, frozen_models, change, said):
    ended = dalle(*frozen_models, change)
    assert ended.code in (2, 3)
    assert ended.err == f"dalle: {said}\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.image.widht=3", "did you mean 'width'?"),
        ("train.step=3", "did you mean 'steps'?"),
        ("data.szie=3", "did you mean 'size'?"),
        ("optim.type=adam", "not one of adamw, sgd"),
        ("train.steps=many", "expected a whole number"),
        ("task.type=dvaee", "did you mean 'dvae'?"),
        ("train.steps=???", "train.steps"),
    ],
)
def test_typos_are_named(dalle, word, said):
    ended = dalle("check", "--recipe", "clip/tiny", word)
    assert ended.code == 2
    assert one_line(ended.err)
    assert said in ended.err


def test_tokenizer_recipes(dalle):
    found = dalle("check", "--recipe", "tokenizer/tiny").result
    assert (found["tokenizer"], found["vocab_size"], found["captions"], found["needs"]) == ("dalle", 600, 20_000, [])
    for word in ("learn.sise=3", "tokenizer.type=clp", "tokenizer.path=x", "data.szie=3", "learn.captions=0"):
        ended = dalle("check", "--recipe", "tokenizer/tiny", word)
        assert (ended.code, one_line(ended.err)) == (2, True), word


def test_system_recipes(dalle, tmp_path):
    weights = models.build(DVAE).state_dict()
    checkpoint.save(tmp_path / "t.safetensors", weights, {"model": DVAE})
    found = dalle(
        "check", "--recipe", "systems/dalle1", "parts.transformer=t.safetensors", "parts.reranker=none"
    ).result
    assert found["bytes"] == {"transformer": (tmp_path / "t.safetensors").stat().st_size, "reranker": None}
    assert [need.partition(":")[0] for need in found["needs"]] == ["parts.reranker"]
    found = dalle("check", "--recipe", "systems/dalle1", "parts.reranker=[t.safetensors,none,t.safetensors]").result
    assert found["bytes"]["reranker"] == 2 * (tmp_path / "t.safetensors").stat().st_size
    assert [need.partition(":")[0] for need in found["needs"]] == ["parts.reranker"]
    for word in ("sample.temprature=1", "system.type=dalle2", "smaple.x=1"):
        ended = dalle("check", "--recipe", "systems/dalle1", word)
        assert (ended.code, one_line(ended.err)) == (2, True), word


def test_overrides_need_a_recipe(dalle):
    assert dalle("check", "train.steps=3").code == 2
    ended = dalle("check", "--recipe", "vit-b3")
    assert (ended.code, "did you mean 'clip/vit-b32'?" in ended.err) == (2, True)
