import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint, images, recipe
from dalle_cli.exits import DONE, PARTIAL, USAGE, WOULD_OVERWRITE, Failure
from dalle_cli.generate import sample as module
from dalle_cli.generate.metadata import read
from dalle_cli.generate.outputs import Collected
from dalle_cli.generate.requests import GenerationRequest, plan_images
from dalle_cli.generate.sample import SampleOptions
from dalle_cli.registry import RecipeError
from dalle_cli.systems import systems
from dalle_cli.systems.dalle1 import DALLE1Options
from dalle_cli.systems.loading import system_recipe
from dalle_cli.systems.scorer import Scorer
from tests.fixtures.miniatures import CPU, noise


@pytest.fixture
def sample(tiny, tmp_path, monkeypatch):
    """Draw with the tiny system from an empty folder; the results."""
    monkeypatch.chdir(tmp_path)

    def run(*prompts, code=DONE, prompts_file=None, **how):
        results = Collected()
        how = {"recipe": tiny.recipe, "precision": "float32", "quiet": True, **how}
        assert module.sample(prompts, SampleOptions(**how), prompts_file, results) == code
        return results.reported

    return run


def drawn(results):
    return [np.asarray(Image.open(result["path"])) for result in results]


def same(some, others):
    return len(some) == len(others) and all(np.array_equal(one, other) for one, other in zip(some, others))


@pytest.fixture
def no_models(monkeypatch):
    """Loading anything is an error."""

    def fail(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(checkpoint, "load", fail)


def test_prompts_and_candidates_come_in_order(sample):
    results = sample("a red circle", '{"prompt": "zebra", "seed": 5, "mood": "glad"}', num_images=2)
    assert [(r["index"], r["prompt"], r["seed"], r["sample_index"]) for r in results] == [
        (0, "a red circle", 0, 0),
        (1, "a red circle", 0, 1),
        (2, "zebra", 5, 0),
        (3, "zebra", 5, 1),
    ]
    assert results[3]["path"] == "out/000003-5-zebra.png"
    assert [r.get("mood") for r in results] == [None, None, "glad", "glad"]
    assert not any(same([one], [two]) for one in drawn(results[:2]) for two in drawn(results[2:]))


def test_images_are_those_of_the_system(sample, tiny):
    results = sample("a red circle", "zebra", seed=3, sampling={"temperature": 0.7, "top_k": None})
    system = systems.build({"type": "dalle1"}, "system", device=CPU, transformer=tiny.dalle)
    items = plan_images([GenerationRequest("a red circle"), GenerationRequest("zebra")], seed=3)
    seeds = [[item.noise_seed] for item in items]
    expected = system.generate(["a red circle", "zebra"], seeds, DALLE1Options(temperature=0.7), batch_size=1)
    assert same(drawn(results), [np.asarray(images.to_pil(picture)) for picture in expected[:, 0]])


def test_images_do_not_depend_on_the_batch(sample):
    prompts = ["a red circle", "a blue square", "zebra"]
    together = drawn(sample(*prompts, num_images=3, seed=1, out="a"))
    assert same(drawn(sample(*prompts, num_images=3, seed=1, out="b", batch_size=1)), together)
    assert same(drawn(sample(*prompts, num_images=3, seed=1, out="c", batch_size=4)), together)
    assert same(drawn(sample(prompts[0], num_images=2, seed=1, out="d")), together[:2])
    assert not same(drawn(sample(prompts[0], num_images=2, seed=2, out="e"))[:1], together[:1])


def test_reranking_keeps_the_best_of_the_same_candidates(sample, tiny):
    prompts = ["a red circle", "zebra"]
    candidates = sample(*prompts, num_images=6, out="all")
    results = sample(*prompts, rerank=6, top=2, out="best")
    scorer = Scorer(CPU, tiny.clip)
    for p, prompt in enumerate(prompts):
        own = candidates[6 * p : 6 * p + 6]
        found = scorer.images(torch.stack([images.to_tensor(Image.open(result["path"])) for result in own]))
        scores = (found @ scorer.texts([prompt])[0]).tolist()
        order = sorted(range(6), key=lambda i: -scores[i])[:2]
        kept = results[2 * p : 2 * p + 2]
        assert [result["sample_index"] for result in kept] == [own[i]["sample_index"] for i in order]
        assert [result["score"] for result in kept] == pytest.approx([scores[i] for i in order], abs=0.01)
        assert same(drawn(kept), drawn([own[i] for i in order]))
    assert [result["index"] for result in results] == [0, 1, 2, 3]
    for result in results:
        found = read(result["path"])["dalle"]
        assert (found["result"], found["sample_index"]) == ({"score": result["score"]}, result["sample_index"])
        assert set(found["models"]) == {"transformer", "reranker"}


def test_several_clips_rerank_together(sample, tiny, glide, tmp_path):
    (tmp_path / "noised.safetensors").write_bytes(Path(glide.noised_clip).read_bytes())
    (tmp_path / "both.yaml").write_text(
        f"system: {{type: dalle1}}\n"
        f"parts: {{transformer: {tiny.dalle}, reranker: [{tiny.clip}, ./noised.safetensors]}}\n"
    )  # what begins with ./ lies beside the recipe
    found = sample("zebra", recipe=str(tmp_path / "both.yaml"), rerank=6, top=6)
    scorer = Scorer(CPU, [tiny.clip, glide.noised_clip])
    pictures = torch.stack([images.to_tensor(Image.open(result["path"])) for result in found])
    scores = (scorer.images(pictures) @ scorer.texts(["zebra"])[0]).tolist()
    assert [result["score"] for result in found] == pytest.approx(scores, abs=0.01)
    assert set(read(found[0]["path"])["dalle"]["models"]) == {"transformer", "reranker", "reranker_2"}
    assert sample("zebra", recipe=str(tmp_path / "both.yaml"), rerank=6, dry_run=True) == []


def test_more_kept_than_candidates_is_refused(sample):
    with pytest.raises(Failure, match="--top 5 exceeds the 2 candidates of --rerank"):
        sample("a red circle", rerank=2, top=5)
    with pytest.raises(RecipeError, match="--rerank needs a CLIP"):
        sample("a red circle", rerank=2, recipe=no_clip(), out="x")


def no_clip():
    """A recipe in the folder where the test runs, naming a checkpoint that nothing is to load."""
    with open("bare.yaml", "w") as file:
        file.write("system: {type: dalle1}\nparts: {transformer: none}\n")
    return "bare.yaml"


@pytest.mark.parametrize("options", [{"num_images": 2}, {"rerank": 3, "top": 2}])
def test_only_missing_images_are_generated(sample, options, monkeypatch):
    first = sample("a red circle", "zebra", **options)
    pictures = drawn(first)
    with open(first[2]["path"], "wb") as file:
        file.write(b"cut short")
    prompts = []
    draw = systems.get("dalle1").generate
    monkeypatch.setattr(
        systems.get("dalle1"), "generate", lambda self, *a, **k: prompts.extend(a[0]) or draw(self, *a, **k)
    )
    again = sample("a red circle", "zebra", skip_existing=True, **options)
    assert prompts == ["zebra"]
    assert again == [{**result, "skipped": True} if result["index"] != 2 else result for result in first]
    assert same(drawn(again), pictures)


def test_only_missing_candidates_are_generated(sample, monkeypatch):
    first = sample("a red circle", "zebra", num_images=4)
    pictures = drawn(first)
    for number in (1, 6, 7):
        os.unlink(first[number]["path"])
    counts = []
    draw = systems.get("dalle1").generate
    monkeypatch.setattr(
        systems.get("dalle1"), "generate", lambda self, *a, **k: counts.append(a[1]) or draw(self, *a, **k)
    )
    again = sample("a red circle", "zebra", num_images=4, skip_existing=True)
    assert [[len(row) for row in seeds] for seeds in counts] == [[1], [2]]
    assert [result.get("skipped", False) for result in again] == [number not in (1, 6, 7) for number in range(8)]
    assert same(drawn(again), pictures)


def test_images_are_written_as_they_come(sample, monkeypatch):
    draw, calls = systems.get("dalle1").generate, []

    def interrupted(self, *args, **more):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(self, *args, **more)

    whole = drawn(sample("a red circle", num_images=5, out="whole"))
    with monkeypatch.context() as patch:
        patch.setattr(systems.get("dalle1"), "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sample("a red circle", num_images=5, batch_size=2)
    assert len(os.listdir("out")) == 4
    assert same(drawn(sample("a red circle", num_images=5, skip_existing=True)), whole)


def test_no_model_is_loaded_when_all_files_exist(sample, no_models):
    for result in plan_images([GenerationRequest("a red circle")], 2):
        images.save_png(noise(), f"out/{result.index:06d}-0-a-red-circle.png")
    assert [r["skipped"] for r in sample("a red circle", num_images=2, skip_existing=True)] == [True, True]


@pytest.mark.parametrize("job", [{"out": "out"}, {"out": "new", "sheet": "sheet.png"}])
def test_overwriting_is_refused_before_any_model_is_loaded(sample, no_models, job):
    images.save_png(noise(), "out/000001-0-a-red-circle.png")
    images.save_png(noise(), "sheet.png")
    with pytest.raises(Failure, match="already exists") as failure:
        sample("a red circle", num_images=2, **job)
    assert failure.value.code == WOULD_OVERWRITE


def test_reproduce_gives_the_same_image(sample):
    options = {"temperature": 0.6, "top_k": 12, "guidance_scale": 2.0}
    first = sample("a red circle", "zebra", num_images=2, seed=9, sampling=options)
    again = sample(reproduce=first[0]["path"], out="again")
    with open(first[0]["path"], "rb") as one, open(again[0]["path"], "rb") as two:
        assert one.read() == two.read()
    for n, result in enumerate(first[1:]):
        assert same(drawn(sample(reproduce=result["path"], out=f"again-{n}")), drawn([result]))
    ranked = (sample("zebra", rerank=5, seed=seed, out=f"best-{seed}") for seed in range(20))
    best = next(one for one in ranked if one[0]["sample_index"] > 0)  # not the candidate that is drawn without ranking
    assert same(drawn(sample(reproduce=best[0]["path"], out="again-best")), drawn(best))


def test_options_replace_those_to_reproduce(sample):
    first = sample("a red circle", seed=4, sampling={"temperature": 0.6})
    other = sample("zebra", reproduce=first[0]["path"], sampling={"top_k": 3}, out="other")
    assert (other[0]["prompt"], other[0]["seed"]) == ("zebra", 4)
    found = read(other[0]["path"])["dalle"]["options"]
    assert found == {"temperature": 0.6, "top_k": 3, "top_p": None, "guidance_scale": 1.0}


def test_changed_weights_are_named(sample, tiny, tmp_path, capsys):
    own = {name: tmp_path / f"{name}.safetensors" for name in ("dalle", "dvae")}
    for name, path in own.items():
        path.write_bytes(Path(getattr(tiny, name)).read_bytes())
    Path("own.yaml").write_text(f"system: {{type: dalle1}}\nparts: {{transformer: {own['dalle']}}}\n")
    (first,) = sample("a red circle", recipe="own.yaml")
    sample(reproduce=first["path"], recipe=None, out="same", quiet=False)
    assert "another" not in capsys.readouterr().err
    found = checkpoint.read_tensors(own["dalle"])
    about = checkpoint.metadata(own["dalle"])
    words = checkpoint.load(str(own["dalle"])).tokenizer
    checkpoint.save(own["dalle"], {name: -value for name, value in found.items()}, about["recipe"], words)
    sample(reproduce=first["path"], recipe=None, out="other", quiet=False)
    said = capsys.readouterr().err
    assert f"{first['path']}: made with another transformer; the new image will differ" in said


def test_options_of_another_system_are_left_out(sample, glide, capsys):
    (first,) = sample("a red circle", sampling={"temperature": 0.6, "guidance_scale": 2.0})
    (other,) = sample(reproduce=first["path"], recipe=glide.recipe, out="other", quiet=False)
    assert (
        f"{glide.recipe} has no temperature, top_k, top_p: not used from out/000000-0-a-red-circle.png"
        in capsys.readouterr().err
    )
    assert read(other["path"])["dalle"]["options"]["guidance_scale"] == 2.0


def test_images_of_other_commands_are_not_reproduced(sample, tmp_path):
    from dalle_cli.generate.metadata import Origin, chunks

    origin = Origin("reconstruct", "x", {}, {})
    images.save_png(noise(), tmp_path / "x.png", chunks(origin, plan_images([GenerationRequest("x")])[0], (16, 16)))
    with pytest.raises(Failure, match="made by `dalle reconstruct`") as failure:
        sample(reproduce="x.png")
    assert failure.value.code == USAGE


def test_image_prefix_is_completed_and_reproduced(sample):
    noise(3).save("half.png")
    first = sample("a red circle", image="half.png", keep_rows=2)
    assert not same(drawn(first), drawn(sample("a red circle", out="free")))
    assert read(first[0]["path"])["dalle"]["options"]["keep_rows"] == 2
    assert same(drawn(sample(reproduce=first[0]["path"], out="again")), drawn(first))
    other = sample(reproduce=first[0]["path"], image="half.png", keep_rows=3, out="other")
    assert read(other[0]["path"])["dalle"]["options"]["keep_rows"] == 3
    assert not same(drawn(other), drawn(first))


@pytest.mark.parametrize(
    ("job", "said"), [({"image": "x.png"}, "needs --keep-rows"), ({"keep_rows": 1}, "needs --image")]
)
def test_image_needs_keep_rows(sample, no_models, job, said):
    with pytest.raises(Failure, match=said):
        sample("a red circle", **job)


def test_image_prefix_is_read_before_any_model(sample, no_models):
    for name, said in (("none.png", "missing file"), ("bad.png", "not an image")):
        (open("bad.png", "w")).close()
        with pytest.raises(images.BadImage, match=f"--image {name}: {said}"):
            sample("a red circle", image=name, keep_rows=1)


def test_failed_requests_are_passed_on(sample):
    failed = '{"prompt": "a cat", "seed": 3, "error": "no good"}'
    results = sample(failed, "a red circle", code=PARTIAL)
    assert results[0]["path"] == "out/000000-0-a-red-circle.png"
    assert results[1:] == [{"prompt": "a cat", "seed": 3, "error": "no good"}]
    assert sample(failed, code=PARTIAL, out="none") == results[1:]


def test_dry_run_writes_nothing(sample, no_models, tmp_path, capsys):
    assert sample("a red circle", "zebra", rerank=8, top=3, dry_run=True, sheet="sheets/s.png") == []
    told = capsys.readouterr()
    assert told.out == ""
    assert "2 prompts x 8 candidates, 3 of each kept: 6 files" in told.err
    assert "temperature 0.9" in told.err  # the recipe's
    assert list(tmp_path.iterdir()) == []


def test_diffusion_is_reproduced(sample, glide):
    how = {"recipe": glide.recipe, "sampling": {"sampler": "ddpm", "guidance_scale": 2.0}}
    first = sample("a red circle", "zebra", num_images=2, seed=9, denoising_strip="strip.png", sheet="sheet.png", **how)
    assert Image.open("strip.png").size == (5 * 136 + 8, 4 * 136 + 8)
    assert np.asarray(Image.open(first[0]["path"])).shape == (16, 16, 3)
    found = read(first[0]["path"])
    assert "Steps: 5, Sampler: ddpm, CFG scale: 2.0, Seed: 9" in found["parameters"]
    assert set(found["dalle"]["models"]) == {"decoder", "upsampler"}
    for n, result in enumerate(first):
        (again,) = drawn(sample(reproduce=result["path"], out=f"again-{n}", recipe=None))
        assert np.abs(again.astype(int) - drawn([result])[0].astype(int)).max() <= 1  # sums round otherwise
    best = sample("zebra", rerank=3, top=2, out="best", **how)
    assert best[0]["score"] >= best[1]["score"]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"image": "x.png", "keep_rows": 1}, "`dalle inpaint` fills parts"),
        ({"sampling": {"temperature": 0.5}}, "sample takes no 'temperature'"),
        ({"sampling": {"sampler": "dimm"}}, "'dimm' is not one of"),
        ({"sampling": {"steps": "5x"}}, "steps '5x': expected a number"),
        ({"sampling": {"guidance": "clip"}, "recipe": "bare"}, "guidance clip needs a checkpoint"),
    ],
)
def test_invalid_options_are_refused_before_any_model(sample, glide, no_models, job, said):
    if job.get("recipe"):
        with open("bare.yaml", "w") as file:
            file.write("system: {type: glide}\nparts: {decoder: none}\n")
        job = job | {"recipe": "bare.yaml"}
    with pytest.raises(RecipeError, match=said):
        sample("a red circle", **{"recipe": glide.recipe} | job)


def test_denoising_strip_needs_diffusion(sample, no_models):
    with pytest.raises(RecipeError, match="--denoising-strip is for diffusion"):
        sample("a red circle", denoising_strip="strip.png")


def test_decoder_checkpoint_is_a_system(glide):
    assert system_recipe(glide.decoder) == {"system": {"type": "glide"}, "parts": {"decoder": glide.decoder}}
    assert system_recipe(glide.label)["sample"] == {"guidance_scale": 1.0}  # it has no text to leave out


def test_systems_are_recipes_or_checkpoints(tiny):
    assert system_recipe("dalle1") == recipe.load("dalle1", "systems")
    assert system_recipe(tiny.recipe)["sample"] == {"temperature": 0.9}
    made = system_recipe(tiny.dalle)
    parts = {"transformer": tiny.dalle, "reranker": ["starter/clip", "starter/noised-clip"]}
    assert made == {"system": {"type": "dalle1"}, "parts": parts}
    with pytest.raises(RecipeError, match="holds a 'clip', which generates no images by itself"):
        system_recipe(tiny.clip)
    with pytest.raises(RecipeError, match="did you mean 'dalle1'"):
        system_recipe("dale1")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint 'runs/none'"):
        system_recipe("runs/none")


def test_offload_needs_several_models(tiny):
    with pytest.raises(Failure, match="consists of one model; it is for GLIDE and unCLIP") as caught:
        module.sample(["a red circle"], SampleOptions(recipe=tiny.recipe, offload=True))
    assert caught.value.code == USAGE


def test_duplicates_are_dropped_before_ranking_and_said(sample, capsys):
    results = sample("a red circle", rerank=4, top=2, sampling={"temperature": 0.0}, quiet=False)
    assert same(drawn(results[:1]), drawn(results[1:]))
    assert '"a red circle": 1 distinct of 4 candidates; 1 of the 2 kept are duplicates' in capsys.readouterr().err
    distinct = sample("a red circle", rerank=12, top=4, out="b")
    assert len({image.tobytes() for image in drawn(distinct)}) == 4


def test_reranker_is_said_where_it_is_borrowed(sample, tiny, capsys):
    sample("a red circle", rerank=2, recipe=tiny.dalle, quiet=False)
    assert "ranked by starter/clip, starter/noised-clip (recipe dalle1); --reranker NAME" in capsys.readouterr().err
