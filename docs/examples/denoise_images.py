# SPDX-License-Identifier: Apache-2.0
"""Diffusion: a small UNet takes noise away in 20 steps, one call of the bundle each.

python docs/examples/denoise_images.py [TARGET]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import torch
from compare import difference, loaded, median_ms, place, told
from torch import Tensor, nn

import trtpack

STEPS, SIDE, WIDTH, TOKENS = 20, 32, 32, 8

Noise = Callable[[Tensor, Tensor, Tensor], Tensor]


class Block(nn.Module):
    """A convolution that is told the time, then attention to the prompt."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, channels), nn.GroupNorm(8, out)])
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)]
        )
        self.time, self.around = nn.Linear(WIDTH, out), nn.Conv2d(channels, out, 1)
        self.attend = nn.MultiheadAttention(out, 4, kdim=WIDTH, vdim=WIDTH, batch_first=True)

    def forward(self, x: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
        y = self.convolutions[0](nn.functional.silu(self.norms[0](x)))
        y = y + self.time(time)[:, :, None, None]
        y = self.around(x) + self.convolutions[1](nn.functional.silu(self.norms[1](y)))
        pixels = y.flatten(2).transpose(1, 2)
        found, _ = self.attend(pixels, prompt, prompt, need_weights=False)
        return y + found.transpose(1, 2).view_as(y)


class UNet(nn.Module):
    """Down, through and up again; answers the noise that is in an image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 3, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.down, self.middle = Block(WIDTH, WIDTH), Block(WIDTH, 2 * WIDTH)
        self.up = Block(3 * WIDTH, WIDTH)
        self.smaller, self.larger = nn.AvgPool2d(2), nn.Upsample(scale_factor=2.0)

    def forward(self, image: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
        rates = torch.exp(-9.2 * torch.arange(WIDTH // 2) / (WIDTH // 2))
        angles = time[:, None].float() * rates
        told = self.time(torch.cat([angles.cos(), angles.sin()], -1))
        fine = self.down(self.first(image), told, prompt)
        coarse = self.middle(self.smaller(fine), told, prompt)
        both = torch.cat([self.larger(coarse), fine], 1)
        return self.last(self.up(both, told, prompt))


def make_model() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The UNet with random weights, and its inputs: images, times, prompts."""
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, SIDE, SIDE), torch.tensor([999, 999]), torch.randn(2, TOKENS, WIDTH)
    return UNet().eval(), inputs


def denoised(noise: Noise, image: Tensor, prompt: Tensor) -> Tensor:
    """DDIM: what is left of the noise after every step, with guidance by the prompt.

    The first of the two images of a call is told the prompt, the second none.
    """
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).to(image.device)
    times = torch.linspace(999, 0, STEPS + 1).long().tolist()
    prompts = torch.cat([prompt, torch.zeros_like(prompt)])
    for now, then in itertools.pairwise(times):
        time = torch.full((2,), now, device=image.device)
        with_prompt, without = noise(image.expand(2, -1, -1, -1), time, prompts).chunk(2)
        found = without + 3.0 * (with_prompt - without)
        clean = (image - (1 - kept[now]).sqrt() * found) / kept[now].sqrt()
        clean = clean.clamp(-1, 1)
        image = kept[then].sqrt() * clean + (1 - kept[then]).sqrt() * found
    return image


def main(target: str = "auto") -> None:
    model, inputs = make_model()
    bundle = trtpack.build(model, inputs, target=target, output="unet.tar")
    print(told(bundle))
    engine = loaded(bundle)
    image, prompt = torch.randn(1, 3, SIDE, SIDE), torch.randn(1, TOKENS, WIDTH)
    with torch.no_grad():
        wanted = denoised(model, image, prompt)
    got = denoised(engine, image.to(engine.device), prompt.to(engine.device))
    print(f"after {STEPS} steps the image is {difference(got, wanted):.1e} from PyTorch's")
    other = denoised(engine, image.to(engine.device), -prompt.to(engine.device))
    print(f"with another prompt it is {difference(other, wanted):.2f} away")
    there = [value.to(engine.device) for value in inputs]
    print(f"a step takes {median_ms(lambda: engine(*there), 10):.2f} ms {place(engine)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
