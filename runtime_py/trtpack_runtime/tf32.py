# SPDX-License-Identifier: Apache-2.0
"""Whether PyTorch rounds float32 as it computes: asked, and forbidden for a while.

Since release 2.9 each kind of operator has a precision of its own (``fp32_precision``) besides the
older switches, which PyTorch no longer tells once one of the newer was set otherwise. This imports
PyTorch only to change what it does.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, TypeVar

__all__ = ["convolves_in_tf32", "cudnn_told", "full_float32"]

_KINDS = ("cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn.conv", "mkldnn.rnn", "mkldnn.matmul")
_PRECISION = "fp32_precision"
_T = TypeVar("_T")


def convolves_in_tf32() -> bool:
    """Whether PyTorch rounds what convolutions on a GPU take to TF32, as it does unless told
    otherwise, which takes that it is imported."""
    if "torch" not in sys.modules:
        return True
    cudnn = _backends().cudnn
    convolution = getattr(cudnn, "conv", None)
    if hasattr(convolution, _PRECISION):
        return bool(getattr(convolution, _PRECISION) == "tf32")
    return bool(cudnn.allow_tf32)


@contextmanager
def full_float32() -> Iterator[None]:
    """Full float32, where PyTorch rounds unless told not to: convolutions on a GPU to TF32, and
    before release 2.6 products to bfloat16 on Arm processors that have it (pytorch#130919)."""
    import torch

    cudnn, mkldnn = _backends().cudnn, _backends().mkldnn
    products, convolutions = _told(torch.get_float32_matmul_precision), _cudnn()
    enabled, kinds = mkldnn.enabled, _kinds()
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    for kind, rounds in _kinds().items():
        if rounds not in ("none", "ieee"):
            _set(kind, "ieee")
    if platform.machine() == "aarch64" and torch.__version__ < "2.6":
        mkldnn.enabled = False
    try:
        yield
    finally:
        mkldnn.enabled = enabled
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        _restore(kinds)


@contextmanager
def cudnn_told() -> Iterator[None]:
    """Within, PyTorch tells cuDNN's older switch, as its own code asks that exports a model, also
    where a program set convolutions apart from recurrent layers. That code sets what it was told
    again, which says less than the newer switches; they are as they were afterwards."""
    kinds = _kinds()
    if _cudnn() is None:
        _backends().cudnn.allow_tf32 = convolves_in_tf32()
    try:
        yield
    finally:
        _restore(kinds)


def _cudnn() -> bool | None:
    return _told(lambda: _backends().cudnn.allow_tf32)


def _told(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except RuntimeError:
        return None


def _kinds() -> dict[str, str]:
    """The precision of each kind of operator; empty before PyTorch 2.9. One of the older switches
    sets several, and sets them apart from what they were when it is set back."""
    backends = _backends()
    if not hasattr(backends, _PRECISION):
        return {}
    return {name: getattr(attrgetter(name)(backends), _PRECISION) for name in _KINDS}


def _restore(kinds: Mapping[str, str]) -> None:
    now = _kinds()
    for kind, precision in kinds.items():
        if now[kind] != precision:
            _set(kind, precision)


def _set(kind: str, precision: str) -> None:
    setattr(attrgetter(kind)(_backends()), _PRECISION, precision)


def _backends() -> Any:
    """``torch.backends``, whose switches are properties that type checkers do not see."""
    import torch

    return torch.backends
