"""Choosing a token from its scores: temperature, top-k, top-p, and one number in [0, 1) that decides."""

from torch import Tensor


def sample_token(
    scores: Tensor, chance: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The token whose share of the probability `chance` falls into. scores: (..., V); chance: (...) in [0, 1).

    temperature 0 takes the likeliest. top_k keeps that many, top_p the fewest that together have that probability.
    """
    if temperature == 0:
        return scores.argmax(dim=-1)
    scores = scores.float() / temperature
    tokens = None
    if top_k or (top_p is not None and top_p < 1):
        scores, tokens = scores.topk(min(top_k or scores.shape[-1], scores.shape[-1]), dim=-1)
    reached = scores.softmax(dim=-1).cumsum(dim=-1)
    total = reached[..., -1:]
    if top_p is not None and top_p < 1:
        total = reached.gather(-1, (reached < top_p).sum(dim=-1, keepdim=True).clamp(max=reached.shape[-1] - 1))
    place = (reached <= chance[..., None] * total).sum(dim=-1, keepdim=True).clamp(max=reached.shape[-1] - 1)
    return (place if tokens is None else tokens.gather(-1, place))[..., 0]
