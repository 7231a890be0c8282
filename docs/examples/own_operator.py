# SPDX-License-Identifier: Apache-2.0
"""An operator of one's own: PyTorch runs it between two engines, until a converter of four lines
says which TensorRT layers it is.

    python docs/examples/own_operator.py [TARGET]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from compare import difference, loaded, told
from soft_clip import soft_clip
from torch import Tensor, nn

import trtpack

CONVERTERS = Path(__file__).with_name("own_converters.py")


class Clipped(nn.Module):
    """Two layers with the operator between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 256), nn.Linear(256, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(soft_clip(self.first(x), 0.5))


def make_model() -> tuple[nn.Module, Tensor]:
    """The layers with random weights, and a batch."""
    torch.manual_seed(0)
    return Clipped().eval(), torch.randn(16, 64)


def main(target: str = "orin") -> None:
    model, x = make_model()
    with torch.no_grad():
        wanted = model(x)
    for converters in ((), (str(CONVERTERS),)):
        bundle = trtpack.build(
            model,
            (x,),
            target=target,
            converters=converters,
            min_block_size=1,  # so small a model is faster in PyTorch altogether
            output="clipped.tar",
        )
        engine = loaded(bundle)
        needs = [n for n in engine.bundle.manifest.requires if n.startswith("module:")]
        print(
            f"{'with' if converters else 'without'} its converter: {told(bundle)}, "
            f"{difference(engine(x.to(engine.device)), wanted):.1e} from PyTorch, "
            f"a device needs {needs or 'nothing more'}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
