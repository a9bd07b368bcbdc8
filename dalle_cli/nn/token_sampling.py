"""Choosing a token from its logits: temperature, top-k, top-p, and one number in [0, 1) that decides."""

from torch import Tensor


def sample_token(
    logits: Tensor, chance: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Return the token whose interval of the cumulative probability contains `chance`.

    logits: (..., V); chance: (...) in [0, 1).

    temperature: 0 takes the most likely token. top_k: keep that many of the most likely tokens. top_p: keep the fewest
    that together have at least this probability.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    tokens = None
    if top_k or (top_p is not None and top_p < 1):
        logits, tokens = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]), dim=-1)
    reached = logits.softmax(dim=-1).cumsum(dim=-1)
    total = reached[..., -1:]
    if top_p is not None and top_p < 1:
        total = reached.gather(-1, (reached < top_p).sum(dim=-1, keepdim=True).clamp(max=reached.shape[-1] - 1))
    position = (reached <= chance[..., None] * total).sum(dim=-1, keepdim=True).clamp(max=reached.shape[-1] - 1)
    return (position if tokens is None else tokens.gather(-1, position))[..., 0]
