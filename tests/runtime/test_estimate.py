# SPDX-License-Identifier: Apache-2.0
"""The least memory a network needs, worked out by hand beside what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runtime.trt_double import controls, double
from trtpack_runtime.dims import dim
from trtpack_runtime.engines import _build
from trtpack_runtime.engines._build import BuildOptions, run
from trtpack_runtime.engines._estimate import (
    available_bytes,
    check_memory,
    least_bytes,
    weight_bytes,
)
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

PIXELS = 8 * 8
PLAIN = dict.fromkeys(("stride_nd", "dilation_nd"), (1, 1))
PLAIN |= dict.fromkeys(("pre_padding", "post_padding"), (0, 0))


def convolved(recorder: Recorder, x: Tensor, maps: int, name: str) -> Tensor:
    """A convolution with a window of one pixel."""
    channels = x.shape[1]
    assert isinstance(channels, int)
    kernel = recorder.constant("HALF", (maps, channels, 1, 1), f"{name}.weight")
    attributes = {"num_output_maps": maps, "kernel_shape": (1, 1), "num_groups": 1, **PLAIN}
    (y,) = recorder.add("convolution_nd", {"input": x, "kernel": kernel}, attributes, name=name)
    return y


def network(*largest: int) -> Network:
    """4 -> 32 -> 16 channels of 8 by 8 pixels with an activation between, a profile a size."""
    recorder = Recorder()
    batch = dim("x", 0) if largest else 2
    x = recorder.input(Tensor("x", "HALF", (batch, 4, 8, 8)))
    y = convolved(recorder, x, 32, "first")
    (y,) = recorder.add("activation", {"input": y}, {"type": "RELU"}, name="relu")
    y = convolved(recorder, y, 16, "second")
    shapes = [((1, 4, 8, 8), (1, 4, 8, 8), (size, 4, 8, 8)) for size in largest]
    return recorder.finish([y.name], [Profile({"x": ranges}) for ranges in shapes])


WEIGHTS = 2 * (32 * 4 + 16 * 32)


def test_weights_count_once_however_often_they_are_read() -> None:
    assert weight_bytes(network()) == WEIGHTS
    recorder = Recorder()
    y = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    for _ in range(3):
        w = recorder.constant("FLOAT", (2, 3), "w")
        (y,) = recorder.add("elementwise", {"input1": y, "input2": w}, {"op": "SUM"}, name="y")
    assert weight_bytes(recorder.finish([y.name])) == 4 * 6


def test_what_convolutions_read_counts_beside_inputs_and_outputs() -> None:
    assert least_bytes(network()) == WEIGHTS + 2 * 2 * PIXELS * (4 + 32 + 16)


def test_the_largest_profile_counts() -> None:
    assert least_bytes(network(1, 16)) == WEIGHTS + 16 * 2 * PIXELS * (4 + 32 + 16)


def test_chains_of_pointwise_layers_cost_nothing() -> None:
    recorder = Recorder()
    y = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    for op in ("EXP", "SQRT", "ABS"):
        (y,) = recorder.add("unary", {"input": y}, {"op": op}, name=op)
    assert least_bytes(recorder.finish([y.name])) == 2 * 4 * 6


def test_a_network_that_cannot_fit_is_refused_in_numbers() -> None:
    made = network(1 << 17)
    needs = WEIGHTS + (1 << 17) * 2 * PIXELS * (4 + 32 + 16)
    check_memory(made, needs)
    message = r"this network needs about 832\.0 MiB, the GPU has 512\.0 MiB"
    with pytest.raises(DeviceError, match=message) as refusal:
        check_memory(made, 1 << 29)
    assert refusal.value.hint.startswith("build for a smaller largest shape")
    with pytest.raises(DeviceError):
        check_memory(made, needs - 1)


def test_an_input_without_a_range_is_left_to_tensorrt() -> None:
    made = network(4)
    open_sizes = Network(made.inputs, made.outputs, made.constants, made.layers, made.tensors)
    assert least_bytes(open_sizes) == WEIGHTS


def test_the_hosts_memory_is_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16 kB\nMemAvailable:   12 kB\n")
    assert available_bytes(tmp_path) == 12 * 1024
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16 kB\n")
    assert available_bytes(tmp_path) == 0


# scratch memory


def scratch(tmp_path: Path, **job: Any) -> int:
    """What a build may take of the pool for scratch memory, on a double."""
    trt = double("10.3")
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    (y,) = recorder.add("unary", {"input": x}, {"op": "EXP"}, name="y")
    (tmp_path / "network.json").write_bytes(recorder.finish([y.name]).to_bytes())
    options = BuildOptions(workspace_bytes=job.pop("workspace_bytes", None)).to_json()
    run(trt, {"weights": [], "options": options, **job}, tmp_path, lambda event: True)
    pool = trt.MemoryPoolType.WORKSPACE
    return int(controls(trt).configs[-1].get_memory_pool_limit(pool))


def test_scratch_memory_is_what_is_asked_for_but_no_more_than_the_gpu_has(tmp_path: Path) -> None:
    assert scratch(tmp_path, workspace_bytes=1 << 20, memory_bytes=1 << 30) == 1 << 20
    assert scratch(tmp_path, workspace_bytes=1 << 40, memory_bytes=1 << 30) == 1 << 30


def test_where_the_gpu_shares_the_hosts_memory_it_is_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = scratch(tmp_path, memory_bytes=1 << 30)
    monkeypatch.setattr(_build, "available_bytes", lambda: 6 << 20)
    assert scratch(tmp_path, memory_bytes=1 << 30, integrated=True) == 3 << 20
    assert scratch(tmp_path, memory_bytes=1 << 30, integrated=False) == default
    assert scratch(tmp_path, integrated=True, workspace_bytes=1 << 20) == 1 << 20
