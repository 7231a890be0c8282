# SPDX-License-Identifier: Apache-2.0
"""Nets that the doubles compute, and methods over them."""

from __future__ import annotations

import numpy

from tests.runtime.session.bundles import BATCH, Made
from tests.runtime.session.trt_double import Net
from trtpack_runtime import dims

OPEN = {"x": ((1, 3), (2, 3), (4, 3))}
WIDTH = dims.dim("x", 1)

NETS = {
    "double": Net(
        {"x": ("FLOAT", (BATCH, 3))}, {"y": ("FLOAT", (BATCH, 3))}, lambda x: [2 * x], [OPEN]
    ),
    "next": Net(
        {"a": ("FLOAT", (dims.dim("a", 0), 3)), "x": ("FLOAT", (BATCH, 3))},
        {"sum": ("FLOAT", (dims.dim("a", 0), 3)), "mean": ("FLOAT", (dims.dim("a", 0),))},
        lambda a, x: [a + x, (a + x).mean(1)],
        [{"a": ((1, 3), (2, 3), (4, 3)), **OPEN}],
        scratch=512,
    ),
    "fixed": Net({"x": ("FLOAT", (2, 3))}, {"y": ("FLOAT", (2, 3))}, lambda x: [x + 1]),
    "whole": Net(
        {"i": ("INT64", (dims.dim("i", 0),))},
        {"j": ("INT64", (dims.dim("i", 0),))},
        lambda i: [i * 3],
        [{"i": ((1,), (4,), (8,))}],
    ),
    "count": Net(
        {"x": ("FLOAT", (3,)), "s": ("FLOAT", (3,))},
        {"y": ("FLOAT", (3,)), "t": ("FLOAT", (3,))},
        lambda x, s: [x + s, s + 1],
    ),
    "nonzero": Net(
        {"x": ("FLOAT", (BATCH, 3))},
        {"at": ("INT64", (2, None))},
        lambda x: [numpy.stack(numpy.nonzero(x)).astype("i8")],
        [OPEN],
    ),
}

DOUBLE = Made(
    [("x", "FLOAT", (BATCH, 3), (4, 3))],
    [("y", "FLOAT", (BATCH, 3))],
    [("forward_0", "double", {"x": "x"}, {"y": "y"})],
)
FIXED = Made(
    [("x", "FLOAT", (2, 3), None)],
    [("y", "FLOAT", (2, 3))],
    [("forward_0", "fixed", {"x": "x"}, {"y": "y"})],
)
CHAIN = Made(
    [("x", "FLOAT", (BATCH, 3), (4, 3))],
    [("sum", "FLOAT", (BATCH, 3)), ("mean", "FLOAT", (BATCH,)), ("same", "FLOAT", (BATCH, 3))],
    [
        ("forward_0", "double", {"x": "x"}, {"y": "v"}),
        ("forward_1", "double", {"x": "v"}, {"y": "w"}),
        ("forward_2", "next", {"a": "w", "x": "x"}, {"sum": "sum", "mean": "mean"}),
    ],
    values=("sum", "mean", "x"),
)
"""``4 * x + x``, its mean, and the input as it is."""
WHOLE = Made(
    [("i", "INT64", (dims.dim("i", 0),), (8,))],
    [("j", "INT64", (dims.dim("i", 0),))],
    [("forward_0", "whole", {"i": "i"}, {"j": "j"})],
)
COUNT = Made(
    [("x", "FLOAT", (3,), None)],
    [("y", "FLOAT", (3,))],
    [("forward_0", "count", {"x": "x", "s": "s_in"}, {"y": "y", "t": "s_out"})],
    states=[("s", "s_in", "s_out")],
)
NONZERO = Made(
    [("x", "FLOAT", (BATCH, 3), (4, 3))],
    [("at", "INT64", (2, None))],
    [("forward_0", "nonzero", {"x": "x"}, {"at": "at"})],
)


def some(batch: int = 2, seed: int = 0) -> numpy.ndarray:
    """Random numbers for ``x``."""
    return numpy.random.default_rng(seed).random((batch, 3), numpy.float32)
