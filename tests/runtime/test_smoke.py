# SPDX-License-Identifier: Apache-2.0
"""Outputs are judged by the bounds of the manifest, and the worst one is named."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from trtpack_runtime import smoke
from trtpack_runtime.errors import SmokeFailure

NAN, INF = math.nan, math.inf


def test_figures_follow_their_definitions() -> None:
    want, error = torch.randn(50), 1e-2 * torch.randn(50)
    got = want + error
    metrics = smoke.compare(got, want)
    error = (got - want).double()
    assert metrics.max_abs == pytest.approx(float(error.abs().max()))
    assert metrics.rel_l2 == pytest.approx(float(error.norm() / want.double().norm()))
    wanted = cosine_similarity(got.double(), want.double(), dim=0)
    assert metrics.cosine == pytest.approx(float(wanted), abs=1e-12)
    assert (metrics.differing, metrics.elements) == (50, 50)


@pytest.mark.parametrize(
    ("got", "want", "bounds", "failure"),
    [
        ([1.0, 2.0], [1.0, 2.0], {"rel_l2": 0, "max_abs": 0, "cosine": 0.999999}, None),
        ([1.0, 2.1], [1.0, 2.0], {"rel_l2": 1e-3}, "relative L2 error 0.0447, at most 0.001"),
        ([1.0, 2.1], [1.0, 2.0], {"max_abs": 0.05}, "largest absolute error 0.1, at most 0.05"),
        ([1.0, -2.0], [1.0, 2.0], {"cosine": 0.9}, "cosine similarity -0.6"),
        ([1.0, 9.0], [1.0, 2.0], {"rel_l2": None, "cosine": None}, None),
        ([NAN, INF, 1.0], [NAN, INF, 1.0], {"rel_l2": 0, "cosine": 0.99}, None),
        ([NAN, 1.0], [1.0, 1.0], {"rel_l2": 1e9}, "relative L2 error inf"),
        ([1.0, 1.0], [NAN, 1.0], {"max_abs": 1e9}, "largest absolute error inf"),
        ([-INF, 1.0], [INF, 1.0], {"cosine": 0.0001}, "cosine similarity 0.0"),
        ([0.0, 0.0], [0.0, 0.0], {"rel_l2": 0, "cosine": 0.99}, None),
        ([0.1, 0.0], [0.0, 0.0], {"cosine": 0.99}, "cosine similarity 0.0"),
        ([0.1, 0.0], [0.0, 0.0], {"rel_l2": 1}, "relative L2 error inf"),
        ([], [], {"rel_l2": 0, "cosine": 0.99}, None),
        ([1, 2, 3], [1, 2, 4], {"equal": True}, "1 of 3 elements differ"),
        ([1, 2, 3], [1, 2, 3], {"equal": True}, None),
        ([1, 2, 3], [1, 2, 4], None, "1 of 3 elements differ"),
        ([True], [False], None, "1 of 1 elements differ"),
        ([2**53 + 1], [2**53], {"equal": True}, "1 of 1 elements differ"),
        ([1.0], [1.002], None, "relative L2 error 0.002"),
        ([1.0], [1.0001], None, None),
        ([1.0], [[1.0]], None, r"wanted float32\[1, 1\], got float32\[1\]"),
        ([1.0], [1], None, r"wanted int64\[1\], got float32\[1\]"),
    ],
)
def test_bounds_decide(got: list, want: list, bounds: dict | None, failure: str | None) -> None:
    result = smoke.judge("sample 0", "y", torch.tensor(got), torch.tensor(want), bounds)
    if failure is None:
        assert result.failure is None
    else:
        assert result.failure is not None
        with pytest.raises(SmokeFailure, match=failure):
            smoke.SmokeReport((result,)).raise_for_failure()
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("want", [torch.ones(3), torch.ones(0), torch.ones(0, dtype=torch.int64)])
def test_every_element_differs_where_data_told_another_size(want: torch.Tensor) -> None:
    metrics = smoke.compare(torch.ones(2, dtype=want.dtype), want)
    assert (metrics.rel_l2, metrics.max_abs, metrics.cosine) == (math.inf, math.inf, 0.0)
    assert metrics.differing == metrics.elements > 0


def test_end_states_are_judged_and_the_worst_is_named() -> None:
    sample = smoke.Sample(
        "forward-0", (torch.ones(2),), {"y": torch.ones(2)}, {"cache": torch.tensor([5, 6])}
    )
    report = smoke.replay(
        lambda one: ([one.inputs[0] * 1.1], {"cache": torch.tensor([5, 7])}), [sample], {}
    )
    assert [c.output for c in report.failed] == ["y", "state cache"]
    with pytest.raises(SmokeFailure, match="2 of 2 outputs wrong, worst is 'state cache' of"):
        report.raise_for_failure()
    assert smoke.replay(lambda i: (i.inputs, {"cache": torch.tensor([5, 6])}), [sample], {}).passed


def test_the_worst_failure_comes_before_a_passed_output_with_a_larger_error() -> None:
    comparisons = [
        smoke.judge("s", "loose", torch.tensor([2.0]), torch.tensor([1.0]), {"rel_l2": 9}),
        smoke.judge("s", "tight", torch.tensor([1.1]), torch.tensor([1.0]), {"rel_l2": 1e-6}),
    ]
    worst = smoke.SmokeReport(tuple(comparisons)).worst
    assert worst is not None
    assert worst.output == "tight"


def test_samples_are_judged_without_tf32() -> None:
    seen = []

    def run(sample: smoke.Sample) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return [torch.ones(1)], {}

    before = torch.backends.cudnn.allow_tf32
    smoke.replay(run, [smoke.Sample("s", (), {"y": torch.ones(1)}, {})], {})
    assert seen == [(False, False)]
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize(
    ("machine", "version", "enabled"),
    [("aarch64", "2.3.1", False), ("aarch64", "2.6.0+cpu", True), ("x86_64", "2.3.1", True)],
)
def test_samples_are_judged_without_old_arms_bfloat16(
    machine: str, version: str, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    seen = []

    def run(sample: smoke.Sample) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        seen.append(bool(torch.backends.mkldnn.enabled))
        return [torch.ones(1)], {}

    smoke.replay(run, [smoke.Sample("s", (), {"y": torch.ones(1)}, {})], {})
    assert seen == [enabled]
    assert bool(torch.backends.mkldnn.enabled)
