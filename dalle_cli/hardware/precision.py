"""The names of precisions, as options, recipes and results spell them."""

import torch

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHOICES = ("auto", *DTYPES)  # of a computation; auto: bf16 if the hardware multiplies it fast, else float32
