import pytest
import torch
from PIL import Image

from dalle_cli import checkpoint, evaluate
from dalle_cli.evaluate import samples
from dalle_cli.exits import BAD_INPUT, USAGE, Failure
from dalle_cli.tasks.clip import CLIPTask
from tests.fixtures.miniatures import CLIP_SIZE

SIMILAR = torch.eye(4)
SIMILAR[3] = torch.tensor([0.0, 0.0, 0.9, 0.5])  # the last resembles the third more than its own counterpart


def retrieve(model, count, pool_size):
    return evaluate.retrieval(model, num_samples=count, pool_size=pool_size, objects="shapes", precision="float32")


def test_figures_equal_a_plain_computation(tiny):
    task = checkpoint.load(tiny.clip)
    scenes = list(samples.unseen(20, CLIP_SIZE, "shapes", distinct=True))
    image_to_text = text_to_image = 0
    for start in range(0, 20, 4):
        pool = scenes[start : start + 4]
        images = task.embed_images(samples.batch([sample.image for sample in pool]))
        similarity = images @ task.embed_texts([sample.caption for sample in pool]).T
        image_to_text += sum(similarity[i].argmax() == i for i in range(4))
        text_to_image += sum(similarity[:, i].argmax() == i for i in range(4))
    result = retrieve(tiny.clip, 23, 4)  # incomplete pools are left out
    assert (result.num_samples, result.pool_size) == (20, 4)
    assert result.image_to_text_r1 == pytest.approx(image_to_text / 20)
    assert result.text_to_image_r1 == pytest.approx(text_to_image / 20)


@pytest.mark.parametrize(
    ("image", "text", "image_to_text", "text_to_image"),
    [
        (torch.eye(4), torch.eye(4), 1.0, 1.0),
        (torch.eye(4), torch.eye(4).roll(1, 0), 0.0, 0.0),
        (SIMILAR, torch.eye(4), 0.75, 1.0),
        (torch.eye(4), SIMILAR, 1.0, 0.75),
    ],
)
def test_directions_are_not_mixed_up(tiny, monkeypatch, image, text, image_to_text, text_to_image):
    monkeypatch.setattr(CLIPTask, "embed_images", lambda self, batch: image)
    monkeypatch.setattr(CLIPTask, "embed_texts", lambda self, texts: text)
    result = retrieve(tiny.clip, 8, 4)
    assert (result.image_to_text_r1, result.text_to_image_r1) == (image_to_text, text_to_image)


def test_precision_of_the_device_is_used(tiny, monkeypatch):
    enabled = []
    embed = CLIPTask.embed_images

    def remember(self, batch):
        enabled.append(torch.is_autocast_enabled("cpu"))
        return embed(self, batch)

    monkeypatch.setattr(CLIPTask, "embed_images", remember)
    for precision in ("bf16", "float32"):
        evaluate.retrieval(tiny.clip, num_samples=2, pool_size=2, objects="shapes", precision=precision)
    assert enabled == [True, False]


def test_too_few_samples_for_a_pool_are_refused(tiny, tmp_path):
    with pytest.raises(Failure, match="--num-samples 5 is below --pool-size 100") as failure:
        retrieve(tiny.clip, 5, 100)
    assert failure.value.code == USAGE
    for number in range(3):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("black")
    data = {"type": "folder", "path": str(tmp_path)}
    with pytest.raises(Failure, match="the data holds 3 samples, fewer than --pool-size 4") as failure:
        evaluate.retrieval(tiny.clip, data, num_samples=8, pool_size=4)
    assert failure.value.code == BAD_INPUT
    assert evaluate.retrieval(tiny.clip, data, num_samples=8, pool_size=3).num_samples == 3


def test_other_model_types_are_refused(tiny):
    with pytest.raises(checkpoint.CheckpointError, match="holds a 'dvae', where a 'clip' or a 'noised-clip' is needed"):
        retrieve(tiny.dvae, 100, 100)


def test_command_takes_own_data(dalle, tiny, tmp_path):
    for number in range(4):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("black")
    command = ("evaluate", "retrieval", f"data.path={tmp_path}", "--model", tiny.clip, "--pool-size", 2)
    assert dalle(*command).result["num_samples"] == 4
    assert "image to text R@1: " in dalle(*command, terminal=True).out
