"""Text tower of CLIP (Radford et al. 2021, section 2.4): a causal transformer, read at the end token.

Parameter names are those of the published weights. Shapes: B batch, N tokens, w width.
"""

import torch
from torch import Tensor, nn

from ..nn.meta_init import normal
from . import models
from .clip import TextTower
from .vit import Activation, Block, LayerNorm, Transformer


@models.register("clip-text")
class TextTransformer(TextTower):
    """Text tower. ids: (B, N) token ids, N at most `context_length`; returns (B, width).

    The end token is the largest id and everything after it is padding: no token sees a later one, so rows need no mask
    and may be cut to the longest caption. Raises ValueError for more than `context_length` tokens.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        width: int,
        depth: int,
        heads: int,
        activation: Activation = "quick-gelu",
    ):
        super().__init__(context_length, width)
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = normal(context_length, width, std=0.01)
        self.transformer = Transformer(width, depth, heads, activation)
        self.ln_final = LayerNorm(width)
        self._initialize(depth)

    def _initialize(self, depth: int) -> None:
        """Normal weights as published: embedding 0.02, in w^-1/2, out (2 w depth)^-1/2, c_fc (2 w)^-1/2."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for block in self.transformer.modules():
            if not isinstance(block, Block):
                continue
            nn.init.normal_(block.attn.in_proj_weight, std=self.width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * self.width * depth) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * self.width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * self.width * depth) ** -0.5)

    def states(self, ids: Tensor, gradient_checkpointing: bool = False) -> Tensor:
        """Return the normalized state of every token. (B, N) to (B, N, w)."""
        length = ids.shape[1]
        if length > self.context_length:
            raise ValueError(
                f"{length} tokens are more than the text encoder's {self.context_length}; truncate the text"
            )
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        x = self.transformer(x, causal=True, gradient_checkpointing=gradient_checkpointing)
        return self.ln_final(x)

    def forward(self, ids: Tensor, gradient_checkpointing: bool = False) -> Tensor:
        x = self.states(ids, gradient_checkpointing)
        return x[torch.arange(len(x), device=x.device), ids.argmax(dim=-1)]  # (B, w), at the end token
