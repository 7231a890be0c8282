# SPDX-License-Identifier: Apache-2.0
"""Whole networks written by hand, which every release from 8.6 on can have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trtpack_runtime.dims import Dim, dim, maximum, minimum
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

NETWORKS: dict[str, Callable[[], Network]] = {}
N, M = dim("x", 0), dim("x", 1)


def network(function: Callable[[], Network]) -> Callable[[], Network]:
    """Registers a network by its function's name."""
    NETWORKS[function.__name__] = function
    return function


def _convolved(recorder: Recorder, x: Tensor, maps: int, name: str, stride: int = 1) -> Tensor:
    channels = x.shape[1]
    assert isinstance(channels, int)
    kernel = recorder.constant(x.dtype, (maps, channels, 3, 3), f"{name}.weight")
    bias = recorder.constant(x.dtype, (maps,), f"{name}.bias")
    attributes = {
        "num_output_maps": maps,
        "kernel_shape": (3, 3),
        "stride_nd": (stride, stride),
        "pre_padding": (1, 1),
        "post_padding": (1, 1),
        "dilation_nd": (1, 1),
        "num_groups": 1,
    }
    operands = {"input": x, "kernel": kernel, "bias": bias}
    return recorder.add("convolution_nd", operands, attributes, name=name)[0]


def _with(recorder: Recorder, kind: str, name: str, x: Tensor, **attributes: Any) -> Tensor:
    return recorder.add(kind, {"input": x}, attributes, name=name, origin=f"net.{name}")[0]


def _sum(recorder: Recorder, a: Tensor, b: Tensor, name: str, op: str = "SUM") -> Tensor:
    return recorder.add("elementwise", {"input1": a, "input2": b}, {"op": op}, name=name)[0]


def _residual(dtype: str, batch: Dim) -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", dtype, (batch, 3, 32, 32)))
    stem = _with(
        recorder, "activation", "stem act", _convolved(recorder, x, 8, "stem", 2), type="RELU"
    )
    left = _convolved(recorder, stem, 8, "block.conv")
    joined = _with(recorder, "activation", "act", _sum(recorder, left, stem, "add"), type="RELU")
    pooled = _with(
        recorder,
        "pooling_nd",
        "pool",
        joined,
        type="MAX",
        window_size=(2, 2),
        stride_nd=(2, 2),
        pre_padding=(0, 0),
        post_padding=(0, 0),
        padding_mode="EXPLICIT_ROUND_DOWN",
    )
    mean = _with(recorder, "reduce", "mean", pooled, op="AVG", axes=(2, 3), keep_dims=False)
    weight = recorder.constant(dtype, (8, 10), "head.weight")
    (y,) = recorder.add(
        "matrix_multiply",
        {"input0": mean, "input1": weight},
        {"op0": "NONE", "op1": "NONE"},
        name="head",
    )
    profiles = [Profile({"x": tuple((size, 3, 32, 32) for size in (1, 4, 32))})]
    return recorder.finish([y.name], [] if isinstance(batch, int) else profiles)


@network
def residual() -> Network:
    return _residual("FLOAT", 2)


@network
def residual_half_dynamic() -> Network:
    return _residual("HALF", N)


@network
def attention_of_primitives() -> Network:
    """Heads split and joined again at open batch and length, in FLOAT within HALF."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (N, M, 32)))
    (q,) = recorder.add(
        "shuffle",
        {"input": x},
        {"reshape_dims": (N, M, 4, 8), "second_transpose": (0, 2, 1, 3)},
        name="split",
    )
    (scores,) = recorder.add(
        "matrix_multiply",
        {"input0": q, "input1": q},
        {"op0": "NONE", "op1": "TRANSPOSE"},
        name="qk",
    )
    wide = _with(recorder, "cast", "wide", scores, to_type="FLOAT")
    soft = _with(recorder, "softmax", "soft", wide, axes=(3,))
    narrow = _with(recorder, "cast", "narrow", soft, to_type="HALF")
    (o,) = recorder.add(
        "matrix_multiply",
        {"input0": narrow, "input1": q},
        {"op0": "NONE", "op1": "NONE"},
        name="av",
    )
    (y,) = recorder.add(
        "shuffle",
        {"input": o},
        {"first_transpose": (0, 2, 1, 3), "reshape_dims": (N, M, 32)},
        name="join",
    )
    return recorder.finish([y.name], [Profile({"x": ((1, 1, 32), (2, 16, 32), (8, 64, 32))})])


@network
def two_profiles() -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (N, M)))
    y = _with(recorder, "unary", "exp", x, op="EXP")
    return recorder.finish(
        [y.name],
        [Profile({"x": ((1, 1), (1, 8), (1, 16))}), Profile({"x": ((1, 1), (8, 64), (32, 128))})],
    )


@network
def sizes_of_every_operation() -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (N, M)))
    rows = maximum(N // 3, minimum(M, 5)) + N % 4
    (y,) = recorder.add(
        "slice",
        {"input": x},
        {"start": (N // 2, 0), "shape": (rows, M * 2), "stride": (1, 1), "mode": "WRAP"},
        name="slice",
    )
    (z,) = recorder.add("shuffle", {"input": y}, {"reshape_dims": (M, rows * 2)}, name="reshape")
    return recorder.finish([z.name], [Profile({"x": ((4, 2), (8, 4), (16, 8))})])


@network
def one_size_of_two_inputs() -> Network:
    """Two inputs whose first sizes are declared equal."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (N, 4)))
    m = recorder.input(Tensor("mask", "BOOL", (N, 4)))
    zero = recorder.constant("FLOAT", (1, 1), "zero")
    (y,) = recorder.add(
        "select", {"condition": m, "then_input": x, "else_input": zero}, {}, name="masked"
    )
    ranges = ((1, 4), (2, 4), (8, 4))
    return recorder.finish([y.name], [Profile({"x": ranges, "mask": ranges})])


@network
def indices() -> Network:
    """An embedding: INT64 indices in, INT64 arg-max out."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "INT64", (N, M)))
    table = recorder.constant("FLOAT", (100, 16), "embedding.weight")
    (e,) = recorder.add(
        "gather", {"input": table, "indices": x}, {"mode": "DEFAULT", "axis": 0}, name="embedding"
    )
    given = {"op": "MAX", "k": 1, "axes": (2,), "indices_type": "INT64"}
    values, best = recorder.add("topk", {"input": e}, given, name="best")
    profile = Profile({"x": ((1, 1), (2, 8), (8, 64))})
    return recorder.finish([best.name, values.name], [profile])


@network
def positions() -> Network:
    """Numbers counted up to an open size, added to a cast input."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (N, M)))
    (counted,) = recorder.add(
        "fill",
        {},
        {
            "shape": (1, M),
            "op": "LINSPACE",
            "output_type": "FLOAT",
            "alpha": 0.0,
            "beta": (0.0, 1.0),
        },
        name="counted",
    )
    wide = _with(recorder, "cast", "wide", x, to_type="FLOAT")
    y = _sum(recorder, wide, counted, "y")
    return recorder.finish([y.name], [Profile({"x": ((1, 1), (2, 8), (8, 64))})])


@network
def resized_and_joined() -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (N, 3, 8, 8)))
    (up,) = recorder.add(
        "resize",
        {"input": x},
        {
            "resize_mode": "LINEAR",
            "coordinate_transformation": "HALF_PIXEL",
            "shape": (N, 3, 16, 16),
        },
        name="up",
    )
    (y,) = recorder.add("concatenation", {"inputs": (up, up)}, {"axis": 1}, name="joined")
    return recorder.finish([y.name], [Profile({"x": tuple((n, 3, 8, 8) for n in (1, 2, 4))})])


@network
def normalized() -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "HALF", (N, M, 32)))
    scale, bias = (recorder.constant("HALF", (1, 1, 32), f"norm.{n}") for n in ("weight", "bias"))
    (y,) = recorder.add(
        "normalization",
        {"input": x, "scale": scale, "bias": bias},
        {"axes": (2,), "epsilon": 1e-5},
        name="norm",
    )
    return recorder.finish([y.name], [Profile({"x": ((1, 1, 32), (2, 8, 32), (8, 64, 32))})])


@network
def truths() -> Network:
    """Comparisons and logic, BOOL out."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "INT32", (N, 4)))
    zero = recorder.constant("INT32", (1, 4), "zero")
    mask = recorder.constant("BOOL", (1, 4), "mask")
    more = _sum(recorder, x, zero, "more", "GREATER")
    y = _sum(recorder, more, mask, "and", "AND")
    return recorder.finish([y.name], [Profile({"x": ((1, 4), (2, 4), (8, 4))})])


@network
def shared_weights() -> Network:
    """One stored tensor read twice."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    for name in ("once", "twice"):
        x = _sum(recorder, x, recorder.constant("FLOAT", (2, 3), "w"), name)
    return recorder.finish([x.name])


@network
def no_elements() -> Network:
    """A size of 0 that is meant, which TensorRT would take as the input's size there."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 0, 3)))
    (y,) = recorder.add("shuffle", {"input": x}, {"reshape_dims": (0, 6)}, name="reshape")
    return recorder.finish([y.name])
