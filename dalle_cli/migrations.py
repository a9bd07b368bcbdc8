"""Recipes of earlier versions, brought up to date: the names that they used, and a function for each version.

A checkpoint carries its recipe (see checkpoint.py), so that weights of every version load: the recipe inside is
migrated, version by version, before it is read. Recipes in files that a user writes are not: they take today's names.
"""

from collections.abc import Callable, Mapping
from typing import Any

Recipe = dict[str, Any]
Keys = Mapping[str, str]

# Version 1 to 2: old key -> new key, by section and, where a section holds parts, by the old type of the part.
# "*" is every type of the section, nested parts included.
MODEL_KEYS: dict[str, dict[str, str]] = {
    "*": {
        "vocab": "vocab_size",
        "context": "context_length",
        "states": "text_width",
        "patch": "patch_size",
        "checkpointing": "gradient_checkpointing",
        "multiples": "channel_mult",
        "head_width": "head_dim",
    },
    "unet": {
        "channels": "base_channels",
        "blocks": "num_res_blocks",
        "attention": "attention_factors",
        "places": "position_bands",
    },
    "classifier": {"channels": "base_channels", "blocks": "num_res_blocks", "attention": "attention_factors"},
    "vqgan": {
        "channels": "base_channels",
        "blocks": "num_res_blocks",
        "attention": "attention_factors",
        "latent": "latent_channels",
    },
    "dvae": {"hidden": "n_hid", "init": "n_init", "blocks": "num_res_blocks"},
    "dalle": {"codes": "image_vocab_size", "grid": "grid_size"},
    "clip": {"scale": "fixed_logit_scale"},
    "noised-clip": {"scale": "fixed_logit_scale"},
    "ar-prior": {"share": "explained_variance"},
}
TASK_KEYS: dict[str, dict[str, str]] = {
    "*": {
        "drop_text": "text_drop_prob",
        "drop_image": "image_drop_prob",
        "predict": "prediction_type",
        "shift": "timestep_shift",
        "max_scale": "max_logit_scale",
    },
    "decoder": {
        "erase_all": "full_mask_prob",
        "crop": "crop_fraction",
        "blur": "max_blur",
        "noise": "max_noise",
        "degrade": "degradation",
    },
    "dvae": {
        "kl": "kl_weight",
        "kl_steps": "kl_anneal_steps",
        "balance": "usage_penalty",
        "encoder": "train_encoder",
        "min_scale": "min_log_scale",
    },
    "noised-clip": {"redrawn": "reconstruction_prob"},
    "diffusion-prior": {"clamp": "clip_sample_range"},
}
DATA_KEYS: dict[str, dict[str, str]] = {
    "*": {
        "captions": "require_captions",
        "max_bad": "max_bad_fraction",
        "validation": "val_samples",
        "workers": "num_workers",
    },
    "scenes": {
        "glyphs": "objects",
        "kinds": "scene_weights",
        "relations": "relation_weights",
        "background": "background_prob",
        "colour": "color_prob",
        "wording": "caption_variants",
        "scatter": "random_positions",
    },
    "folder": {"image": "image_column", "caption": "caption_column"},
    "table": {"image": "image_column", "caption": "caption_column"},
    "shards": {"caption": "caption_column"},
    "embeddings": {"pictures": "images"},
}
OPTIM_KEYS: dict[str, str] = {"warmup": "warmup_steps", "final": "final_lr_ratio", "clip_norm": "max_grad_norm"}
TRAIN_KEYS: dict[str, str] = {
    "accumulate": "grad_accum_steps",
    "ema": "ema_decay",
    "shard": "fsdp",
    "patience": "max_skipped_steps",
    "keep": "keep_last",
    "init": "init_from",
    "preview": "preview_images",
}
TRACKER_KEYS: dict[str, str] = {"extras": "report_to"}
TOKENIZER_KEYS: dict[str, dict[str, str]] = {}
SAMPLE_KEYS: dict[str, str] = {
    "scale": "guidance_scale",
    "guided_at": "guidance_interval",
    "guide": "guidance",
    "threshold": "dynamic_threshold",
    "prior_scale": "prior_guidance_scale",
    "best_of": "prior_samples",
}
PARTS_KEYS: dict[str, str] = {"clip": "reranker", "embedder": "clip"}

# The same for the names of parts, and for values: by section and, of values, by the new key.
TYPES: dict[str, dict[str, str]] = {
    "model": {"last-step": "two-stage-unet"},
    "data": {"codes": "image-tokens"},
}
VALUES: dict[str, dict[str, dict[str, str]]] = {"sample": {"guidance": {"free": "cfg"}}}

_PARTS: dict[str, Mapping[str, Keys]] = {
    "model": MODEL_KEYS,
    "task": TASK_KEYS,
    "data": DATA_KEYS,
    "tokenizer": TOKENIZER_KEYS,
}
_PLAIN: dict[str, Keys] = {
    "optim": OPTIM_KEYS,
    "train": TRAIN_KEYS,
    "tracker": TRACKER_KEYS,
    "sample": SAMPLE_KEYS,
    "parts": PARTS_KEYS,
}


def to_version_2(recipe: Recipe) -> Recipe:
    """Return the training or system recipe of version 1 with the names of version 2.

    Sections of the wrong shape stay.
    """
    return {name: _section(name, node) for name, node in recipe.items()}


def sampling_to_version_2(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved sampling options that version 1 wrote into PNG files, with the names of version 2."""
    return _section("sample", dict(options))


def is_system_of_version_1(recipe: Recipe) -> bool:
    """Return whether a system's recipe has the names of version 1: `dalle import --system` of that time wrote no
    version.
    """
    parts, sample, system = (recipe.get(name) for name in ("parts", "sample", "system"))
    kind = system.get("type") if isinstance(system, Mapping) else None
    if isinstance(parts, Mapping) and ("embedder" in parts or ("clip" in parts and kind != "unclip")):
        return True
    return isinstance(sample, Mapping) and not SAMPLE_KEYS.keys().isdisjoint(sample)


# The function at index v turns a recipe of version v into one of version v + 1.
MIGRATIONS: dict[int, Callable[[Recipe], Recipe]] = {1: to_version_2}


def _section(name: str, node: Any) -> Any:
    if name in _PARTS:
        return _part(name, node)
    if name not in _PLAIN or not isinstance(node, Mapping):
        return node
    return {key: _value(name, key, value) for key, value in _renamed(node, _PLAIN[name]).items()}


def _part(section: str, node: Any) -> Any:
    """Return a part with its keys renamed by its type, and whatever it holds: parts, or mappings and lists of parts."""
    if isinstance(node, list):
        return [_part(section, item) for item in node]
    if not isinstance(node, Mapping):
        return node
    kind, keys = node.get("type"), _PARTS[section]
    if isinstance(kind, str):
        node = _renamed(node, {**keys.get("*", {}), **keys.get(kind, {})})
        node["type"] = TYPES.get(section, {}).get(kind, kind)
    return {key: _value(section, key, _part(section, value)) for key, value in node.items()}


def _renamed(node: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """In one step, so that a new name may be another's old one."""
    return {keys.get(key, key): value for key, value in node.items()}


def _value(section: str, key: str, value: Any) -> Any:
    known = VALUES.get(section, {}).get(key, {})
    return known.get(value, value) if isinstance(value, str) else value
