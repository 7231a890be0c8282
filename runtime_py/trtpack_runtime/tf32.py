# SPDX-License-Identifier: Apache-2.0
"""Whether PyTorch rounds float32 as it computes: asked, and forbidden for a while.

Since release 2.9 each kind of operator has a precision of its own (``fp32_precision``) besides the
older switches, which PyTorch no longer tells once one of the newer was set otherwise.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import torch

__all__ = ["convolves_in_tf32", "full_float32"]

_KINDS = ("cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn.conv", "mkldnn.rnn", "mkldnn.matmul")
_PRECISION = "fp32_precision"


def convolves_in_tf32() -> bool:
    """Whether PyTorch rounds what convolutions on a GPU take to TF32, as it does unless told
    otherwise."""
    convolution = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(convolution, _PRECISION):
        return bool(getattr(convolution, _PRECISION) == "tf32")
    return bool(torch.backends.cudnn.allow_tf32)


@contextmanager
def full_float32() -> Iterator[None]:
    """Full float32, where PyTorch rounds unless told not to: convolutions on a GPU to TF32, and
    before release 2.6 products to bfloat16 on Arm processors that have it (pytorch#130919)."""
    mkldnn = torch.backends.mkldnn
    enabled, kinds, rounding = mkldnn.enabled, _kinds(), _rounding()
    for switch, _, exact in rounding:
        switch(exact)
    if platform.machine() == "aarch64" and torch.__version__ < "2.6":
        mkldnn.enabled = False  # type: ignore[assignment]  # a switch, set so
    try:
        yield
    finally:
        mkldnn.enabled = enabled
        for switch, before, _ in rounding:
            switch(before)
        for (switch, before, _), (_, now, _) in zip(kinds, _kinds(), strict=True):
            if now != before:
                switch(before)


_Change = tuple[Callable[[Any], object], Any, Any]
"""How something is set, to what it is, and to what it rounds nothing."""


def _rounding() -> list[_Change]:
    """What rounds now, by the older switches where these are told."""
    cudnn = torch.backends.cudnn
    try:
        found: list[_Change] = [
            (torch.set_float32_matmul_precision, torch.get_float32_matmul_precision(), "highest"),
            (partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32, False),
        ]
    except RuntimeError:
        found = _kinds()
    return [change for change in found if change[1] not in (change[2], "none")]


def _kinds() -> list[_Change]:
    """The precision of each kind of operator; none before PyTorch 2.9. One of the older switches
    sets several, and sets them apart from what they were when it is set back."""
    if not hasattr(torch.backends, _PRECISION):
        return []
    kinds = (attrgetter(name)(torch.backends) for name in _KINDS)
    return [
        (partial(setattr, kind, _PRECISION), getattr(kind, _PRECISION), "ieee") for kind in kinds
    ]
