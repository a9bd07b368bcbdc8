"""What the prior is for: one decoder conditioned in three ways (Ramesh et al. 2022, section 5.1, figure 8)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import Tensor

from ...data.scenes.grammar import parse
from ...data.scenes.objects import load_object_set
from ...exits import BAD_INPUT, Failure
from ...generate.latent_editor import DecodeRequest, LatentEditor, cosine
from ...generate.outputs import Collected
from ...generate.requests import PlannedImage, plan_images, read_requests
from ...generate.sheets import result_cells
from .. import generated, suite
from ..generated import Generation, GroupFigures, group_figures
from ..protocol import Option, Result, Rows

EXAMPLES = (
    'dalle probe prior "a red rocket" -n 8 --sheet conditionings.png',
    "dalle probe prior --num-captions 50 --no-text --out by-embedding",
)
COLUMNS = ("index", "seed", "skipped", "conditioning", "score", "path", "prompt")
CONDITIONINGS = ("caption", "text embedding", "prior")


@dataclass(frozen=True)
class Conditionings(Result):
    """images: results with `conditioning` (one of CONDITIONINGS, or "nothing") and `score`, the cosine of the image's
    and the caption's embeddings. figures: by conditioning. num_unchecked: captions outside the grammar of the scenes.
    """

    images: list[dict[str, Any]]
    figures: dict[str, GroupFigures]
    num_unchecked: int
    rows: Rows
    exit_code: int
    sheet = True

    def to_json(self) -> list[dict[str, Any]]:
        return [{"conditioning": name, **one.to_json()} for name, one in self.figures.items()]

    def table(self) -> list[str]:
        lines = ["", *generated.table("conditioning", self.figures)]
        if self.num_unchecked:
            lines += ["", f"{self.num_unchecked} captions are outside the grammar of the scenes and were not checked"]
        return lines


def prior(
    captions: Annotated[
        list[str] | None,
        Option("Captions; - reads JSON lines. Default: held-out ones.", metavar="[CAPTION]...", positional=True),
    ] = None,
    prompts: str | None = None,
    num_captions: Annotated[int, Option("Held-out captions, where none are given.", 1, 100_000)] = 50,
    num_images: Annotated[int, Option("Images per caption.", 1, 1_000_000, ("-n",), panel="Sampling")] = 1,
    objects: str = "everyday",
    no_text: Annotated[bool, Option("The decoder reads no caption, only the embedding.", panel="Sampling")] = False,
    recipe: Annotated[str, Option("System recipe of type unclip.", metavar="NAME|PATH", panel="Model")] = "unclip",
    options: Generation = Generation(),  # noqa: B008  (frozen)
    results: Collected | None = None,
) -> Conditionings | None:
    """Condition one decoder on the caption only, on the caption's embedding, and on the prior's; check the images.

    Images of one caption have the same noise. With `no_text` the first conditioning is nothing. results: where each
    image is reported when it is finished. Returns None for a dry run. Raises Failure, RecipeError, PromptError,
    CheckpointError.
    """
    object_set, results = load_object_set(objects), results or Collected()
    if not captions and not prompts:
        captions = [item.caption for item in suite.suite(object_set, num_captions)]
    editor = LatentEditor("probe prior", options.latent_options(recipe), inverts=False, needs_prior=True)
    lines = read_requests(captions or (), prompts)
    requests = [line for line in lines if not line.failed]
    if not requests:
        raise Failure("no captions: give some, or --prompts FILE", BAD_INPUT)
    conditionings = ("nothing", *CONDITIONINGS[1:]) if no_text else CONDITIONINGS
    width, planned = len(conditionings), plan_images(requests, num_images, options.seed)
    items = [replace(item, index=width * item.index + i) for item in planned for i in range(width)]

    def decode_requests(todo: list[PlannedImage]) -> Iterator[DecodeRequest]:
        for start in range(0, len(todo), width * editor.batch_size):
            batch = todo[start : start + width * editor.batch_size]
            texts = [item.request.prompt or "" for item in batch]
            embeddings = editor.system.embed_texts(texts).float().cpu()
            by_prior = [i for i, item in enumerate(batch) if conditionings[item.index % width] == "prior"]
            seeds = [batch[i].noise_seed for i in by_prior]
            sampled = editor.sample_prior([texts[i] for i in by_prior], seeds) if by_prior else ()
            of_prior = dict(zip(by_prior, sampled))
            for i, item in enumerate(batch):
                name = conditionings[item.index % width]
                z = {"text embedding": embeddings[i], "prior": of_prior.get(i)}.get(name)
                text, score = "" if no_text else texts[i], _score(embeddings[i])
                yield DecodeRequest(item, z, text=text, measure=score, details={"conditioning": name})

    settings = {"no_text": True} if no_text else {}
    failed = [line for line in lines if line.failed]
    if editor.run(items, decode_requests, settings, results, ("conditioning", "score"), failed) is not None:
        return None
    images = [[editor.results_by_index[i + j] for j in range(width)] for i in range(0, len(items), width)]
    rows = [result_cells(row, lambda one: f"{one['conditioning']}: {one['prompt']}") for row in images]
    unchecked = {one["prompt"] for one in results.reported if parse(one.get("prompt") or "", object_set) is None}
    code = results.finish()
    figures = group_figures(results.reported, "conditioning", object_set)
    return Conditionings(results.reported, figures, len(unchecked), rows, code)


def _score(text: Tensor) -> Callable[[Tensor], dict[str, float]]:
    return lambda image: {"score": cosine(image, text)}
