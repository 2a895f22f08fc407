"""A small convolutional classifier of digits, the judge of completed images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqdistill.settings import Classifier as ClassifierSettings

IMAGES_AT_ONCE = 1024  # of predict
LARGE = 16  # larger images are halved by the first convolution too, and moved while training


class Classifier(nn.Module):
    """Three convolutions with batch norm and ReLU, and a linear layer: images [h, w] to classes.

    `settings.width` are the channels of the first convolution, the others have twice as many.
    """

    def __init__(self, image_shape: tuple[int, int], n_classes: int, settings: ClassifierSettings):
        super().__init__()
        width = settings.width
        self.image_shape = tuple(image_shape)
        self.n_classes = n_classes
        large = min(image_shape) > LARGE
        self.max_shift = 1 if large else 0
        reduction = 4 if large else 2
        sides = [(side - 1) // reduction + 1 for side in image_shape]
        self.features = nn.Sequential(
            *convolution(1, width, 5, reduction // 2),
            *convolution(width, 2 * width, 3, 2),
            *convolution(2 * width, 2 * width, 3, 1),
        )
        self.head = nn.Linear(2 * width * sides[0] * sides[1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes] of images x [B, D]."""
        images = x.view(-1, 1, *self.image_shape).to(memory_format=torch.channels_last)
        return self.head(self.features(images).flatten(1))

    def loss(
        self, x: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, mean over images x [B, D] and labels int64 [B], in nats.

        In training mode each image of more than 16 pixels a side is moved by up to one pixel along
        both axes. Parts: accuracy.
        """
        if self.training and self.max_shift > 0:
            x = shifted(x.view(-1, *self.image_shape), self.max_shift, generator)
        logits = self(x)
        accuracy = (logits.argmax(1) == labels).to(logits.dtype).mean()
        return F.cross_entropy(logits, labels), {"accuracy": accuracy}

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The most probable classes int64 [B] of images x [B, D], in evaluation mode."""
        return torch.cat([self(part).argmax(1) for part in x.split(IMAGES_AT_ONCE)])


def convolution(n_in: int, n_out: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]


def shifted(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Images [B, h, w], each moved by a random number of pixels along each axis; black comes in."""
    n, height, width = images.shape
    moves = torch.randint(
        2 * max_shift + 1, (2, n, 1), generator=generator, device=generator.device
    ).to(images.device)
    rows = torch.arange(height, device=images.device) + moves[0]  # [B, h]
    columns = torch.arange(width, device=images.device) + moves[1]  # [B, w]
    padded = F.pad(images, [max_shift] * 4)
    batch = torch.arange(n, device=images.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]]
