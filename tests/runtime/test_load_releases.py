# SPDX-License-Identifier: Apache-2.0
"""Plans read again, refitted and inspected by every release's double."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime.emission import zeros
from tests.runtime.networks import NETWORKS
from tests.runtime.trt_double import controls, double, has, releases
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.engines import _inspect
from trtpack_runtime.engines._build import BuildOptions, build_plan
from trtpack_runtime.engines._contexts import Context, made, scratch_bytes
from trtpack_runtime.engines._load import deserialized, refit
from trtpack_runtime.engines._profiles import Profiles
from trtpack_runtime.errors import BundleError, InputMismatchError
from trtpack_runtime.network import Network
from trtpack_runtime.safetensors import TensorView
from trtpack_runtime.samples import StoredTensor

ALL = tuple(releases())
STRIPS = tuple(
    r for r in ALL if has(r, "BuilderFlag.STRIP_PLAN") and has(r, "BuilderFlag.REFIT_INDIVIDUAL")
)


def network() -> Network:
    return NETWORKS["residual_half_dynamic"]()


def plan_of(trt: Any, **given: Any) -> memoryview:
    """A plan as it lies in a bundle."""
    made = network()
    return memoryview(bytes(build_plan(trt, made, zeros(made), BuildOptions(**given))))


def stored() -> dict[str, TensorView]:
    """The weight store."""
    made = network()
    spelled = {c.data: DTYPES[c.dtype].safetensors for c in made.constants.values()}
    return {
        name: TensorView(name, spelled[name], (len(data) // 2,), memoryview(data))
        for name, data in zeros(made).items()
    }


@pytest.mark.parametrize("release", ALL)
def test_a_plan_is_read(release: str) -> None:
    trt = double(release)
    _, engine, log = deserialized(trt, plan_of(trt))
    assert engine.get_tensor_name(0) == "x"
    assert engine.create_execution_context() is not None
    assert log.errors == []


@pytest.mark.parametrize("release", STRIPS)
def test_a_stripped_plan_is_given_its_weights(release: str) -> None:
    trt = double(release)
    _, engine, log = deserialized(trt, plan_of(trt, weights="stripped"))
    assert engine.create_execution_context() is None
    refit(trt, engine, log, stored())
    assert engine.create_execution_context() is not None


@pytest.mark.parametrize("release", ["8.6", "10.3", "11.1"])
def test_weights_of_a_refittable_plan_are_replaced(release: str) -> None:
    trt = double(release)
    _, engine, log = deserialized(trt, plan_of(trt, weights="refittable"))
    refit(trt, engine, log, stored())
    wrong = stored()
    view = wrong["stem.weight"]
    wrong["stem.weight"] = TensorView(view.name, view.dtype, (1,), memoryview(bytes(2)))
    with pytest.raises(BundleError, match=r"'stem\.weight'"):
        refit(trt, engine, log, wrong)


@pytest.mark.parametrize("release", ["8.6", "10.3", "11.1"])
def test_tensors_in_memory_replace_weights_too(release: str) -> None:
    trt = double(release)
    _, engine, log = deserialized(trt, plan_of(trt, weights="refittable"))
    weights: dict[str, Any] = dict(stored())
    count = len(weights["stem.weight"].buffer) // 2
    weights["stem.weight"] = StoredTensor("stem.weight", torch.ones(count, dtype=torch.float16))
    refit(trt, engine, log, weights)
    assert engine.create_execution_context() is not None
    weights["stem.weight"] = StoredTensor("stem.weight", torch.ones(1, dtype=torch.float16))
    with pytest.raises(BundleError, match=r"'stem\.weight'"):
        refit(trt, engine, log, weights)


def test_weights_the_bundle_lacks_are_told() -> None:
    trt = double("10.3")
    _, engine, log = deserialized(trt, plan_of(trt, weights="stripped"))
    some = stored()
    del some["stem.weight"]
    with pytest.raises(BundleError, match=r"needs 1 weights .* such as 'stem\.weight'"):
        refit(trt, engine, log, some)


@pytest.mark.parametrize("release", ALL)
def test_code_inside_a_plan_needs_trust(release: str) -> None:
    trt = double(release)
    options = BuildOptions(version_compatible=True)
    plan, record = plan_of(trt, version_compatible=True), {"options": options.to_json()}
    with pytest.raises(BundleError, match="machine code") as caught:
        deserialized(trt, plan, record)
    assert "--trust" in str(caught.value.hint)
    assert deserialized(trt, plan, record, trust=True)[1] is not None


def test_a_plan_of_another_tensorrt_is_told() -> None:
    plan = plan_of(double("8.6"))
    with pytest.raises(BundleError) as caught:
        deserialized(double("10.3"), plan, {"tensorrt": "8.6.2"})
    assert "8.6.2" in str(caught.value.wants)
    assert "10.3.0" in str(caught.value.has)


@pytest.mark.parametrize("release", ["8.6", "10.3", "11.1"])
def test_a_truncated_plan_is_told(release: str) -> None:
    trt = double(release)
    with pytest.raises(BundleError, match="cannot read the engine"):
        deserialized(trt, plan_of(trt)[:200])
    with pytest.raises(BundleError, match=r"no plan|damaged"):
        deserialized(trt, memoryview(b"nothing of the kind"))


@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize("release", ALL)
def test_an_engine_is_inspected(release: str, detailed: bool, tmp_path: Path) -> None:
    trt = double(release)
    (tmp_path / _inspect.PLAN).write_bytes(plan_of(trt, detailed=detailed))
    told = _inspect.run(trt, {}, tmp_path, lambda event: True)
    assert [tensor["name"] for tensor in told["tensors"]] == ["x", "head"]
    assert len(told["layers"]) == len(controls(trt).built[0]["layers"])
    assert isinstance(told["layers"][0], dict) == detailed


# execution contexts


@pytest.mark.parametrize("release", ALL)
def test_contexts_share_memory_that_they_are_given(release: str) -> None:
    trt = double(release)
    _, engine, log = deserialized(trt, plan_of(trt))
    size = scratch_bytes(engine)
    assert size == 4096
    for context in (made(engine, log, (1 << 20, size), trt), made(engine, log)):
        context.set_input_shape("x", (2, *tuple(engine.get_tensor_shape("x"))[1:]))
        for index in range(engine.num_io_tensors):
            context.set_tensor_address(engine.get_tensor_name(index), 256)
        assert context.execute_async_v3(7), log.errors


@pytest.mark.parametrize("release", ALL)
def test_shapes_are_told_where_they_changed(release: str) -> None:
    trt = double(release)
    _, engine, log = deserialized(trt, plan_of(trt))
    profiles = Profiles(engine, ["x"])
    (low, high) = profiles.first.ranges[0]
    context = Context(made(engine, log), profiles.first, profiles, ["head"], log, lambda: 256)
    for shape in (low, high):
        context.tell_shapes((shape,))
        assert context.output_shape("head")[0] == shape[0]
    too_large = (high[0] + 1, *high[1:])
    with pytest.raises(InputMismatchError, match="input x: the engine does not take the shape"):
        context.tell_shapes((too_large,))
    assert context.shapes is None
