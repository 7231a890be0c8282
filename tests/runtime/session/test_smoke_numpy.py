# SPDX-License-Identifier: Apache-2.0
"""Golden samples without torch: judged as ``smoke.py`` does it with torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy
import pytest

from tests.runtime.session.bundles import Made, Stored
from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import COUNT, DOUBLE, NETS, some
from tests.runtime.session.trt_double import Net
from trtpack_runtime.bundle import Member, open_bundle
from trtpack_runtime.errors import (
    BundleError,
    ConfigError,
    InputMismatchError,
    SmokeFailure,
)
from trtpack_runtime.rewrite import rewrite
from trtpack_runtime.safetensors import Encoded
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


def chained(wrong: bool = False) -> dict[str, Made]:
    """Methods that count on in one slot, and look at it, each sample after the others'."""
    x, y, net = COUNT.inputs, COUNT.outputs, "forgets" if wrong else "count"
    to = {"x": "x", "s": "s_in"}
    peek = [("peek_0", net, to, {"y": "y", "t": "unused"})]
    first = Made(x, y, [("first_0", "count", to, {"y": "y", "t": "s_out"})], states=COUNT.states)
    then = replace(first, segments=[("then_0", *first.segments[0][1:])])
    last = Made(x, y, peek, states=[("s", "s_in", "s_in")])
    return {
        "first": golden(first, input_0=ZERO, output_0=ZERO + 5, state_s=ZERO + 6),
        "then": replace(
            golden(then, input_0=ZERO + 1, output_0=ZERO + 7, state_s=ZERO + 7), follows=["first"]
        ),
        "last": replace(
            golden(last, input_0=ZERO, output_0=ZERO + 7, state_s=ZERO + 7), follows=["then"]
        ),
    }


FORGETS = Net(NETS["count"].inputs, NETS["count"].outputs, lambda x, s: [x + 5, s])


def test_samples_begin_with_what_others_left(lab: Lab) -> None:
    made = chained()
    for methods in (("first", "then", "last"), ("last",), ("then", "last")):
        session = lab.session(NETS, made, states={"s": ZERO + 5}, method=methods)
        for _ in range(2):
            report = session.smoke()
            assert report.passed, report
            assert [c.sample for c in report.comparisons if c.output == "y"] == [
                f"{name}-0" for name in methods
            ]
        assert session.states["s"].numpy().tolist() == [5, 5, 5]


def test_an_engine_that_ignores_the_state_fails(lab: Lab) -> None:
    nets = {**NETS, "forgets": FORGETS}
    session = lab.session(nets, chained(wrong=True), states={"s": ZERO + 5}, method="last")
    assert [c.output for c in session.smoke().failed] == ["y"]
    last = chained(wrong=True)["last"]
    alone = golden(last, input_0=ZERO, output_0=ZERO + 5, state_s=ZERO + 5)
    proved = lab.session(nets, {"last": alone}, states={"s": ZERO + 5}, method="last").smoke()
    assert proved.passed, "from the first state nothing is noticed"


def test_a_slot_that_no_method_of_the_session_has_is_left_out(lab: Lab) -> None:
    counted = chained()
    other = golden(DOUBLE, input_0=some(), output_0=2 * some())
    methods = {**counted, "forward": replace(other, follows=["then"])}
    session = lab.session(NETS, methods, states={"s": ZERO + 5})
    assert session.smoke().passed
    with pytest.raises(ConfigError, match="the session has no state 's'"):
        session.reset({"s": ZERO})


def test_state_is_put_where_it_is_asked_for(lab: Lab) -> None:
    session = lab.session(NETS, COUNT, states={"s": ZERO})
    session.reset({"s": ZERO + 2})
    assert session.run([ZERO])["y"].tolist() == [2, 2, 2]
    session.reset({"s": numpy.float64(ZERO + 4)})
    assert session.run([ZERO])["y"].tolist() == [4, 4, 4]
    for wrong, said in (
        (ZERO[:2], r"state s: wanted the shape \[3\], got \[2\]"),
        ([1.0, 2.0, 3.0], "state s: wanted a ndarray, got list"),
    ):
        with pytest.raises(InputMismatchError, match=said):
            session.reset({"s": wrong})
    assert session.run([ZERO])["y"].tolist() == [5, 5, 5], "what is refused changes nothing"
    session.reset()
    assert session.run([ZERO])["y"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("states", [("s",), ("other",)])
def test_what_a_followed_sample_lacks_is_named(lab: Lab, states: tuple[str, ...]) -> None:
    made = chained()
    path = lab.bundle(NETS, made, states={"s": ZERO})
    opened = open_bundle(path)
    first = made["first"].golden or {}
    stored = [Stored(k, v) for k, v in first.items() if k != "state.s"]
    manifest = opened.manifest
    if states == ("other",):
        stored.append(Stored("state.other", ZERO))
        method = manifest.methods["first"]
        sample = replace(method.golden[0], states=("state.other",))
        methods = {**manifest.methods, "first": replace(method, golden=(sample,))}
        manifest = replace(manifest, methods=methods)
    member = Member("golden/first-0.safetensors", Encoded(stored))
    rewrite(opened, path.with_suffix(".new"), manifest=manifest, add=[member])
    broken = open_bundle(path.with_suffix(".new"))
    told = "no tensor 'state.s'" if states == ("s",) else "a state 'other', which the bundle lacks"
    wanted = f"golden/first-0.safetensors has {told}; golden/then-0.safetensors begins with"
    with pytest.raises(BundleError, match=wanted):
        smoke_numpy.golden_samples(broken, broken.manifest.methods["then"])


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
