import pytest

from dalle_cli.convert.files.repositories import choose
from dalle_cli.exits import Failure

KARLO = [
    *("model_index.json", "README.md", "prior/config.json", "prior/diffusion_pytorch_model.safetensors"),
    *("prior/diffusion_pytorch_model.bin", "decoder/config.json", "decoder/diffusion_pytorch_model.bin"),
    *("text_proj/config.json", "text_proj/diffusion_pytorch_model.bin", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("text_encoder/config.json", "text_encoder/model.safetensors", "prior_scheduler/scheduler_config.json"),
]


def test_files_are_chosen_by_name():
    system = choose(KARLO, "", True, "hf:a/b")
    assert set(system) == set(KARLO) - {"README.md", "prior/diffusion_pytorch_model.bin"}
    prior = ["prior/config.json", "prior/diffusion_pytorch_model.safetensors"]
    vocabulary = ["tokenizer/merges.txt", "tokenizer/vocab.json"]
    assert choose(KARLO, "prior", False, "hf:a/b") == prior + vocabulary
    assert choose(KARLO, "decoder", False, "hf:a/b") == KARLO[5:7] + KARLO[7:9] + vocabulary  # the two go together
    with pytest.raises(Failure, match=r"several models; add --system, or name one: hf:a/b:decoder"):
        choose(KARLO, "", False, "hf:a/b")
    with pytest.raises(Failure, match=r"several files of weights; name one: hf:a/b:x.pt, hf:a/b:y.pt"):
        choose(["x.pt", "y.pt"], "", False, "hf:a/b")
    dvae = ["decoder.pkl", "encoder.pkl"]
    assert choose(dvae, "", False, "") == choose(dvae, "encoder.pkl", False, "") == dvae
    stats = ["prior.ckpt", "ViT-L-14_stats.th"]
    assert choose(stats, "", False, "") == choose(stats, "prior.ckpt", False, "") == sorted(stats)
