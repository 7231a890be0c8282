# SPDX-License-Identifier: Apache-2.0
"""How a converter adds a TensorRT plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trtpack_runtime.network import Tensor

from .context import Context
from .refusals import Refused

Field = float | str | Sequence[float]


def plugin(
    ctx: Context,
    name: str,
    version: str,
    inputs: Sequence[Tensor],
    results: Sequence[Tensor] | None = None,
    fields: Mapping[str, Field] | None = None,
    *,
    namespace: str = "",
    reference: str | None = None,
) -> tuple[Tensor, ...]:
    """Adds the plugin that a library registers as ``name`` and ``version``; answers its outputs.

    Args:
        ctx: what the converter was given.
        name: the plugin's name, as its creator has it.
        version: its version, ``"1"``.
        inputs: its inputs.
        results: tensors whose types and shapes its outputs have; ``ctx.results`` where left out.
        fields: its fields: floats are FLOAT32, whole numbers INT32, strings CHAR.
        namespace: that of its creator.
        reference: the operator that computes the same, ``mylib::op.overload``. It is called with
            the inputs, then the fields by name, wherever a network runs without TensorRT.

    Raises:
        Refused: the target is TensorRT-RTX, which has no plugins.
    """
    if ctx.target.engine_kind == "tensorrt-rtx":
        raise Refused(f"it needs the plugin {name}, and TensorRT-RTX has no plugins")
    given = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in (fields or {}).items())
    answers = tuple((t.dtype, t.shape) for t in (ctx.results if results is None else results))
    return ctx.add_all(
        "plugin",
        {"inputs": tuple(inputs)},
        plugin=name,
        version=version,
        namespace=namespace or None,
        fields=given or None,
        results=answers,
        reference=reference,
    )
