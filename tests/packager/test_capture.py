# SPDX-License-Identifier: Apache-2.0
"""What capture answers: inputs, outputs, state, ranges, and errors in the user's words."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.export import Dim

from trtpack.capture import capture
from trtpack.errors import CaptureError
from trtpack.options import SizeRange
from trtpack.user_code import user_line
from trtpack_runtime.tf32 import full_float32


class Counter(nn.Module):
    """Counts its calls in a buffer, and answers a nest of tensors and literals."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("table", torch.ones(3), persistent=False)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor | None = None) -> dict[str, object]:
        self.calls.add_(1)
        y = self.linear(x) + self.table.sum()
        return {"y": y if scale is None else y * scale, "n": x.shape[0], "three": 3, "same": x}


class BranchOnData(nn.Module):
    """Cannot be exported: a Python branch on a tensor's value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_parameters_are_read_by_their_full_names() -> None:
    captured = capture(Counter().eval(), (torch.ones(3, 4),))
    read = {str(n.target) for n in captured.graph_module.graph.nodes if n.op == "get_attr"}
    assert read == {"linear.weight", "linear.bias", "table"}
    assert captured.parameters == ("linear.weight", "linear.bias")
    assert captured.buffers == ("calls",)


def test_a_mutated_buffer_becomes_a_state_slot() -> None:
    captured = capture(Counter().eval(), (torch.ones(3, 4),))
    (state,) = captured.state
    assert (state.slot, state.output) == ("calls", 0)
    placeholders = [n.name for n in captured.graph_module.graph.nodes if n.op == "placeholder"]
    assert state.input in placeholders


def test_outputs_that_are_no_tensors_are_literals() -> None:
    captured = capture(Counter().eval(), (torch.ones(3, 4),))
    assert captured.outputs == (1, {"constant": 3}, {"constant": 3}, 2)


def test_keyword_inputs_are_flat_inputs_too() -> None:
    captured = capture(Counter().eval(), (torch.ones(3, 4),), {"scale": torch.ones(1)})
    assert captured.inputs == ("x", "scale")


def test_a_dynamic_dim_keeps_the_declared_range() -> None:
    batch = Dim("batch", min=1, max=8)
    captured = capture(
        Counter().eval(),
        (torch.ones(3, 4),),
        dynamic_shapes={"x": {0: batch}},
        ranges={(0, 0): SizeRange(1, 4, 8)},
    )
    assert list(captured.ranges.values()) == [SizeRange(1, 4, 8)]
    size = captured.outputs[1]
    assert isinstance(size, dict)
    assert isinstance(size["size"], torch.SymInt)


def test_a_range_that_export_narrows_is_cut() -> None:
    batch = Dim("batch", min=2, max=6)
    captured = capture(
        nn.Linear(4, 2).eval(),
        (torch.ones(3, 4),),
        dynamic_shapes={"input": {0: batch}},
        ranges={(0, 0): SizeRange(1, 4, 8)},
    )
    assert list(captured.ranges.values()) == [SizeRange(2, 4, 6)]


def test_operators_tensorrt_has_whole_stay_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()).eval()
    graph = capture(model, (torch.ones(2, 4),)).graph_module.graph
    operators = [str(n.target) for n in graph.nodes if n.op == "call_function"]
    assert operators == ["aten.linear.default", "aten.layer_norm.default", "aten.gelu.default"]


class Telling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("here", file=sys.stderr)
        return x + 1


def test_what_the_model_prints_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    capture(Telling(), (torch.ones(3),))
    assert "here" in capfd.readouterr().err


def test_the_error_shows_the_users_line_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CaptureError) as caught, caplog.at_level("INFO", "trtpack"):
        capture(BranchOnData(), (torch.ones(3),))
    assert capfd.readouterr() == ("", "")
    assert "def forward(self" in caplog.text  # torch.export's graph
    assert "test_capture.py" in str(caught.value)
    assert "if x.sum() > 0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "torch.cond" in caught.value.hint


def test_user_line_skips_torchs_own_frames() -> None:
    trace = (
        'File "/home/me/model.py", line 12, in forward\n    x = self.conv(x)\n'
        'File "/usr/lib/torch/nn/modules/conv.py", line 565, in forward\n    return 1\n'
    )
    assert user_line(trace) == "model.py:12"
    assert user_line("") == ""


def test_a_dynamic_dim_without_a_declared_maximum_ends_at_the_sample() -> None:
    batch = torch.export.Dim.DYNAMIC
    found = capture(nn.ReLU(), (torch.ones(3, 4),), dynamic_shapes=({0: batch},)).ranges
    assert [r.values for r in found.values()] == [(2, 3, 3)]


@pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="it came with PyTorch 2.9"
)
@pytest.mark.parametrize("recurrent", [True, False])
def test_a_program_may_say_what_convolutions_are_rounded_to(recurrent: bool) -> None:
    model, x = nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8)
    cudnn = torch.backends.cudnn
    with full_float32(), torch.no_grad():  # what the test sets is forgotten with it
        cudnn.allow_tf32 = recurrent
        cudnn.conv.fp32_precision = "ieee"
        (answer,) = capture(model, (x,)).graph_module(x)
        assert cudnn.conv.fp32_precision == "ieee"
        torch._dynamo.reset()
        answered = torch.compile(model, backend="trtpack", options={"engine": "reference"})(x)
        assert cudnn.conv.fp32_precision == "ieee"
    torch.testing.assert_close(answer, model(x))
    torch.testing.assert_close(answered, model(x))
