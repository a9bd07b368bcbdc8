"""What newcomers mean by options that `dalle` does not have."""

_DEVICE = "The GPU is used when there is one; CUDA_VISIBLE_DEVICES= hides it, CUDA_VISIBLE_DEVICES=1 selects the second"
_FOLDER = "--out FOLDER sets where the images go"
_GUIDANCE = "Classifier-free guidance is --guidance-scale"

ANYWHERE = {
    "--device": _DEVICE, "--gpu": _DEVICE, "--gpus": _DEVICE, "--cuda": _DEVICE, "--cpu": _DEVICE,
    "--fp16": "Use --precision fp16", "--bf16": "Use --precision bf16", "--half": "Use --precision fp16",
    "--dtype": "Use --precision: auto, float32, bf16 or fp16",
    "--verbose": "Progress is shown by default; -q hides it, and dalle --debug COMMAND shows the traceback of an error",
    "--force": "Use --overwrite to replace existing files",
    "--config": "Use --recipe NAME or --recipe FILE.yaml",
}  # fmt: skip

# A key of the recipe, given as a bare KEY=VALUE word.
TRAINING = {
    "--steps": "train.steps=10000", "--epochs": "train.steps=10000 (--dry-run shows how many epochs that is)",
    "--max-steps": "train.steps=10000", "--lr": "optim.lr=3e-4", "--learning-rate": "optim.lr=3e-4",
    "--weight-decay": "optim.weight_decay=0.1", "--warmup": "optim.warmup_steps=500",
    "--batch-size": "train.batch_size=64", "--seed": "train.seed=1", "--precision": "train.precision=bf16",
    "--size": "data.size=64", "--image-size": "data.size=64", "--resolution": "data.size=64",
    "--data": "data.path=photos", "--dataset": "data.path=photos", "--path": "data.path=photos",
    "--images": "data.path=photos", "--crop": "data.crop=center, data.crop=random or data.crop=pad",
    "--num-workers": "data.num_workers=4", "--workers": "data.num_workers=4", "--ema": "train.ema_decay=0.999",
    "--grad-accum": "train.grad_accum_steps=4", "--save-every": "train.save_every=30m",
    "--wandb": "tracker.report_to=wandb", "--tensorboard": "tracker.report_to=tensorboard",
}  # fmt: skip
_RUN = "--run NAME sets the folder under checkpoints/"
_TRAINING_OPTIONS = {
    "--output": _RUN, "--out": _RUN, "--output-dir": _RUN, "--name": "Use --run NAME",
    "--model": "Use --recipe NAME; dalle recipes lists them", "--from": "Use train.init_from=CHECKPOINT",
    "--init-from": "Use train.init_from=CHECKPOINT", "--num-gpus": "Use --processes N",
}  # fmt: skip

_SIZE = "The checkpoint sets the image size; choose another system by --recipe, or enlarge the results by dalle upscale"
CREATING = {
    "--size": _SIZE, "--width": _SIZE, "--height": _SIZE, "--resolution": _SIZE, "--image-size": _SIZE,
    "--cfg": _GUIDANCE, "--cfg-scale": _GUIDANCE, "--scale": _GUIDANCE,
    "--output": _FOLDER, "--output-dir": _FOLDER, "--outdir": _FOLDER,
    "--num": "-n N sets how many images to generate", "--num-samples": "-n N sets how many images to generate",
    "--count": "-n N sets how many images to generate",
    "--num-inference-steps": "Use --steps", "--scheduler": "Use --sampler",
    "--prompt": "Prompts are words in quotes: dalle sample \"an avocado chair\"",
    "--text": "Prompts are words in quotes: dalle sample \"an avocado chair\"",
    "--negative-prompt": "Negative prompts are not supported: the models were trained without them",
    "--crop": "Images are cropped to the middle square; dalle data preview shows the crops of training (data.crop=pad)",
    "--checkpoint": "Use --recipe with a system recipe or a checkpoint", "--ckpt": "Use --recipe with a checkpoint",
    "--model": "Use --recipe with a system recipe or a checkpoint",
}  # fmt: skip
JUDGING = {
    "--checkpoint": "Use --model", "--ckpt": "Use --model", "--clip": "Use --model with a CLIP checkpoint",
    "--size": "The checkpoint sets the image size",
    "--crop": "For data.path= it is the key data.crop=center, data.crop=random or data.crop=pad",
    "--steps": "The number of diffusion steps is set where images are generated: dalle sample --steps",
}  # fmt: skip

_CREATING_COMMANDS = ("sample", "inpaint", "vary", "interpolate", "edit", "upscale", "reconstruct", "draw")


def hint(option: str, command: str) -> str | None:
    """Return what `option` is called here, or None.

    command: as a user writes it, `dalle train-clip` or `dalle evaluate dvae`.
    """
    name = command.split()[1] if " " in command else ""
    if name.startswith("train-") or command in ("dalle data check", "dalle data preview", "dalle embed"):
        if option in TRAINING:
            return f"This is a key of the recipe: {TRAINING[option]}"
        special = _TRAINING_OPTIONS if name.startswith("train-") else {}
    else:
        special = CREATING if name in _CREATING_COMMANDS else JUDGING
    return special.get(option) or ANYWHERE.get(option)
