# SPDX-License-Identifier: Apache-2.0
"""Every build option against every release: set where the release has it, else refused in words."""

from __future__ import annotations

import errno
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.emission import zeros
from tests.runtime.networks import NETWORKS
from tests.runtime.trt_double import RELEASES, controls, double, has, releases
from trtpack_runtime.engines import _build
from trtpack_runtime.engines._build import BuildOptions, build_plan, prepare, write_plan
from trtpack_runtime.engines._timing import entries_of, tactics_of
from trtpack_runtime.errors import DeviceError, EngineBuildError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

ALL = tuple(releases())
PLAIN = tuple(release for release in ALL if not release.startswith("rtx"))
LOCKS = tuple(release for release in PLAIN if release != "8.6")
EDITABLE = tuple(r for r in PLAIN if has(r, "BuilderFlag.EDITABLE_TIMING_CACHE"))


@dataclass(frozen=True)
class Option:
    """An option; ``needs`` are the names a release must have, ``shows`` what a build is told.

    ``word`` is how a refusal calls it.
    """

    given: Mapping[str, Any]
    shows: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    word: str = ""

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.given.items())


OPTIONS = (
    Option({"optimization_level": 5}, {"options": {"builder_optimization_level": 5}}),
    Option({"avg_timing_iterations": 8}, {"options": {"avg_timing_iterations": 8}}),
    Option({"workspace_bytes": 1 << 20}, {"pools": {"WORKSPACE": 1 << 20}}),
    Option({"pools": {"DLA_MANAGED_SRAM": 1 << 20}}, {"pools": {"DLA_MANAGED_SRAM": 1 << 20}}),
    Option(
        {"pools": {"TACTIC_SHARED_MEMORY": 1 << 15}},
        {"pools": {"TACTIC_SHARED_MEMORY": 1 << 15}},
        ("MemoryPoolType.TACTIC_SHARED_MEMORY",),
        "TACTIC_SHARED_MEMORY",
    ),
    Option({"tf32": True}, {"flags": {"TF32"}}),
    Option({"weights": "refittable"}, {"refits": True}),
    Option(
        {"weights": "stripped"},
        {"flags": {"STRIP_PLAN", "REFIT_INDIVIDUAL"}, "refits": True},
        ("BuilderFlag.STRIP_PLAN", "BuilderFlag.REFIT_INDIVIDUAL"),
        "without weights",
    ),
    Option({"version_compatible": True}, {"flags": {"VERSION_COMPATIBLE"}}),
    Option(
        {"hardware_compatibility": "AMPERE_PLUS"},
        {"options": {"hardware_compatibility_level": "AMPERE_PLUS"}},
    ),
    Option(
        {"hardware_compatibility": "SAME_COMPUTE_CAPABILITY"},
        {"options": {"hardware_compatibility_level": "SAME_COMPUTE_CAPABILITY"}},
        ("HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",),
        "SAME_COMPUTE_CAPABILITY",
    ),
    Option({"sparse": True}, {"flags": {"SPARSE_WEIGHTS"}}),
    Option(
        {"dla_core": 1},
        {"flags": {"GPU_FALLBACK"}, "options": {"DLA_core": 1, "default_device_type": "DLA"}},
    ),
    Option(
        {"debug": ("block.conv", "head")},
        {"debug": ["block.conv", "head"]},
        ("INetworkDefinition.mark_debug",),
        "debug tensors",
    ),
    Option({"detailed": True}, {"options": {"profiling_verbosity": "DETAILED"}}),
    Option({"flags": ("DIRECT_IO", "DEBUG")}, {"flags": {"DIRECT_IO", "DEBUG"}}),
    Option(
        {"flags": ("STRICT_NANS",)},
        {"flags": {"STRICT_NANS"}},
        ("BuilderFlag.STRICT_NANS",),
        "NANS",
    ),
    Option(
        {"compute_capabilities": ("SM89", "SM120")},
        {"capabilities": ["SM89", "SM120"]},
        ("ComputeCapability.SM89",),
        "GPUs to build for",
    ),
)
REFITS = {"REFIT", "REFIT_INDIVIDUAL"}


@cache
def network() -> Network:
    return NETWORKS["residual_half_dynamic"]()


def built(trt: Any, made: Network | None = None, **given: Any) -> dict[str, Any]:
    """What a build was told."""
    made = made or network()
    build_plan(trt, made, zeros(made), BuildOptions(**given))
    record: dict[str, Any] = controls(trt).built[-1]
    return record


@cache
def unasked(release: str) -> dict[str, Any]:
    """What a build without any option is told."""
    return built(double(release))


@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("release", ALL)
def test_an_option_is_set_or_refused_in_words(release: str, option: Option) -> None:
    trt = double(release)
    controls(trt).dla_cores = 2
    if not all(has(release, name) for name in option.needs):
        with pytest.raises(EngineBuildError, match=option.word) as caught:
            built(trt, **option.given)
        assert trt.__version__ in str(caught.value)
        assert not controls(trt).built
        return
    usual, record = unasked(release), built(trt, **option.given)
    for name, wanted in option.shows.items():
        if name == "refits":
            assert REFITS & set(record["flags"])
        elif isinstance(wanted, dict):
            assert wanted.items() <= record[name].items()
            assert not wanted.items() <= usual[name].items()
        elif isinstance(wanted, set):
            assert wanted <= set(record[name])
            assert not wanted & set(usual[name])
        else:
            assert record[name] == wanted != usual[name]


def test_every_option_is_tried() -> None:
    tried = {name for option in OPTIONS for name in option.given}
    assert tried | {"locked"} == {field.name for field in fields(BuildOptions)}


@pytest.mark.parametrize("release", ALL)
def test_nothing_is_set_that_nobody_asked_for(release: str) -> None:
    record = unasked(release)
    flags = {"FP16", "OBEY_PRECISION_CONSTRAINTS"} if release == "8.6" else set()
    flags |= {"EDITABLE_TIMING_CACHE"} if release in EDITABLE else set()
    assert set(record["flags"]) == flags
    assert record["options"] == {}
    assert set(record["pools"]) == {"WORKSPACE"}


@pytest.mark.parametrize("release", [r for r in PLAIN if r.startswith(("8.", "10."))])
def test_a_dla_before_11_takes_types_layer_by_layer(release: str) -> None:
    trt = double(release)
    controls(trt).dla_cores = 1
    record = built(trt, dla_core=0)
    assert "STRONGLY_TYPED" not in record["creation"]
    assert {"FP16", "OBEY_PRECISION_CONSTRAINTS", "GPU_FALLBACK"} <= set(record["flags"])
    assert [tensor["dtype"] for tensor in record["outputs"]] == ["HALF"]
    with pytest.raises(DeviceError, match=r"there is no DLA core 3: TensorRT .* sees 1 here"):
        built(trt, dla_core=3)


def test_8_6_refits_no_version_compatible_engine() -> None:
    with pytest.raises(EngineBuildError, match=r"8\.6\.2 cannot refit version-compatible engines"):
        built(double("8.6"), version_compatible=True, weights="refittable")
    record = built(double("10.3"), version_compatible=True, weights="refittable")
    assert {"VERSION_COMPATIBLE", "REFIT_INDIVIDUAL"} <= set(record["flags"])


@pytest.mark.parametrize("release", ALL)
def test_every_weight_can_be_replaced_by_its_name(release: str) -> None:
    trt, made = double(release), network()
    record = built(trt, made, weights="refittable")
    stored = {constant.data for constant in made.constants.values()}
    assert set(record["weights"]) == stored
    if has(release, "INetworkDefinition.mark_weights_refittable"):
        assert set(controls(trt).networks[-1]._refittable) == stored


def test_scales_and_what_they_scale_stay_inside() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (4, 4)))
    few = recorder.constant("INT8", (4, 4), "few")
    scale, bias = recorder.constant("FLOAT", (4,), "scale"), recorder.constant("FLOAT", (1, 4), "b")
    scaled = {"input": few, "scale": scale}
    (w,) = recorder.add("dequantize", scaled, {"output_type": "FLOAT", "axis": 0}, name="w")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": w}, {"op": "PROD"}, name="y")
    (z,) = recorder.add("elementwise", {"input1": y, "input2": bias}, {"op": "SUM"}, name="z")
    trt = double("10.16")
    built(trt, recorder.finish([z.name]), weights="refittable")
    assert set(controls(trt).networks[-1]._refittable) == {"b"}


def test_a_value_tensorrt_refuses_is_told_with_its_words() -> None:
    trt = double("10.3")
    with pytest.raises(EngineBuildError, match=r"setBuilderOptimizationLevel: 9 is none of 0 to 5"):
        built(trt, optimization_level=9)
    with pytest.raises(EngineBuildError, match=r"DLA_MANAGED_SRAM must be a power of 2"):
        built(trt, pools={"DLA_MANAGED_SRAM": 1000})
    with pytest.raises(EngineBuildError, match=r"10\.3\.0 .*FASTER"):
        built(trt, flags=("FASTER",))
    assert not controls(trt).built


# profiles


@pytest.mark.parametrize("release", RELEASES)
def test_every_profile_is_given(release: str) -> None:
    record = built(double(release), NETWORKS["two_profiles"]())
    assert record["profiles"] == [
        {"x": [[1, 1], [1, 8], [1, 16]]},
        {"x": [[1, 1], [8, 64], [32, 128]]},
    ]


@pytest.mark.parametrize("release", ALL)
def test_a_profile_serves_several_contexts(release: str) -> None:
    """Since 10.0 always."""
    for is_open in (True, False):
        trt, network = double(release), NETWORKS["two_profiles"]()
        if not is_open:
            recorder = Recorder()
            x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
            (y,) = recorder.add("unary", {"input": x}, {"op": "ABS"}, name="abs")
            network = recorder.finish([y.name], [Profile({})])
        build_plan(trt, network, zeros(network), BuildOptions())
        wanted = ["PROFILE_SHARING_0806"] if release == "8.6" and is_open else []
        assert controls(trt).built[0]["previews"] == wanted


def test_ranges_out_of_order_are_told() -> None:
    recorder = Recorder()
    made = network()
    recorder.input(made.inputs[0])
    turned = Profile({"x": ((4, 3, 32, 32), (2, 3, 32, 32), (8, 3, 32, 32))})
    wrong = Network(made.inputs, made.outputs, made.constants, made.layers, made.tensors, (turned,))
    with pytest.raises(EngineBuildError, match=r"refused the shapes .* of x"):
        built(double("10.3"), wrong)


def test_an_open_size_without_a_profile_is_told() -> None:
    made = network()
    bare = Network(made.inputs, made.outputs, made.constants, made.layers, made.tensors)
    with pytest.raises(EngineBuildError, match="dynamic input x, but no profile"):
        built(double("8.6"), bare)


# progress, streams


@pytest.mark.parametrize("release", ALL)
def test_progress_is_told_where_the_release_tells_it(release: str) -> None:
    trt, made, events = double(release), network(), []

    def on_progress(event: Mapping[str, Any]) -> bool:
        events.append(event)
        return True

    build_plan(trt, made, zeros(made), BuildOptions(), on_progress)
    if not has(release, "IProgressMonitor"):
        assert events == []
        return
    assert (events[0]["phase"], events[0]["parent"]) == ("Building Engine", None)
    assert (events[1]["phase"], events[1]["parent"]) == ("Timing", "Building Engine")
    assert events[-1]["step"] == events[-1]["steps"] > 1


def test_a_step_answered_with_false_cancels() -> None:
    trt, made = double("10.3"), network()
    with pytest.raises(EngineBuildError, match="cancelled by the progress monitor"):
        build_plan(trt, made, zeros(made), BuildOptions(), lambda event: event["step"] < 2)
    assert not controls(trt).built


@pytest.mark.parametrize("release", ALL)
def test_a_plan_is_streamed_where_the_release_can(release: str) -> None:
    trt, made, file = double(release), network(), io.BytesIO()
    emitted, config = prepare(trt, made, zeros(made), BuildOptions())
    size = write_plan(made, emitted, config, file)
    assert size == len(file.getvalue()) > 100
    assert file.getvalue().startswith(b"ftrt")
    assert controls(trt).streamed == has(release, "IStreamWriter")


class Full(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("release", RELEASES)
def test_a_full_disk_is_the_systems_error(release: str) -> None:
    made = network()
    emitted, config = prepare(double(release), made, zeros(made), BuildOptions())
    with pytest.raises(OSError, match="No space left"):
        write_plan(made, emitted, config, Full())


# timing caches


def tuned(trt: Any, tactics: bytes | None, **given: Any) -> tuple[bytes | None, Any]:
    """A build's timing cache afterwards, and what can be read of it."""
    made = network()
    emitted, config = prepare(trt, made, zeros(made), BuildOptions(**given), tactics=tactics)
    write_plan(made, emitted, config, io.BytesIO())
    return tactics_of(trt, config), entries_of(trt, config)


@pytest.mark.parametrize("release", PLAIN)
def test_known_tactics_are_not_measured_again(release: str) -> None:
    trt = double(release)
    first, entries = tuned(trt, None)
    measured = controls(trt).measured
    assert measured > 3
    again, _ = tuned(trt, first)
    assert controls(trt).measured == measured
    assert again == first
    if release not in EDITABLE:
        assert entries is None
        return
    assert len(entries) == measured
    assert {"key", "tactic", "time_ms"} <= set(entries[0])
    assert int(entries[0]["tactic"], 16) >= 0
    names = {layer.name for layer in network().layers}
    assert {entry["layer"] for entry in entries} & names


@pytest.mark.parametrize("release", PLAIN)
@pytest.mark.parametrize("tactics", [b"no timing cache", "another GPU"])
def test_a_cache_that_does_not_fit_costs_only_time(release: str, tactics: bytes | str) -> None:
    trt, other = double(release), double(release)
    controls(other).device = "another GPU"
    blob = tactics if isinstance(tactics, bytes) else tuned(other, None)[0]
    made = network()
    emitted, config = prepare(trt, made, zeros(made), BuildOptions(), tactics=blob)
    (warning,) = (m.text for m in emitted.log.messages if m.severity == "WARNING")
    assert "measuring anew" in warning
    assert emitted.log.errors == []
    write_plan(made, emitted, config, io.BytesIO())
    assert controls(trt).measured > 3


@pytest.mark.parametrize("release", LOCKS)
def test_locked_takes_no_tactic_that_is_not_known(release: str) -> None:
    trt = double(release)
    known, _ = tuned(trt, None)
    assert tuned(trt, known, locked=True)[0] == known
    assert "ERROR_ON_TIMING_CACHE_MISS" in controls(trt).built[-1]["flags"]
    with pytest.raises(EngineBuildError, match="there is no timing cache"):
        tuned(trt, None, locked=True)
    with pytest.raises(EngineBuildError, match="the timing cache is damaged"):
        tuned(trt, b"no timing cache", locked=True)
    made = NETWORKS["residual"]()
    emitted, config = prepare(trt, made, zeros(made), BuildOptions(locked=True), tactics=known)
    with pytest.raises(EngineBuildError, match="Timing cache miss") as caught:
        write_plan(made, emitted, config, io.BytesIO())
    assert caught.value.hint.startswith("build once without --locked")


@pytest.mark.parametrize("release", ["8.6", "rtx-1.7"])
def test_a_release_that_cannot_lock_says_so(release: str) -> None:
    with pytest.raises(EngineBuildError, match=r"timing cache"):
        tuned(double(release), None, locked=True)


def test_tensorrt_rtx_has_no_timing_cache() -> None:
    assert tuned(double("rtx-1.7"), b"anything") == (None, None)


def test_what_8_6_says_of_its_own_caches_is_no_error() -> None:
    trt = double("8.6")
    known, _ = tuned(trt, None)
    assert known is not None
    made, refused = NETWORKS["residual"](), []
    emitted, _ = prepare(
        trt,
        made,
        zeros(made),
        BuildOptions(),
        tactics=known,
        on_refused_tactics=refused.append,
    )
    assert (refused, emitted.log.errors) == ([], [])
    assert "Myelin error" in emitted.log.tail()[-1]
    measured = controls(trt).measured
    assert tuned(trt, known)[0] == known
    assert controls(trt).measured == measured


# the worker's task


@pytest.mark.parametrize("release", RELEASES)
def test_the_workers_task_leaves_plan_and_tactics(release: str, tmp_path: Path) -> None:
    trt = double(release)
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (2, 3)))
    (y,) = recorder.add("unary", {"input": x}, {"op": "EXP"}, name="y", origin="net.py:1")
    (tmp_path / "network.json").write_bytes(recorder.finish([y.name]).to_bytes())
    job = {"weights": [], "options": BuildOptions(optimization_level=1).to_json()}
    result = _build.run(trt, job, tmp_path, lambda event: True)
    assert result["plan_bytes"] == (tmp_path / _build.PLAN).stat().st_size
    assert controls(trt).built[0]["options"] == {"builder_optimization_level": 1}
    tactics = (tmp_path / _build.TACTICS_OUT).read_bytes()
    (tmp_path / _build.TACTICS_IN).write_bytes(tactics)
    measured = controls(trt).measured
    again = _build.run(trt, job, tmp_path, lambda event: True)
    assert controls(trt).measured == measured
    assert again["entries"] == result["entries"]
    assert (result["entries"] is None) == (release not in EDITABLE)
