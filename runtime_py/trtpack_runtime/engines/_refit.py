# SPDX-License-Identifier: Apache-2.0
"""Gives a deserialised engine its weights. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtpack_runtime.dtypes import by_safetensors
from trtpack_runtime.errors import BundleError, DeviceError

from ._cuda import device_error
from ._log import Log
from ._memory import weights_at


def refit(trt: Any, engine: Any, log: Log, weights: Mapping[str, Any]) -> None:
    """Gives an engine its weights, by the names the stored tensors have.

    Raises:
        BundleError: the bundle lacks one of them, or it is of another type or size.
        DeviceError: the GPU has no memory for it.
    """
    before = len(log.errors)
    refitter = trt.Refitter(engine, log.logger)
    kept = []
    for name in refitter.get_all_weights():
        if name not in weights:
            continue
        view = weights[name]
        given, held = weights_at(trt, by_safetensors(view.dtype).name, view.buffer)
        kept.append(held)
        if not refitter.set_named_weights(name, given):
            raise _not_refitted(f"TensorRT does not take {name!r}", log.errors[before:])
    missing = sorted(refitter.get_missing_weights())
    if missing:
        raise BundleError(
            f"the engine needs {len(missing)} weights that are not in the bundle, "
            f"such as {missing[0]!r}",
            hint="build the bundle again",
            wants=missing,
            has=len(weights),
        )
    if not refitter.refit_cuda_engine():
        raise _not_refitted("TensorRT cannot refit the engine", log.errors[before:])


def _not_refitted(problem: str, said: list[str]) -> BundleError | DeviceError:
    error = device_error(said)
    if error is not None:
        return error
    return BundleError(
        f"{problem}: {'; '.join(said[-3:]) or 'it gave no reason'}", hint="build the bundle again"
    )
