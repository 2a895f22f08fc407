"""TF32: float32 whose products have ten bits, on GPUs that have it.

That is enough for the gradients of networks, and several times as fast. It is not for densities at
standard deviations of 10⁻³, where the error would be of nats: it is on while a network takes a
training step, and nowhere else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

PARTS = {
    "convolutions": torch.backends.cudnn.conv,
    "products": torch.backends.cuda.matmul,
}


@contextmanager
def tf32(parts: Sequence[str]) -> Iterator[None]:
    """In the block these parts of PyTorch, of `PARTS`, compute in TF32."""
    before = {part: PARTS[part].fp32_precision for part in parts}
    for part in parts:
        PARTS[part].fp32_precision = "tf32"
    try:
        yield
    finally:
        for part, precision in before.items():
            PARTS[part].fp32_precision = precision
