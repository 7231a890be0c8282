# SPDX-License-Identifier: Apache-2.0
"""What TensorRT is told for a target, and what is refused before anything is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.packager.machines import facts
from trtpack.engine_options import (
    build_options,
    check_debug_tensors,
    check_engine_options,
    debug_tensors,
)
from trtpack.options import InputSpec, Options
from trtpack.target import find_target
from trtpack.target.native import native_target
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.network import Tensor
from trtpack_tools.recorder import Recorder

GIB = 1 << 30


def check(target: str, *others: str, **options: Any) -> None:
    names = (target, *others)
    chosen = Options(targets=names, **options)
    check_engine_options(chosen, [find_target(name) for name in names])


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("orin@jetpack-6.0", {"engine_weights": "stripped"}, r"10\.2 has it, .*jetpack-6\.0"),
        ("rtx-4090", {"engine_weights": "stripped"}, "TensorRT-RTX hold their weights"),
        ("rtx-4090", {"version_compatible": True}, "no lean runtime"),
        (
            "orin@jetpack-6.0",
            {"version_compatible": True, "engine_weights": "refittable"},
            "not with --engine-weights",
        ),
        ("orin", {"hardware_compatible": "same-sm"}, r"TensorRT 10\.9 has it"),
        ("orin", {"hardware_compatible": "ampere+"}, "Jetsons"),
        ("t4", {"hardware_compatible": "ampere+"}, r"SM 7\.5 is older"),
        ("rtx-4090", {"hardware_compatible": "ampere+"}, "names its GPUs"),
        ("orin", {"dla_core": 2}, "DLA cores 0 to 1"),
        ("orin@jetpack-7.2", {"dla_core": 0}, r"jetpack-7\.2 cannot use its DLA, .*jetpack-6\.2"),
        ("h200", {"dla_core": 0}, r"it has no DLA, which .*orin.*\(source: https"),
        ("thor", {"dla_core": 0}, r"it has no DLA, .*work-with-dla\.html, 2026"),
        ("orin", {"engine": "tensorrt-rtx"}, r"not TensorRT-RTX 1\.7 .*\(source: "),
        ("h100", {"engine": "tensorrt-rtx"}, r"it serves SM 7\.5, .* is SM 9\.0 \(source: "),
        ("cpu", {"engine": "tensorrt"}, "it has no TensorRT"),
        ("orin@jetpack-6.0", {"debug_tensors": ("*",)}, r"10\.0 has it"),
        ("orin@jetpack-6.0", {"locked": True}, r"10\.0 has it"),
        ("rtx-4090", {"locked": True}, "keeps no cache"),
        ("rtx-4090", {"tactics": Path("timing.cache")}, "keeps no cache"),
    ],
)
def test_what_a_target_lacks_is_said_at_once(
    target: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(target, **options)
    assert target in str(caught.value)
    assert "--" in caught.value.hint


def test_what_this_machine_lacks_needs_no_source() -> None:
    options = Options(targets=("native",), dla_core=0)
    with pytest.raises(ConfigError, match=r"for native: it has no DLA, which [^(]* have$"):
        check_engine_options(options, (native_target(facts()),))


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("orin", {"engine_weights": "stripped", "dla_core": 1, "locked": True}),
        ("orin@jetpack-6.0", {"engine_weights": "refittable", "sparse": True}),
        ("h200", {"hardware_compatible": "same-sm", "version_compatible": True}),
        ("h200@tensorrt-10.13", {"hardware_compatible": "ampere+", "debug_tensors": ("*",)}),
        ("rtx-4090", {"sparse": True, "avg_timing_iterations": 4}),
    ],
)
def test_what_it_has_is_let_through(target: str, options: dict[str, Any]) -> None:
    check(target, "cpu", **options)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"sparse": True}, "--sparse"),
        ({"profiles": ((InputSpec("x", (1,)),),)}, "--profile"),
        ({"dla_core": 0}, "--dla-core"),
    ],
)
def test_what_no_target_heeds_is_refused(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} is for TensorRT"):
        check("cpu", **options)


def test_tensorrt_rtx_beside_tensorrt_keeps_what_it_must() -> None:
    options: dict[str, Any] = {"engine_weights": "stripped", "locked": True}
    check("rtx-4090", "orin", **options)
    told = build_options(Options(targets=(), **options), find_target("rtx-4090"))
    assert (told.weights, told.locked) == ("inside", False)


def test_each_option_reaches_tensorrt() -> None:
    target = dataclasses.replace(find_target("orin"), memory_bytes=64 * GIB)
    options = Options(
        targets=("orin",),
        optimization_level=4,
        avg_timing_iterations=8,
        engine_weights="stripped",
        version_compatible=True,
        hardware_compatible="same-sm",
        sparse=True,
        dla_core=1,
        locked=True,
    )
    told = build_options(options, target)
    assert (told.optimization_level, told.avg_timing_iterations) == (4, 8)
    assert (told.weights, told.version_compatible, told.sparse) == ("stripped", True, True)
    assert told.hardware_compatibility == "SAME_COMPUTE_CAPABILITY"
    assert (told.dla_core, told.locked, told.compute_capabilities) == (1, True, ())


@pytest.mark.parametrize(
    ("target", "given", "wanted"),
    [("orin", None, 16 * GIB), ("h200", None, 141 * GIB // 2), ("orin", GIB, GIB)],
)
def test_the_workspace_is_a_part_of_the_targets_memory(
    target: str, given: int | None, wanted: int
) -> None:
    options = Options(targets=(target,), workspace_bytes=given)
    assert build_options(options, find_target(target)).workspace_bytes == wanted


def test_debug_tensors_are_names_of_the_network() -> None:
    recorder = Recorder()
    value = recorder.input(Tensor("x", "FLOAT", (2,)))
    for name in ("a/relu", "a.b/relu", "c/relu"):
        (value,) = recorder.add("activation", {"input": value}, {"type": "RELU"}, name=name)
        (value,) = recorder.add("activation", {"input": value}, {"type": "TANH"}, name=name)
    network = recorder.finish([value.name])
    options = Options(targets=("orin@jetpack-6.2",), debug_tensors=("a*",))
    found = ("a/relu", "a/relu.2", "a.b/relu", "a.b/relu.2")
    assert debug_tensors(options, network) == found
    assert build_options(options, find_target("orin"), network).debug == found
    check_debug_tensors(options, [network])
    hints = {"b/relu": "did you mean --debug-tensors 'a.b/relu'?", "1": "name layers as trtpack"}
    for pattern, hint in hints.items():
        misspelt = dataclasses.replace(options, debug_tensors=("c*", pattern))
        with pytest.raises(ConfigError, match=f"'{pattern}' matches no tensor within") as error:
            check_debug_tensors(misspelt, [network])
        assert hint in error.value.hint
