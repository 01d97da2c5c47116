# pyright: reportMissingImports=false
r"""DDPM++ in PyTorch, written from its description, channels last: what `experiments.train_step` compares with.

It is the network of `NCSNpp(3, image_size=32, **presets.ddpmpp())` of other widths. Layers have the names that published
checkpoints give them, so that `sdelab.interop` carries the weights over. Torch is all that this file needs.
Song et al. (2021), appendix H, https://arxiv.org/abs/2011.13456.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def add_rescaled(x: Any, h: Any) -> Any:
    return (x + h) * math.sqrt(0.5)


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class Pointwise(nn.Module):
    """A linear map of the channels; of images in channels-last memory the permutations are free."""

    def __init__(self, channels: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(channels, channels) / math.sqrt(channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, pixels: Any) -> Any:
        return torch.matmul(pixels, self.W) + self.b


class Residual(nn.Module):
    """`resample` is applied to branch and skip: identity, average pooling or nearest neighbours."""

    def __init__(self, inside: int, outside: int, embedding: int, dropout: float, resample: nn.Module | None = None):
        super().__init__()
        self.GroupNorm_0 = group_norm(inside)
        self.Conv_0 = nn.Conv2d(inside, outside, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, outside)
        self.GroupNorm_1 = group_norm(outside)
        self.dropout = nn.Dropout(dropout)
        self.Conv_1 = nn.Conv2d(outside, outside, 3, padding=1)
        self.resample = resample
        self.Conv_2 = nn.Conv2d(inside, outside, 1) if inside != outside or resample is not None else None

    def forward(self, x: Any, embedding: Any) -> Any:
        h = F.silu(self.GroupNorm_0(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.Conv_0(h) + self.Dense_0(embedding)[:, :, None, None]
        h = self.Conv_1(self.dropout(F.silu(self.GroupNorm_1(h))))
        return add_rescaled(x if self.Conv_2 is None else self.Conv_2(x), h)


class Attention(nn.Module):
    """One head between all pixels."""

    def __init__(self, channels: int):
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Pointwise(channels) for _ in range(4))

    def forward(self, x: Any, embedding: Any) -> Any:
        batch, channels, height, width = x.shape
        pixels = self.GroupNorm_0(x).permute(0, 2, 3, 1).reshape(batch, 1, height * width, channels)
        mixed = F.scaled_dot_product_attention(self.NIN_0(pixels), self.NIN_1(pixels), self.NIN_2(pixels))
        h = self.NIN_3(mixed).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return add_rescaled(x, h)


class DDPMpp(nn.Module):
    """Called with images `(batch, 3, side, side)` and the labels of their noise levels, `(batch,)`."""

    def __init__(
        self,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attended: tuple[int, ...],
        dropout: float,
    ):
        """`attended`: the levels that have attention, 0 being the highest resolution."""
        super().__init__()
        self.channels, self.blocks, self.levels, self.attended = channels, blocks, len(multipliers), attended
        self.all_modules = nn.ModuleList([nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, 4 * channels)])
        self.all_modules.append(nn.Conv2d(3, channels, 3, padding=1))
        widths = [channels * multiplier for multiplier in multipliers]
        settings = (4 * channels, dropout)
        skips, inside = [channels], channels
        for i, width in enumerate(widths):
            for _ in range(blocks):
                self.all_modules.append(Residual(inside, width, *settings))
                if i in attended:
                    self.all_modules.append(Attention(width))
                skips.append(width)
                inside = width
            if i < len(widths) - 1:
                self.all_modules.append(Residual(width, width, *settings, nn.AvgPool2d(2)))
                skips.append(width)
        self.all_modules.append(Residual(inside, inside, *settings))
        self.all_modules.append(Attention(inside))
        self.all_modules.append(Residual(inside, inside, *settings))
        for i, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.all_modules.append(Residual(inside + skips.pop(), width, *settings))
                inside = width
            if i in attended:
                self.all_modules.append(Attention(width))
            if i > 0:
                self.all_modules.append(Residual(width, width, *settings, nn.Upsample(scale_factor=2)))
        self.all_modules.append(group_norm(channels))
        self.all_modules.append(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, x: Any, label: Any) -> Any:
        layers = iter(self.all_modules)
        embedding = next(layers)(self._features(label))
        embedding = F.silu(next(layers)(F.silu(embedding)))
        skips = [next(layers)(x)]
        for i in range(self.levels):
            for _ in range(self.blocks):
                h = next(layers)(skips[-1], embedding)
                skips.append(next(layers)(h, embedding) if i in self.attended else h)
            if i < self.levels - 1:
                skips.append(next(layers)(skips[-1], embedding))
        h = skips[-1]
        for _ in range(3):
            h = next(layers)(h, embedding)
        for i in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                h = next(layers)(torch.cat([h, skips.pop()], dim=1), embedding)
            if i in self.attended:
                h = next(layers)(h, embedding)
            if i > 0:
                h = next(layers)(h, embedding)
        h = F.silu(next(layers)(h))
        return next(layers)(h)

    def _features(self, label: Any) -> Any:
        half = self.channels // 2
        frequencies = torch.exp(
            torch.arange(half, dtype=torch.float32, device=label.device) * (-math.log(10_000.0) / (half - 1))
        )
        angles = label[:, None] * frequencies[None, :]
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
