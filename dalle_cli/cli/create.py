"""`dalle sample`: generate images from prompts."""

from typing import Annotated

import typer

from .app import CREATE, command
from .options import (
    DALLE1,
    DIFFUSION,
    INPUT,
    MODEL,
    SAMPLING,
    UNCLIP,
    BatchSize,
    DryRun,
    GuidanceInterval,
    GuidanceScale,
    Json,
    Offload,
    Out,
    Overwrite,
    Precision,
    Processes,
    Prompts,
    PromptWords,
    Quiet,
    Recipe,
    Sampler,
    Seed,
    Sheet,
    SkipExisting,
    Steps,
)

MAX_IMAGES = 1_000_000

Image = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="FILE", rich_help_panel=DALLE1, help="Complete this image from its upper --keep-rows rows."
    ),
]
KeepRows = Annotated[
    int | None,
    typer.Option(
        "--keep-rows", metavar="N", min=1, rich_help_panel=DALLE1, help="Rows of image tokens of --image to keep."
    ),
]
Reproduce = Annotated[
    str | None,
    typer.Option(
        "--reproduce", metavar="FILE.png", rich_help_panel=INPUT,
        help="An image that dalle generated: use its prompt, seed, system and options; other options replace them.",
    ),
]  # fmt: skip
NumImages = Annotated[
    int | None,
    typer.Option(
        "-n", "--num-images", metavar="N", min=1, max=MAX_IMAGES, rich_help_panel=SAMPLING,
        help="Images per prompt. Default: 1.",
    ),
]  # fmt: skip
Rerank = Annotated[
    int | None,
    typer.Option(
        "--rerank", metavar="N", min=1, max=MAX_IMAGES, rich_help_panel=SAMPLING,
        help="Generate N candidates per prompt and keep those that CLIP scores highest.",
    ),
]  # fmt: skip
Top = Annotated[
    int | None,
    typer.Option(
        "--top", metavar="N", min=1, help="Candidates of --rerank to keep. Default: 1.", rich_help_panel=SAMPLING
    ),
]
Reranker = Annotated[
    list[str] | None,
    typer.Option(
        "--reranker", metavar="NAME|PATH", rich_help_panel=MODEL,
        help="CLIP checkpoint that ranks; repeat for the mean of several. Default: the recipe's parts.reranker.",
    ),
]  # fmt: skip
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", metavar="X", rich_help_panel=DALLE1,
        help="Of the image tokens, 0 to 100; 0 is greedy. Default: the recipe's.",
    ),
]  # fmt: skip
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        metavar="K",
        rich_help_panel=DALLE1,
        help="Sample among the K most likely image tokens. Default: all.",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p", metavar="P", rich_help_panel=DALLE1,
        help="Sample among the most likely image tokens of total probability P, 0 to 1. Default: 1.",
    ),
]  # fmt: skip
Eta = Annotated[
    float | None,
    typer.Option(
        "--eta", metavar="X", rich_help_panel=DIFFUSION,
        help="Fresh noise of the ddim sampler, 0 (deterministic) to 1. Default: the recipe's.",
    ),
]  # fmt: skip
Guidance = Annotated[
    str | None,
    typer.Option(
        "--guidance", metavar="cfg|clip|classifier|none", rich_help_panel="GLIDE",
        help="Classifier-free, by the gradient of a CLIP or a classifier, or none. Default: the recipe's.",
    ),
]  # fmt: skip
PriorSamples = Annotated[
    int | None,
    typer.Option(
        "--prior-samples", metavar="N", rich_help_panel=UNCLIP,
        help="Embeddings that the prior samples per image, 1 to 1024; the nearest to the text is used.",
    ),
]  # fmt: skip
PriorGuidanceScale = Annotated[
    float | None,
    typer.Option(
        "--prior-guidance-scale", metavar="X", rich_help_panel=UNCLIP,
        help="Scale of the prior's classifier-free guidance; 1 turns it off. Default: the recipe's.",
    ),
]  # fmt: skip
PriorSteps = Annotated[
    str | None,
    typer.Option(
        "--prior-steps", metavar="N|NAME", rich_help_panel=UNCLIP,
        help="Steps of a diffusion prior: a number or a schedule. Default: the recipe's.",
    ),
]  # fmt: skip
DenoisingStrip = Annotated[
    str | None,
    typer.Option(
        "--denoising-strip", metavar="FILE.png", rich_help_panel=DIFFUSION,
        help="Write the predicted image at each step, for the first images, as one sheet.",
    ),
]  # fmt: skip


@command(
    CREATE,
    'dalle sample "an avocado chair"',
    'dalle sample "an avocado chair" --rerank 64 --top 8 --sheet chairs.png --out chairs',
    'dalle sample "a green rocket" --recipe glide -n 4 --seed 7 --out rockets',
    "dalle sample --prompts prompts.txt --skip-existing --out all",
    "dalle sample - < prompts.txt | dalle rerank --top 8 -",
)
def sample(
    words: PromptWords = None,
    prompts: Prompts = None,
    reproduce: Reproduce = None,
    recipe: Recipe = None,
    reranker: Reranker = None,
    num_images: NumImages = None,
    rerank: Rerank = None,
    top: Top = None,
    seed: Seed = None,
    guidance_scale: GuidanceScale = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    image: Image = None,
    keep_rows: KeepRows = None,
    steps: Steps = None,
    sampler: Sampler = None,
    eta: Eta = None,
    guidance_interval: GuidanceInterval = None,
    guidance: Guidance = None,
    denoising_strip: DenoisingStrip = None,
    prior_samples: PriorSamples = None,
    prior_guidance_scale: PriorGuidanceScale = None,
    prior_steps: PriorSteps = None,
    out: Out = "out",
    sheet: Sheet = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    batch_size: BatchSize = None,
    precision: Precision = "auto",
    offload: Offload = False,
    processes: Processes = 1,
) -> None:
    """Generate images from prompts, or keep the best of many candidates by CLIP score.

    The system is DALL-E 1 unless --recipe names another, such as glide or unclip; dalle recipes lists them.
    """
    given = dict(locals())
    from ..generate.requests import check_prompt_words
    from ..generate.sample import SampleOptions
    from ..generate.sample import sample as generate

    del given["processes"]
    prompt_words, prompts_file = given.pop("words") or (), given.pop("prompts")
    check_prompt_words(prompt_words)
    sampling = {name: given.pop(name) for name in SAMPLING_OPTIONS}
    options = SampleOptions(sampling=sampling, json=given.pop("as_json"), **given)
    raise typer.Exit(generate(prompt_words, options, prompts_file))


SAMPLING_OPTIONS = (
    "guidance_scale", "temperature", "top_k", "top_p", "steps", "sampler", "eta", "guidance_interval", "guidance",
    "prior_samples", "prior_guidance_scale", "prior_steps",
)  # fmt: skip
