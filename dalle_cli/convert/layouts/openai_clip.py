"""OpenAI's CLIP (github.com/openai/CLIP, clip/model.py), and open_clip's, which differs by a prefix or by nothing.

What weights do not say, heads and activation, is as in OpenAI's models unless an open_clip_config.json beside them
tells.
"""

import math
from collections.abc import Callable

from torch import Tensor

from ...models.clip import MEAN, STD
from ..layout import ConvertError, FolderConfig, Layout, Row, State, count_layers

PREFIX = "text."  # of open_clip's text tower where it is a module of its own
SUMS = {
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762": "RN50.pt",
    "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599": "RN101.pt",
    "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd": "RN50x4.pt",
    "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa": "RN50x16.pt",
    "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c": "RN50x64.pt",
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B-16.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}


def _recognizes(prefix: str) -> Callable[[State], bool]:
    def recognizes(state: State) -> bool:
        tower = "visual.proj" in state or "visual.attnpool.q_proj.weight" in state
        return tower and f"{prefix}token_embedding.weight" in state

    return recognizes


def _model(state: State) -> dict:
    return {
        "type": "clip",
        "embed_dim": state["text_projection"].shape[1],
        "image": _vit(state) if "visual.proj" in state else _resnet(state),
        "text": _text(state),
    }


def _vit(state: State) -> dict:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    depth = count_layers(state, r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_weight")
    heads = max(1, width // 64)
    return {"type": "vit", "size": patch * grid, "patch": patch, "width": width, "depth": depth, "heads": heads}


def _resnet(state: State) -> dict:
    layers = [count_layers(state, rf"visual\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4)]
    width = len(state["visual.layer1.0.conv1.weight"])
    grid = math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1)
    heads = max(1, width * 32 // 64)
    return {"type": "modified-resnet", "size": 32 * grid, "layers": layers, "width": width, "heads": heads}


def _text(state: State) -> dict:
    vocab, width = state["token_embedding.weight"].shape
    depth = count_layers(state, r"transformer\.resblocks\.(\d+)\.attn\.in_proj_weight")
    context, heads = len(state["positional_embedding"]), max(1, width // 64)
    return {"type": "clip-text", "vocab": vocab, "context": context, "width": width, "depth": depth, "heads": heads}


def _transpose(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous()


def _table(model: dict, prefix: str = "") -> list[Row]:
    projection = {
        "vit": Row(r"image_projection\.weight", r"visual.proj", _transpose, _transpose),
        "modified-resnet": Row(r"image_projection\.(.+)", r"visual.attnpool.c_proj.\1"),
    }
    if model["image"]["type"] not in projection:
        raise ConvertError(f"no place for an image tower of type '{model['image']['type']}' in this layout")
    return [
        projection[model["image"]["type"]],
        Row(r"text_projection\.weight", rf"{prefix}text_projection", _transpose, _transpose),
        Row(r"text\.(.+)", rf"{prefix}\1"),
        Row(r"(visual\..+|logit_scale)", r"\1"),
    ]


def _told(model: dict, config: dict) -> dict:
    """A model node with the heads and the activation of an open_clip_config.json."""
    config, preprocess = config["model_cfg"], config.get("preprocess_cfg") or {}
    vision, text = config["vision_cfg"], config["text_cfg"]
    known = {
        "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
        "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
    }
    for part, names in known.items():
        for name, value in config[part].items():
            if name not in names and value:
                raise ConvertError(f"{part}.{name}: {value} is nothing that our CLIP can be told")
    for name, ours in (("mean", MEAN), ("std", STD)):
        if tuple(preprocess.get(name) or ours) != ours:
            raise ConvertError(f"preprocess_cfg.{name}: {preprocess[name]}, where our CLIP has {list(ours)}")
    image, head_width = model["image"], vision.get("head_width") or 64
    pooled = image["width"] * (32 if image["type"] == "modified-resnet" else 1)
    activation = {} if config.get("quick_gelu") else {"activation": "gelu"}
    return model | {
        "image": image | {"heads": pooled // head_width} | (activation if image["type"] == "vit" else {}),
        "text": model["text"] | {"heads": text["heads"]} | activation,
    }


def _config(model: dict, custom_text: bool = False) -> dict:
    image, text = model["image"], model["text"]
    activations = {part.get("activation", "quick-gelu") for part in (image, text) if part["type"] != "modified-resnet"}
    if len(activations) > 1:
        raise ConvertError("no place for towers of different activations in this layout")
    if image["type"] == "vit":
        vision = {"layers": image["depth"], "width": image["width"], "patch_size": image["patch"]}
        pooled = image["width"]
    else:
        vision = {"layers": image["layers"], "width": image["width"], "patch_size": None}
        pooled = 32 * image["width"]
    return {
        "model_cfg": {
            "embed_dim": model["embed_dim"],
            "quick_gelu": activations == {"quick-gelu"},
            "custom_text": custom_text,
            "vision_cfg": {"image_size": image["size"], **vision, "head_width": pooled // image["heads"]},
            "text_cfg": {
                "context_length": text["context"],
                "vocab_size": text["vocab"],
                "width": text["width"],
                "heads": text["heads"],
                "layers": text["depth"],
            },
        },
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD)},
    }


FILES = {"file": "open_clip_config.json", "weights": "open_clip_model.safetensors"}
LAYOUTS = (
    Layout(
        name="openai-clip",
        type="clip",
        recognizes=_recognizes(""),
        model=_model,
        table=_table,
        ignored_keys=frozenset({"input_resolution", "context_length", "vocab_size"}),
        task=lambda model: {"type": "clip"},
        tokenizer="clip",
        checksums=SUMS,
        config=FolderConfig(**FILES, read=_told, write=_config),
    ),
    Layout(
        name="open-clip",
        type="clip",
        recognizes=_recognizes(PREFIX),
        model=lambda state: _model({key.removeprefix(PREFIX): tensor for key, tensor in state.items()}),
        table=lambda model: _table(model, PREFIX),
        task=lambda model: {"type": "clip"},
        tokenizer="clip",
        config=FolderConfig(**FILES, read=_told, write=lambda model: _config(model, custom_text=True)),
    ),
)
