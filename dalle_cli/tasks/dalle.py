"""Training and sampling with DALL-E 1's transformer (Ramesh et al. 2021, section 2.2)."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..hardware.cuda_graphs import as_cuda_graph
from ..models.dalle import DALLE, Cache, token_losses
from ..models.dvae import DVAE
from ..models.embedding import Texts
from ..nn.noise import uniform
from ..nn.prepacked import MIN_WEIGHTS, prepacked
from ..nn.token_sampling import sample_token
from ..text.tokenizer import Tokenizer
from . import tasks
from .base import Preview, Task
from .collators import DALLECollator

RECORDED = "cuda"  # kind of device on which steps are recorded


@tasks.register("dalle")
class DALLETask(Task):
    """Next-token loss over captions and image tokens.

    dvae: the frozen image tokenizer. text_weight: weight of the loss of the text; the image has the rest of 1.
    bpe_dropout: fraction of merges that are skipped in training. text_drop_prob: fraction of captions that are dropped,
    for classifier-free guidance; 0 in the paper.
    """

    family = "prior"
    model: DALLE
    codec = "dvae"

    def __init__(
        self,
        model: DALLE,
        dvae: DVAE,
        tokenizer: Tokenizer,
        text_weight: float = 1 / 8,
        bpe_dropout: float = 0.1,
        text_drop_prob: float = 0.0,
    ):
        super().__init__(model, tokenizer)
        if tokenizer.vocab_size != model.vocab_size:
            size = tokenizer.vocab_size
            raise ValueError(
                f"model.vocab_size: {model.vocab_size} is not the tokenizer's {size}: set model.vocab_size={size}"
            )
        if dvae.vocab_size != model.image_vocab_size:
            raise ValueError(f"model.image_vocab_size: {model.image_vocab_size} is not the dVAE's {dvae.vocab_size}")
        self.dvae = dvae
        self.text_weight, self.bpe_dropout, self.text_drop_prob = text_weight, bpe_dropout, text_drop_prob

    def collator(self, held_out: bool = False) -> DALLECollator:
        texts = Texts(self.tokenizer, self.model.context_length)
        return DALLECollator(texts, 0.0 if held_out else self.bpe_dropout, self.text_drop_prob)

    def example(self, count: int, size: int) -> dict:
        """As `Task.example`, with the image tokens that training keeps instead of images."""
        batch = super().example(count, 1)
        del batch["image"]
        tokens = torch.zeros(count, self.model.grid_size, self.model.grid_size, dtype=torch.int64)
        ids = torch.zeros(count, self.model.context_length, dtype=torch.int64)
        return {**batch, "image_tokens": tokens, "ids": ids, "real": ids.bool()}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = self._checked(batch["image_tokens"]) if "image_tokens" in batch else self.encode(batch["image"])
        text, tokens = self.model.pad(batch["ids"], batch["real"]), tokens.flatten(1)
        text_logits, image_logits = self.model(text, tokens)
        text_loss, image_loss = token_losses(text_logits, image_logits, text, tokens)
        total = self.text_weight * text_loss + (1 - self.text_weight) * image_loss
        return total, {"text": text_loss, "image": image_loss}

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return the image tokens of images, (B, 3, H, W) to (B, h, w).

        Raises ValueError when the grid is not the model's.
        """
        return self._checked(self.dvae.encode(image))

    def _checked(self, tokens: Tensor) -> Tensor:
        if tokens.shape[-2:] != (self.model.grid_size, self.model.grid_size):
            size, found = (side * self.dvae.factor for side in (self.model.grid_size, tokens.shape[-1]))
            raise ValueError(f"the transformer draws {size} px pictures, not {found}: set data.size={size}")
        return tokens

    @torch.no_grad()
    def sample(
        self,
        texts: Sequence[str],
        seeds: Sequence[Sequence[int]],
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float = 1.0,
        prefix: Tensor | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Return the image tokens of candidates of each prompt: (prompts, candidates, h, w).

        seeds: for every prompt, one for each candidate, as many for all; a candidate depends on its own only.
        guidance_scale: classifier-free guidance, 1 for none. prefix: (n,) or (prompts, n) image tokens to continue.
        on_progress: called with the number of positions done.
        """
        device = self.model.start.device
        count, positions = len(seeds[0]), self.model.grid_size**2
        if len(texts) == count == 1:  # its products with the text may be few; see models/dalle.py
            return self.sample(
                texts, [[*seeds[0]] * 2], temperature, top_k, top_p, guidance_scale, prefix, on_progress
            )[:, :1]
        chance = uniform(torch.tensor(seeds).flatten(), positions).view(len(texts), count, positions).to(device)
        guided = guidance_scale != 1.0
        text = self._read([*texts, *[""] * len(texts)] if guided else texts)
        logits, cache = self.model.prefill(text, count)
        tokens = torch.empty(len(texts), count, positions, dtype=torch.int64, device=device)
        given = 0 if prefix is None else prefix.shape[-1]
        if prefix is not None:
            tokens[:, :, :given] = prefix.view(-1, 1, given)
        with prepacked(self.model, min_weights=MIN_WEIGHTS):
            step = self._step(len(text), count, cache)
            for position in range(positions):
                if position >= given:
                    if guided:
                        with_text, without = logits.chunk(2)
                        logits = without + guidance_scale * (with_text - without)
                    tokens[:, :, position] = sample_token(logits, chance[:, :, position], temperature, top_k, top_p)
                if position < positions - 1:
                    latest = tokens[:, :, position]
                    logits = step(torch.cat([latest, latest]) if guided else latest, position)
                if on_progress:
                    on_progress(position + 1)
        return tokens.view(len(texts), count, self.model.grid_size, self.model.grid_size)

    def _step(self, rows: int, count: int, cache: Cache) -> Callable[[Tensor, int], Tensor]:
        """Return the model's step for (rows, count) image tokens; a CUDA graph on a GPU."""
        latest, at = (
            torch.zeros(shape, dtype=torch.int64, device=self.model.start.device) for shape in ((rows, count), 1)
        )
        if latest.device.type != RECORDED:
            return lambda tokens, position: self.model.step(tokens, position, cache)
        try:
            replay = as_cuda_graph(lambda: self.model.step(latest, at, cache))
        except RuntimeError as error:
            warnings.warn(f"drawn without a CUDA graph, more slowly: {error}", stacklevel=2)
            return lambda tokens, position: self.model.step(tokens, position, cache)

        def step(tokens: Tensor, position: int) -> Tensor:
            latest.copy_(tokens)
            at.fill_(position)
            return replay()

        return step

    @torch.no_grad()
    def probe_memory(
        self,
        prompts: int,
        candidates: int,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        guidance_scale: float,
    ) -> None:
        """Do the work of `sample` for one position, which takes the memory of the whole; for estimates."""
        device, positions = self.model.start.device, self.model.grid_size**2
        sides = 1 if guidance_scale == 1.0 else 2
        chance = torch.zeros(prompts * candidates, positions, device=device)
        _, cache = self.model.prefill(self._read([""] * sides * prompts), candidates)
        tokens = torch.zeros(prompts, candidates, positions, dtype=torch.int64, device=device)
        logits = self.model.step(tokens[:, :, 0].repeat(sides, 1), max(0, positions - 2), cache)
        sample_token(logits[:prompts], chance[:, 0].view(prompts, candidates), temperature, top_k, top_p)

    @torch.no_grad()
    def sample_without_cache(self, texts: Sequence[str], seeds: Sequence[Sequence[int]], **options: float) -> Tensor:
        """Sample without guidance by running the whole stream for each position: slow and simple."""
        positions = self.model.grid_size**2
        device = self.model.start.device
        drawn = []
        for text, own in zip(self._read(texts), seeds):
            chance = uniform(torch.tensor(own), positions).to(device)
            tokens = torch.zeros(len(own), positions, dtype=torch.int64, device=device)
            for position in range(positions):
                logits = self.model(text.expand(len(own), -1), tokens)[1][:, position]
                tokens[:, position] = sample_token(logits, chance[:, position], **options)  # type: ignore[arg-type]
            drawn.append(tokens)
        return torch.stack(drawn).view(len(texts), -1, self.model.grid_size, self.model.grid_size)

    def _read(self, texts: Sequence[str]) -> Tensor:
        ids, real = self.tokenizer.pack(list(texts), self.model.context_length)
        device = self.model.start.device
        return self.model.pad(torch.from_numpy(ids).to(device), torch.from_numpy(real).to(device))

    def preview(self, batch: dict) -> Preview:
        """Return an image of each held-out caption."""
        tokens = self.sample(batch["text"], [[0]] * len(batch["text"]))[:, 0]
        return [*self.dvae.decode(tokens)], batch["text"], None
