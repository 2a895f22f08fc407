"""The residual block of the VQ-VAE's networks and of the continuous mixture's decoder."""

from torch import Tensor, nn


class Residual(nn.Module):
    """x + BN(1×1(a(BN(3×3(a(x)))))) of maps x [B, C, H, W], with an activation a."""

    def __init__(self, channels: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.branch = nn.Sequential(
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            activation(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
