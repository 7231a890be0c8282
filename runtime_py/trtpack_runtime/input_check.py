# SPDX-License-Identifier: Apache-2.0
"""Holds the tensors of a call against what the manifest says of the method's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch

from .dtypes import DTYPES
from .engines._alike import Alike
from .errors import ConfigError, InputMismatchError, InternalError
from .input_conversion import converted, is_lossless
from .input_shapes import check_count, check_rank, check_sizes
from .manifest import TensorSpec

InputPolicy = Literal["convert", "refuse"]
"""What becomes of an input on another device, of another type or rank that loses nothing: made
what the method takes, or refused."""

_TORCH = {name: getattr(torch, row.torch) for name, row in DTYPES.items()}
_KNOWN_SHAPES = 256


class InputCheck:
    """Checks the inputs of one method; what was found good before is good at a glance.

    Args:
        wanted: the method's inputs.
        device: where the bundle runs.
        policy: what becomes of inputs that could be converted.
    """

    def __init__(
        self, wanted: Sequence[TensorSpec], device: torch.device, policy: InputPolicy = "refuse"
    ) -> None:
        if policy not in get_args(InputPolicy):
            raise ConfigError(f"unknown input policy {policy!r}", hint='give "convert" or "refuse"')
        self.wanted, self.device, self.policy = wanted, device, policy
        self._count, self._alike = len(wanted), Alike()
        self._last: list[Any] = []
        self._good: dict[Any, bool] = {}

    def __call__(self, given: Sequence[Any]) -> Sequence[torch.Tensor]:
        """The inputs, detached, and converted where the policy says so.

        Raises:
            InputMismatchError: names the input and dimension, what was wanted and what was given.
        """
        if len(given) == self._count and self._alike.check(*given):
            return given
        facts = _facts(given)
        if facts == self._last and facts is not None:
            self._alike.learn(given)
            return given
        if facts is None or self.policy == "refuse" or len(given) != len(self.wanted):
            return self._checked(given, facts)
        ready = [
            converted(value, _TORCH[spec.dtype], len(spec.shape), self.device)
            for spec, value in zip(self.wanted, given, strict=True)
        ]
        return self._checked(ready, _facts(ready))

    def _checked(
        self, given: Sequence[torch.Tensor], facts: list[Any] | None
    ) -> Sequence[torch.Tensor]:
        if facts is None:
            check_inputs(self.wanted, given, self.device)
            raise InternalError("inputs that are no tensors were found good")
        key = tuple(facts)
        needs_grad = self._good.get(key)
        if needs_grad is None:
            check_inputs(self.wanted, given, self.device)
            needs_grad = any(value.requires_grad for value in given)
            if len(self._good) >= _KNOWN_SHAPES:
                self._good.clear()
            self._good[key] = needs_grad
        if needs_grad:
            return [value.detach() for value in given]
        self._last = facts
        return given


def _facts(given: Sequence[Any]) -> list[Any] | None:
    """What is checked of every input; None where one is no tensor."""
    try:
        return [(x.shape, x.dtype, x.device, x.layout, x.requires_grad) for x in given]
    except AttributeError:
        return None


def check_inputs(
    wanted: Sequence[TensorSpec], given: Sequence[object], device: torch.device
) -> None:
    """Compares type, rank, sizes and device of every input.

    Raises:
        InputMismatchError: names the input and dimension, what was wanted and what was given.
    """
    check_count(wanted, len(given))
    sizes = {w.name: tuple(g.shape) for w, g in zip(wanted, given, strict=True)
             if isinstance(g, torch.Tensor)}  # fmt: skip
    for spec, value in zip(wanted, given, strict=True):
        if not isinstance(value, torch.Tensor):
            raise InputMismatchError(
                f"input {spec.name}: wanted a tensor, got {type(value).__name__}",
                hint="convert it with torch.as_tensor",
            )
        _check_kind(spec, value, device)
        check_sizes(spec, value.shape, sizes)


def check_type(spec: TensorSpec, value: torch.Tensor) -> None:
    """InputMismatchError where an input has another type than the method takes."""
    want = _TORCH[spec.dtype]
    if value.dtype != want:
        convert = f"convert it with {spec.name}.to({want})"
        raise InputMismatchError(
            f"input {spec.name}: wanted {_name(want)}, got {_name(value.dtype)}",
            hint=convert + _or_load(is_lossless(value.dtype, want)),
        )


def _check_kind(spec: TensorSpec, value: torch.Tensor, device: torch.device) -> None:
    check_type(spec, value)
    if value.layout is not torch.strided:
        raise InputMismatchError(
            f"input {spec.name}: wanted a dense tensor, got {value.layout}",
            hint=f"convert it with {spec.name}.to_dense()",
        )
    if not _is_on(value.device, device):
        raise InputMismatchError(
            f"input {spec.name}: it is on {value.device}, the bundle on {device}",
            hint=f"move it with {spec.name}.to({str(device)!r}), or the bundle with .to()"
            + _or_load(value.device.type != "meta"),
        )
    check_rank(spec, value.shape)


def _is_on(have: torch.device, want: torch.device) -> bool:
    """Whether a tensor is on a device; one without a number stands for all of its kind."""
    return have.type == want.type and (want.index is None or have.index in (None, want.index))


def _or_load(helps: bool) -> str:
    return ', or load with inputs="convert"' if helps else ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
