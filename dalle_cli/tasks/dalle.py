"""Training and drawing with DALL-E 1's transformer (Ramesh et al. 2021, section 2.2)."""

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
        """As `Task.example`, with the codes that training keeps in place of pictures."""
        batch = super().example(count, 1)
        del batch["image"]
        codes = torch.zeros(count, self.model.grid_size, self.model.grid_size, dtype=torch.int64)
        ids = torch.zeros(count, self.model.context_length, dtype=torch.int64)
        return {**batch, "codes": codes, "ids": ids, "real": ids.bool()}

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        codes = self._checked(batch["codes"]) if "codes" in batch else self.encode(batch["image"])
        text, codes = self.model.pad(batch["ids"], batch["real"]), codes.flatten(1)
        text_scores, code_scores = self.model(text, codes)
        text_loss, image_loss = token_losses(text_scores, code_scores, text, codes)
        total = self.text_weight * text_loss + (1 - self.text_weight) * image_loss
        return total, {"text": text_loss, "image": image_loss}

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Codes of pictures, (B, 3, H, W) to (B, h, w). Raises ValueError when the grid is not the model's."""
        return self._checked(self.dvae.encode(image))

    def _checked(self, codes: Tensor) -> Tensor:
        if codes.shape[-2:] != (self.model.grid_size, self.model.grid_size):
            size, found = (side * self.dvae.factor for side in (self.model.grid_size, codes.shape[-1]))
            raise ValueError(f"the transformer draws {size} px pictures, not {found}: set data.size={size}")
        return codes

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
        """Codes of candidates of each prompt: (prompts, candidates, h, w).

        seeds: for every prompt, one for each candidate, as many for all; a candidate depends on its own alone.
        guidance_scale: classifier-free guidance, 1 for none. prefix: (n,) or (prompts, n) codes to continue.
        on_progress: called with the number of places done.
        """
        device = self.model.start.device
        count, places = len(seeds[0]), self.model.grid_size**2
        if len(texts) == count == 1:  # its products with the text may be few; see models/dalle.py
            return self.sample(
                texts, [[*seeds[0]] * 2], temperature, top_k, top_p, guidance_scale, prefix, on_progress
            )[:, :1]
        chance = uniform(torch.tensor(seeds).flatten(), places).view(len(texts), count, places).to(device)
        guided = guidance_scale != 1.0
        text = self._read([*texts, *[""] * len(texts)] if guided else texts)
        scores, cache = self.model.prefill(text, count)
        codes = torch.empty(len(texts), count, places, dtype=torch.int64, device=device)
        given = 0 if prefix is None else prefix.shape[-1]
        if prefix is not None:
            codes[:, :, :given] = prefix.view(-1, 1, given)
        with prepacked(self.model, min_weights=MIN_WEIGHTS):
            step = self._step(len(text), count, cache)
            for place in range(places):
                if place >= given:
                    if guided:
                        with_text, without = scores.chunk(2)
                        scores = without + guidance_scale * (with_text - without)
                    codes[:, :, place] = sample_token(scores, chance[:, :, place], temperature, top_k, top_p)
                if place < places - 1:
                    latest = codes[:, :, place]
                    scores = step(torch.cat([latest, latest]) if guided else latest, place)
                if on_progress:
                    on_progress(place + 1)
        return codes.view(len(texts), count, self.model.grid_size, self.model.grid_size)

    def _step(self, rows: int, count: int, cache: Cache) -> Callable[[Tensor, int], Tensor]:
        """The model's step of (rows, count) codes, on a GPU recorded."""
        latest, at = (
            torch.zeros(shape, dtype=torch.int64, device=self.model.start.device) for shape in ((rows, count), 1)
        )
        if latest.device.type != RECORDED:
            return lambda codes, place: self.model.step(codes, place, cache)
        try:
            replay = as_cuda_graph(lambda: self.model.step(latest, at, cache))
        except RuntimeError as error:
            warnings.warn(f"drawn without a CUDA graph, more slowly: {error}", stacklevel=2)
            return lambda codes, place: self.model.step(codes, place, cache)

        def step(codes: Tensor, place: int) -> Tensor:
            latest.copy_(codes)
            at.fill_(place)
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
        """The work of `sample` for a single place, which holds as much memory as that for all; for estimates."""
        device, places = self.model.start.device, self.model.grid_size**2
        sides = 1 if guidance_scale == 1.0 else 2
        chance = torch.zeros(prompts * candidates, places, device=device)
        _, cache = self.model.prefill(self._read([""] * sides * prompts), candidates)
        codes = torch.zeros(prompts, candidates, places, dtype=torch.int64, device=device)
        scores = self.model.step(codes[:, :, 0].repeat(sides, 1), max(0, places - 2), cache)
        sample_token(scores[:prompts], chance[:, 0].view(prompts, candidates), temperature, top_k, top_p)

    @torch.no_grad()
    def sample_without_cache(self, texts: Sequence[str], seeds: Sequence[Sequence[int]], **options: float) -> Tensor:
        """`sample` without guidance by running the whole stream for each place; what the fast one is tested against."""
        places = self.model.grid_size**2
        device = self.model.start.device
        drawn = []
        for text, own in zip(self._read(texts), seeds):
            chance = uniform(torch.tensor(own), places).to(device)
            codes = torch.zeros(len(own), places, dtype=torch.int64, device=device)
            for place in range(places):
                scores = self.model(text.expand(len(own), -1), codes)[1][:, place]
                codes[:, place] = sample_token(scores, chance[:, place], **options)  # type: ignore[arg-type]
            drawn.append(codes)
        return torch.stack(drawn).view(len(texts), -1, self.model.grid_size, self.model.grid_size)

    def _read(self, texts: Sequence[str]) -> Tensor:
        ids, real = self.tokenizer.pack(list(texts), self.model.context_length)
        device = self.model.start.device
        return self.model.pad(torch.from_numpy(ids).to(device), torch.from_numpy(real).to(device))

    def preview(self, batch: dict) -> Preview:
        """One picture of each held-out caption."""
        codes = self.sample(batch["text"], [[0]] * len(batch["text"]))[:, 0]
        return [*self.dvae.decode(codes)], batch["text"], None
