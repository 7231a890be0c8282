# SPDX-License-Identifier: Apache-2.0
"""Golden samples without torch: judged as ``smoke.py`` does it with torch."""

from __future__ import annotations

import math

import numpy
import pytest

from tests.runtime.session.bundles import Made
from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import COUNT, DOUBLE, NETS, some
from trtpack_runtime.errors import SmokeFailure
from trtpack_runtime.session import smoke_numpy
from trtpack_runtime.session.smoke_numpy import Value

NAN, INF = math.nan, math.inf
ZERO = numpy.zeros(3, "f4")


def golden(made: Made, **tensors: object) -> Made:
    """A method with a golden sample."""
    named = {name.replace("_", ".", 1): value for name, value in tensors.items()}
    return Made(made.inputs, made.outputs, made.segments, made.values, made.states, golden=named)


def test_golden_samples_are_replayed(lab: Lab) -> None:
    right = golden(DOUBLE, input_0=some(), output_0=2 * some())
    report = lab.session(NETS, right).smoke()
    assert report.passed
    assert [(c.sample, c.output, c.dtype) for c in report.comparisons] == [
        ("forward-0", "y", "float32")
    ]
    wrong = golden(DOUBLE, input_0=some(), output_0=2 * some() + 1)
    with pytest.raises(SmokeFailure, match="1 of 1 outputs wrong, worst is 'y' of forward-0: rel"):
        lab.session(NETS, wrong).smoke().raise_for_failure()


def test_end_states_are_judged_from_fresh_state(lab: Lab) -> None:
    made = golden(COUNT, input_0=ZERO, output_0=ZERO + 5, state_s=ZERO + 6)
    session = lab.session(NETS, made, states={"s": ZERO + 5})
    session.run([ZERO])
    for _ in range(2):
        report = session.smoke("forward")
        assert [c.output for c in report.comparisons] == ["y", "state s"]
        assert report.passed
    assert session.states["s"].numpy().tolist() == [5, 5, 5]


CASES = [
    ("f4", [1.0, 2.0], [1.0, 2.0]),
    ("f4", [1.0, 2.1], [1.0, 2.0]),
    ("f4", [1.0, -2.0], [1.0, 2.0]),
    ("f4", [NAN, INF, 1.0], [NAN, INF, 1.0]),
    ("f4", [NAN, 1.0], [1.0, 1.0]),
    ("f4", [1.0, 1.0], [NAN, 1.0]),
    ("f4", [-INF, 1.0], [INF, 1.0]),
    ("f4", [0.0, 0.0], [0.0, 0.0]),
    ("f4", [0.1, 0.0], [0.0, 0.0]),
    ("f4", [], []),
    ("f2", [6e4, 1e-7, 3.0], [6e4, 0.0, 3.1]),
    ("f8", [1e300, 1e-300], [1e300, 2e-300]),
    ("i8", [1, 2, 3], [1, 2, 4]),
    ("i8", [2**53 + 1], [2**53]),
    ("i4", [5], [5]),
    ("?", [True, False], [False, False]),
    ("c8", [1 + 2j, 3j], [1 + 2j, 3.1j]),
    ("bf16", [1.0, 2.1, -3.5], [1.0, 2.0, -3.5]),
    ("fp8", [1.0, 2.25, -448.0, 0.001953125], [1.0, 2.0, -448.0, 0.0]),
]


@pytest.mark.parametrize(("kind", "got", "want"), CASES)
def test_figures_are_those_of_torch(kind: str, got: list, want: list) -> None:
    torch = pytest.importorskip("torch")
    from trtpack_runtime import smoke
    from trtpack_runtime.dtypes import by_torch

    types = {
        "f4": torch.float32,
        "f2": torch.float16,
        "f8": torch.float64,
        "i8": torch.int64,
        "i4": torch.int32,
        "?": torch.bool,
        "c8": torch.complex64,
        "bf16": torch.bfloat16,
        "fp8": torch.float8_e4m3fn,
    }
    tensors = [
        torch.tensor(v, dtype=torch.complex64 if kind == "c8" else None) for v in (got, want)
    ]
    a, b = (tensor.to(types[kind]) for tensor in tensors)
    raw = {"bf16": torch.uint16, "fp8": torch.uint8}.get(kind)
    arrays = [(t.view(raw) if raw else t).numpy() for t in (a, b)]
    name = by_torch(a.dtype).name
    ours = smoke_numpy.judge("s", "y", *(Value(array, name) for array in arrays))
    theirs = smoke.judge("s", "y", a, b)
    assert (ours.failure, ours.dtype) == (theirs.failure, theirs.dtype)
    assert ours.metrics is not None
    assert theirs.metrics is not None
    assert ours.metrics.differing == theirs.metrics.differing
    assert ours.metrics.elements == theirs.metrics.elements
    for figure in ("max_abs", "rel_l2", "cosine"):
        mine, his = getattr(ours.metrics, figure), getattr(theirs.metrics, figure)
        assert mine == pytest.approx(his, rel=1e-12, abs=1e-15)


def test_random_arrays_have_torchs_figures() -> None:
    torch = pytest.importorskip("torch")
    from trtpack_runtime import smoke

    rng = numpy.random.default_rng(0)
    want = rng.standard_normal((7, 11)).astype("f4")
    got = want + 1e-3 * rng.standard_normal((7, 11)).astype("f4")
    ours = smoke_numpy.compare(Value(got, "FLOAT"), Value(want, "FLOAT"))
    theirs = smoke.compare(torch.from_numpy(got), torch.from_numpy(want))
    assert ours.rel_l2 == pytest.approx(theirs.rel_l2, rel=1e-12)
    assert ours.cosine == pytest.approx(theirs.cosine, rel=1e-12)


def test_another_shape_or_type_is_told() -> None:
    one = Value(numpy.ones((1, 2), "f4"), "FLOAT")
    for other, text in (
        (Value(numpy.ones(2, "f4"), "FLOAT"), r"wanted float32[2], got float32[1, 2]"),
        (Value(numpy.ones((1, 2), "u2"), "BF16"), r"wanted bfloat16[1, 2], got float32[1, 2]"),
    ):
        assert smoke_numpy.judge("s", "y", one, other).failure == text
    every = smoke_numpy.compare(one, Value(numpy.ones(3, "f4"), "FLOAT"))
    assert (every.differing, every.elements, every.rel_l2) == (3, 3, INF)
