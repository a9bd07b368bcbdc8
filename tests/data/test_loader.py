import itertools
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_cli.data import loader
from dalle_cli.data.loader import BadSamples, Data, build
from dalle_cli.data.section import Loading
from dalle_cli.data.source import BadSample, DataError
from dalle_cli.images import to_float, to_tensor

from .conftest import colour_of, pairs, picture, write_tar


def data(photos, **keys):
    return build({"type": "folder", "path": str(photos), "size": 16, "num_workers": 0, **keys})


def take(batches, count) -> list[dict]:
    return list(itertools.islice(batches, count))


def keys(batches) -> list[str]:
    return [key for batch in batches for key in batch["key"]]


def same(one: dict, other: dict) -> bool:
    return all(
        torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]
        for name in one.keys() | other.keys()
    )


def join(parts: list[dict]) -> dict:
    """One batch of several."""
    return {
        name: torch.cat([part[name] for part in parts])
        if isinstance(parts[0][name], torch.Tensor)
        else [item for part in parts for item in part[name]]
        for name in parts[0]
    }


def test_a_batch(photos):
    batch = next(data(photos).train(4))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert batch["seed"].dtype == torch.int64
    assert batch["seed"].min() >= 0
    assert len(set(batch["seed"].tolist())) == 4
    assert batch["bad"] == []
    for image, text, key in zip(batch["image"], batch["text"], batch["key"]):
        number = int(key[:3])
        assert text == f"number {number}"
        assert torch.equal(image[:, 0, 0], to_tensor(Image.new("RGB", (1, 1), colour_of(number)))[:, 0, 0])


def test_each_sample_once_an_epoch_none_dropped_none_of_validation(photos):
    photos40 = data(photos, val_samples=7)
    assert (photos40.samples, photos40.held_out) == (33, 7)
    held_out = keys(photos40.validation(7))
    assert len(set(held_out)) == 7
    stream = keys(take(photos40.train(5), 20))  # 100 samples: three epochs and one more
    epochs = [stream[start : start + 33] for start in (0, 33, 66)]
    everything = {f"{number:03d}.png" for number in range(40)}
    assert all(len(epoch) == 33 and set(epoch) == everything - set(held_out) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize(("world", "accumulate", "workers"), [(1, 1, 2), (2, 1, 0), (1, 4, 0), (2, 2, 1), (3, 2, 0)])
def test_the_same_steps_at_any_number_of_processes_parts_and_workers(photos, world, accumulate, workers):
    options = {"crop": "dvae", "flip": True, "size": 8, "val_samples": 4}
    alone = take(data(photos, **options).train(12, seed=3), 7)
    ranks = [
        take(
            data(photos, **options, num_workers=workers).train(12, rank, world, seed=3, accumulate=accumulate),
            7 * accumulate,
        )
        for rank in range(world)
    ]
    for step, expected in enumerate(alone):
        parts = [ranks[rank][step * accumulate + part] for part in range(accumulate) for rank in range(world)]
        assert same(join(parts), expected)


def test_resume_is_a_number_even_on_other_processes_and_batch_sizes(photos):
    whole = join(take(data(photos, flip=True).train(4, seed=1), 24))
    later = join(take(data(photos, flip=True).train(12, start=60, seed=1), 3))
    assert same(later, {name: values[60:96] for name, values in {**whole, "bad": []}.items()})
    halves = [take(data(photos, flip=True).train(12, rank, 2, start=60, seed=1), 3) for rank in range(2)]
    assert same(join([part for pair in zip(*halves) for part in pair]), later)


def test_skipping_reads_nothing(photos, monkeypatch):
    source = data(photos)
    read = []
    original = type(source.sources[0]).read
    monkeypatch.setattr(type(source.sources[0]), "read", lambda *place: read.append(place) or original(*place))
    next(source.train(4, start=4 * 10**9))
    assert len(read) == 4


def test_seed_changes_order_and_crops(photos):
    assert keys(take(data(photos).train(8, seed=1), 5)) != keys(take(data(photos).train(8, seed=2), 5))
    first, again = (join(take(data(photos).train(8, seed=1), 10)) for _ in range(2))
    assert same(first, again)
    assert len(set(first["seed"].tolist())) == 80  # another one for the same picture in the next epoch


def test_reading_leaves_the_runs_own_generators_alone(photos):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        next(data(photos, num_workers=workers).train(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_sizes_that_do_not_divide(photos):
    with pytest.raises(ValueError, match=r"train\.batch_size: 10 does not divide among 2 processes x 3 parts"):
        data(photos).train(10, world=2, accumulate=3)


@pytest.mark.parametrize(
    ("held_out", "batch", "world"), [(7, 3, 1), (8, 4, 2), (7, 64, 2), (9, 4, 2), (1, 4, 3), (5, 2, 2)]
)
def test_validation_is_equal_for_every_process_and_nearly_whole(photos, held_out, batch, world):
    source = data(photos, val_samples=held_out, flip=True, crop="random")
    ranks = [list(source.validation(batch, rank, world)) for rank in range(world)]
    assert len({tuple(len(one["key"]) for one in rank) for rank in ranks}) == 1
    sizes = {len(one["key"]) * world for rank in ranks for one in rank}
    assert len(sizes) == 1
    assert sizes.pop() <= max(batch, world)
    seen = [key for rank in ranks for key in keys(rank)]
    assert len(set(seen)) > held_out - world * len(ranks[0])
    assert set(seen) <= set(keys(source.validation(1)))
    again = list(source.validation(batch, 0, world))
    assert all(same(one, other) for one, other in zip(ranks[0], again))


def test_validation_by_default_is_a_twentieth(photos):
    assert data(photos).held_out == 2
    assert data(photos, val_samples=0).held_out == 0
    assert list(data(photos, val_samples=0).validation(4)) == []
    with pytest.raises(DataError, match=r"^data\.val_samples: 40 samples leave none of 40 to train on; lower it$"):
        data(photos, val_samples=40)


def test_validation_is_not_random(photos):
    (photos / "000.txt").write_text("first\nsecond\n")
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 64, 3), dtype=np.uint8))
    for file in photos.glob("*.png"):
        wide.save(file)
    source = data(photos, val_samples=39, flip=True, crop="random")
    batch = next(source.validation(39))
    assert all(torch.equal(image, batch["image"][0]) for image in batch["image"])
    if "000.png" in batch["key"]:
        assert batch["text"][batch["key"].index("000.png")] == "first"
    trained = join(take(source.train(1), 20))["image"]
    assert not all(torch.equal(image, trained[0]) for image in trained)


def test_one_of_several_captions_is_drawn(photos):
    for file in photos.glob("*.txt"):
        file.write_text("one\ntwo\nthree\n")
    texts = join(take(data(photos).train(30), 10))["text"]
    counts = [texts.count(word) for word in ("one", "two", "three")]
    assert sum(counts) == 300
    assert min(counts) > 60


def test_bad_samples_are_replaced_and_named_the_same_way_everywhere(photos):
    (photos / "003.png").write_bytes(b"broken")
    (photos / "004.txt").unlink()
    (photos / "005.txt").write_text(" \n")
    Image.new("RGB", (4000, 1)).save(photos / "006.png")
    options = {"val_samples": 0, "max_pixels": 10_000, "size": 16}
    batches = take(data(photos, **options).train(8, seed=1), 10)
    assert all(len(batch["key"]) == 8 for batch in batches)
    assert not {"003.png", "004.png", "005.png", "006.png"} & set(keys(batches))
    bad = sorted(set(join(batches)["bad"]))
    assert bad == [
        ("003.png", "not an image"),
        ("004.png", "no caption"),
        ("005.png", "no caption"),
        ("006.png", "too narrow: 4000x1, enlarged 16 times"),
    ]
    assert all(same(*pair) for pair in zip(batches, take(data(photos, **options, num_workers=2).train(8, seed=1), 10)))


@pytest.mark.parametrize("count", [3, loader.STRIDE, 2 * loader.STRIDE])
def test_a_bad_sample_is_replaced_in_a_set_of_any_size(count):
    class OneBad:
        blocks = (count,)

        def read(self, block, index):
            if index == 1:
                raise BadSample("broken", "1")
            return {"image": np.zeros((2, 2, 3), np.uint8), "text": "x", "key": str(index)}

    source = Data(OneBad(), Loading(size=2, num_workers=0, val_samples=0))
    batch = next(source.train(count))
    assert batch["bad"] == [("1", "broken")]
    assert len(set(batch["key"])) == count - 1


def test_captions_can_be_done_without(photos):
    for file in photos.glob("*.txt"):
        file.unlink()
    batch = next(data(photos, require_captions=False).train(4))
    assert batch["text"] == [""] * 4
    assert batch["bad"] == []


@pytest.mark.parametrize("workers", [0, 1])
def test_all_bad_is_one_line(photos, workers):
    for file in photos.glob("*.txt"):
        file.unlink()
    before = set(torch.multiprocessing.active_children())  # other tests of this process may have left some
    with pytest.raises(DataError) as raised:
        next(data(photos, num_workers=workers).train(4))
    assert not set(torch.multiprocessing.active_children()) - before
    assert str(raised.value).startswith("data: 38 samples in a row are bad: no caption (38); the first: 0")
    assert "\n" not in str(raised.value)


def test_the_share_of_bad_samples_stops_a_run():
    counter = BadSamples(0.05)
    counter.count(60, [(f"{number}.png", "not an image") for number in range(30)])  # too early to tell
    with pytest.raises(DataError) as raised:
        counter.count(60, [("z.png", "too many pixels: 9x9"), ("y.png", "too many pixels: 8x8")])
    assert str(raised.value) == (
        "21.1% of 152 samples are bad, above data.max_bad_fraction=0.05: not an image (30), too many pixels (2); "
        "the first: 0.png, 1.png, 2.png"
    )
    fine = BadSamples(0.05)
    for _ in range(100):
        fine.count(96, [("a.png", "not an image")] * 4)
    assert fine.seen == 10_000
    assert fine.reasons == {"not an image": 400}
    assert len(fine.first) == 20
    BadSamples(1.0).count(0, [("a", "b")] * 1000)


def test_shards_and_their_problems(tmp_path):
    for shard in range(4):
        path = write_tar(tmp_path / f"{shard:05d}.tar", pairs(range(100 * shard, 100 * shard + 10)))
    os.truncate(path, path.stat().st_size // 2)
    source = build({"type": "shards", "path": str(tmp_path), "size": 8, "num_workers": 0, "val_samples": 0})
    assert 30 < source.samples < 40
    assert len(source.problems) == 1
    seen = keys(take(source.train(source.samples), 1))
    assert len(set(seen)) == source.samples


def test_mixture(photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for number in range(10):
        (other / f"other{number}.png").write_bytes(picture())
        (other / f"other{number}.txt").write_text("other")
    node = {
        "type": "mixture",
        "sources": [{"type": "folder", "path": str(photos)}, {"type": "folder", "path": str(other)}],
        "weights": [3, 1],
        "size": 8,
        "num_workers": 0,
        "val_samples": 8,
    }
    source = build(node)
    assert source.samples == 42
    assert build({**node, "samples": 500}).samples == 500
    batch = next(source.train(1000))
    assert batch["text"].count("other") == 250
    held_out = keys(source.validation(8))
    assert sum(key.startswith("other") for key in held_out) == 2
    assert not set(held_out) & set(batch["key"])
    others = [key for key in batch["key"] if key.startswith("other")]
    assert {others.count(key) for key in others} == {31, 32}  # 250 of 8
    later = take(source.train(50, start=700), 6)
    assert keys(later) == keys(take(source.train(1000), 1))[700:]


def test_a_small_source_keeps_most_of_its_samples(photos, tmp_path):
    node = {
        "type": "mixture",
        "sources": [{"type": "folder", "path": str(photos)}, {"type": "scenes", "objects": "shapes"}],
        "weights": [1, 1],
        "size": 8,
    }
    assert build(node).held_out == 4


def test_own_collate(photos):
    batch = next(data(photos).train(4, collate=lambda samples: {"texts": [sample["text"] for sample in samples]}))
    assert set(batch) == {"texts", "bad"}
    raw = next(data(photos).train(4, collate=lambda samples: {"raw": torch.stack([one["image"] for one in samples])}))
    assert raw["raw"].dtype == torch.uint8
    assert torch.equal(to_float(raw["raw"]), next(data(photos).train(4))["image"])


def test_batches_come_on_a_device(photos):
    batch = next(data(photos).train(4, device="meta"))
    assert {batch["image"].device.type, batch["seed"].device.type} == {"meta"}
    assert batch["image"].dtype == torch.float32
    assert next(data(photos).validation(4, device="meta"))["image"].is_meta


def test_arrays_are_pictures_too():
    batch = next(build({"type": "scenes", "objects": "shapes", "size": 16, "num_workers": 0}).train(3))
    assert batch["image"].shape == (3, 3, 16, 16)


def test_other_errors_are_not_swallowed(photos, monkeypatch):
    monkeypatch.setattr(loader, "to_bytes", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(data(photos).train(4))


SEVERAL = ["a cat", "un gato", "eine Katze"]


@pytest.fixture(params=["folder", "metadata", "shards", "jsonl"])
def several_captions(request, tmp_path):
    """The `data` section of 20 images with three captions each, in every source that can hold several."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = [f"{number:02d}" for number in range(20)]
    if request.param == "shards":
        members = [
            (f"{name}.{end}", content)
            for name in names
            for end, content in (("png", picture()), ("json", json.dumps({"texts": SEVERAL}).encode()))
        ]
        write_tar(folder / "0.tar", members)
        return {"type": "shards", "path": str(folder), "caption_column": "texts"}
    for name in names:
        (folder / f"{name}.png").write_bytes(picture())
        if request.param == "folder":
            (folder / f"{name}.txt").write_text("\n".join(SEVERAL))
    if request.param == "folder":
        return {"type": "folder", "path": str(folder)}
    table = folder / ("metadata.jsonl" if request.param == "metadata" else "table.jsonl")
    table.write_text("".join(json.dumps({"file_name": f"{name}.png", "text": SEVERAL}) + "\n" for name in names))
    if request.param == "metadata":
        return {"type": "folder", "path": str(folder)}
    return {"type": "table", "path": str(table)}


def test_caption_choice_holds_in_every_source(several_captions):
    def texts(choice):
        source = build({**several_captions, "size": 16, "num_workers": 0, "val_samples": 2, "caption": choice})
        return set(next(source.train(18))["text"]), set(next(source.validation(2))["text"])

    assert texts("random") == (set(SEVERAL), {"a cat"})
    assert texts("first") == ({"a cat"}, {"a cat"})
    assert texts("join") == ({"a cat un gato eine Katze"}, {"a cat un gato eine Katze"})


def test_padded_images_are_padded_in_training_and_validation(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture("red", (40, 20)))
        (tmp_path / f"{number}.txt").write_text("a red bar")
    source = build({"type": "folder", "path": str(tmp_path), "size": 16, "num_workers": 0, "val_samples": 1,
                    "crop": "pad"})  # fmt: skip
    for batch in (next(source.train(3)), next(source.validation(1))):
        assert (batch["image"][:, :, 0] == 1).all()  # a white edge
        assert (batch["image"][:, 1, 8] == -1).all()  # red in the middle row
