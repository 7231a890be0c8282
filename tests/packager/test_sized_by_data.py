# SPDX-License-Identifier: Apache-2.0
"""Whole builds of models whose results are as long as the data says."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trtpack_runtime
from tests.runtime.command import trtpack
from tests.runtime.emission import bytes_of, emitted
from tests.runtime.trt_double import double
from trtpack.capture import capture
from trtpack.convert import ConversionError, convert
from trtpack.converters.refusals import NOT_SIZED_BY_DATA_BEFORE_10
from trtpack.errors import CaptureError
from trtpack.inputs import parse_inputs
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.partition import partition
from trtpack.pipeline import build
from trtpack.report import BuildReport, Progress
from trtpack.sources.torchvision_ops import import_torchvision
from trtpack.target import find_target
from trtpack_runtime import device, reference
from trtpack_runtime import network as networks
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.engines import tensorrt
from trtpack_tools.check import check_network

import_torchvision()
from torchvision.ops import batched_nms, nms  # noqa: E402 after import_torchvision


class Head(nn.Module):
    """The end of a detector: boxes above a score, of those that overlap the best."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.box, self.score, self.threshold = nn.Linear(8, 4), nn.Linear(8, 1), threshold

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        raw = self.box(x)
        low = raw[:, :2]
        boxes = torch.cat([low, low + raw[:, 2:].exp()], 1)
        scores = self.score(x).squeeze(1).sigmoid()
        likely = scores > self.threshold
        boxes, scores = boxes[likely], scores[likely]
        kept = nms(boxes, scores, 0.3)
        return {"boxes": boxes[kept], "scores": scores[kept], "places": likely.nonzero()}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def made(model: nn.Module, path: Path, *targets: str, **options: Any) -> BuildReport:
    torch.manual_seed(0)
    x = torch.randn(40, 8)
    inputs = parse_inputs(["2/40/60x8"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*create_unbacked_symint")  # torchvision's
        chosen = Options(targets=targets, output=path, inputs=inputs, **options)
        return build((model, (x,)), chosen, Progress())


@pytest.mark.parametrize("target", ["orin@jetpack-6.0", "orin@jetpack-6.2", "rtx-4090"])
def test_a_detectors_head_answers_as_the_model_does(tmp_path: Path, target: str) -> None:
    torch.manual_seed(1)
    model = Head().eval()
    report = made(model, tmp_path / "bundle.tar", target)
    kinds = [segment.kind for segment in report.targets[0].segments]
    assert kinds == (["tensorrt"] if target == "orin@jetpack-6.2" else ["tensorrt", "torch"])
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar")
    counts = set()
    for rows in (2, 40, 60):
        x = torch.randn(rows, 8)
        with torch.no_grad():
            wanted, got = model(x), loaded(x)
        counts.add(len(wanted["boxes"]))
        for name in wanted:
            torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert len(counts) == 3


@pytest.mark.gpu
def test_an_engine_answers_as_many_boxes_as_the_model_does(tmp_path: Path) -> None:
    here = device.facts()
    if reason := tensorrt.can_build(here):
        pytest.skip(reason)
    if not find_target("native").tensorrt_at_least("10.0"):
        pytest.skip(NOT_SIZED_BY_DATA_BEFORE_10)
    torch.manual_seed(1)
    model = Head().eval()
    report = made(model, tmp_path / "bundle.tar", "native", strict=True)
    assert [engine.deferred for engine in report.targets[0].engines] == [None]
    loaded = trtpack_runtime.load(tmp_path / "bundle.tar", device="cuda")
    assert not loaded.degraded
    for x in (torch.randn(60, 8), torch.randn(2, 8), torch.randn(40, 8), unlikely(model)):
        with torch.no_grad():
            wanted, got = model(x), loaded(x.cuda())
        for name in wanted:
            torch.testing.assert_close(got[name].cpu(), wanted[name], rtol=1e-4, atol=1e-5)


def unlikely(model: Head) -> torch.Tensor:
    """An input without a box."""
    return -100 * model.score.weight.detach().expand(5, 8)


def test_no_box_at_all_is_an_answer(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Head().eval()
    made(model, tmp_path / "bundle.tar", "orin@jetpack-6.2")
    got = trtpack_runtime.load(tmp_path / "bundle.tar")(unlikely(model))
    assert {name: list(value.shape) for name, value in got.items()} == {
        "boxes": [0, 4],
        "scores": [0],
        "places": [0, 1],
    }


def test_what_is_stored_and_shown_says_which_sizes_are_open(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    torch.manual_seed(1)
    made(Head().eval(), path, "orin@jetpack-6.2")
    bundle = open_bundle(path)
    (name,) = (e.name for e in bundle.manifest.members if e.name.startswith("networks/"))
    network = networks.from_json(bundle.json(name))
    assert set(network.outputs_by_data()) == set(network.outputs)
    shown = trtpack("inspect", path).out.splitlines()
    assert ["out", "boxes", "float", "?x4"] in [line.split() for line in shown]


@pytest.mark.parametrize("likely", [0.3, 0.95, 2.0])
def test_boxes_of_several_classes_are_suppressed_however_many_there_are(likely: float) -> None:
    class Classes(nn.Module):
        def forward(self, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            chosen = x[:, 4] > likely
            boxes, scores, of = x[chosen, :4], x[chosen, 4], classes[chosen]
            return batched_nms(boxes, scores, of, 0.4)

    low, size = torch.rand(1500, 2) * 100, torch.rand(1500, 2) * 40
    x = torch.cat([low, low + size, torch.rand(1500, 1)], 1)
    of = torch.randint(0, 6, (1500,))
    got = answers(Classes(), x, of)
    torch.testing.assert_close(got, [Classes()(x, of)])


def test_suppression_is_torchvisions_own_again_when_a_capture_fails() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found.append(batched_nms.__code__)
            raise RuntimeError("it cannot be captured")

    found: list[Any] = []
    own = batched_nms.__code__
    with pytest.raises(CaptureError):
        capture(Failing(), (torch.zeros(2),))
    assert found[0] is not own
    assert batched_nms.__code__ is own


@pytest.mark.parametrize(
    "of",
    [
        lambda x: torch.arange(x[x > 0].shape[0]) * 2,
        lambda x: x[x > 0].new_ones(x[x > 0].shape[0] + 1),
        lambda x: x[(x > 0).any(1)] @ x.t(),
        lambda x: torch.cat([x[x > 0], x[x < 0]]),
        lambda x: x[x[:, 0] > 0].softmax(0),
        lambda x: torch.where(x > 0),
        lambda x: x[x > 0].sort(),
        lambda x: x.index_put((x > 0,), x[x > 0] * 2),
        lambda x: x[x > 0].topk(torch.sym_min(9, x[x > 0].shape[0])),
        lambda x: (x[(x > 0).any(1)] > 0).int().sort(0, descending=True)[0],
    ],
    ids=[
        "arange",
        "ones",
        "matmul",
        "cat",
        "softmax",
        "where",
        "sort",
        "put",
        "topk",
        "sort whole",
    ],
)
def test_layers_behind_read_such_a_size_as_any_other(of: Callable[..., Any]) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return of(x)

    x = torch.randn(5, 7)
    wanted = of(x)
    got = answers(Model(), x)
    torch.testing.assert_close(got, [wanted] if torch.is_tensor(wanted) else [*wanted])


def test_more_elements_than_can_be_compared_stay_in_pytorch() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0].sort()[0]

    with pytest.raises(ConversionError, match="takes up to 400000000 steps"):
        answers(Model(), torch.randn(20000))


def answers(model: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The evaluator's, of a model that is one network, which TensorRT 10.3's double takes."""
    target = find_target("orin@jetpack-6.2")
    captured = lower(capture(model, inputs)).captured
    (segment,) = partition(captured.graph_module, target).segments
    made = convert(segment.graph_module, target, captured.ranges)
    check_network(made.network)
    emitted(double("10.3"), made.network, bytes_of(made.constants))
    return reference.evaluate(made.network, made.constants, inputs)
