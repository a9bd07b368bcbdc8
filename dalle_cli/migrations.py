"""Names that recipes of earlier versions used, and the functions that bring such a recipe up to date.

A checkpoint carries its recipe (see checkpoint.py), so weights trained by any earlier version still load: the recipe
inside is migrated, version by version, before it is read.
"""

from typing import Any

Recipe = dict[str, Any]

# Version 1 to 2: old key -> new key, by section and, where a section holds a part, by the type of the part.
# "*" holds for every type of the section, nested parts included.
MODEL_KEYS: dict[str, dict[str, str]] = {}
TASK_KEYS: dict[str, dict[str, str]] = {}
DATA_KEYS: dict[str, dict[str, str]] = {}
OPTIM_KEYS: dict[str, str] = {}
TRAIN_KEYS: dict[str, str] = {}
TRACKER_KEYS: dict[str, str] = {}
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
