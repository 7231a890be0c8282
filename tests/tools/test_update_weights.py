# SPDX-License-Identifier: Apache-2.0
"""Other weights in a finished bundle: what follows from them follows, and nothing else changes."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import deferred, starts
from tests.runtime.command import trtpack
from tests.tools.weighted import PLAN, X, answer, network, values, write
from trtpack_runtime import load
from trtpack_runtime import network as networks
from trtpack_runtime.borders import border_of
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.engine_store import content_of
from trtpack_runtime.errors import BundleError, ConfigError, SmokeFailure, TrtpackError
from trtpack_runtime.network import Tensor
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_tools.new_weights import WeightsMismatchError
from trtpack_tools.recorder import Recorder
from trtpack_tools.update_weights import Updated, refit_problem, update_weights


def saved(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    write_safetensors(path, [StoredTensor(name, value) for name, value in state.items()])
    return path


def update(path: Path, state: Mapping[str, torch.Tensor], **given: Any) -> Updated:
    file = saved(path.with_suffix(".safetensors"), state)
    return update_weights(open_bundle(path), file, given.pop("to", path), **given)


def digests(bundle: Bundle) -> dict[str, str]:
    import hashlib

    return {n: hashlib.sha256(v.buffer).hexdigest() for n, v in bundle.weights.items()}


def engine_of(bundle: Bundle, segment: str = "forward_0", variant: str = "h200") -> Any:
    return bundle.manifest.variants[variant].engines[segment]


RECORD = {"tensorrt": "10.3.0", "sm": "9.0", "device": "NVIDIA H200", "os": "linux"} | {
    "arch": "x86_64",
    "options": {},
    "refit": False,
}


@pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")
@pytest.mark.parametrize("target", ["cpu", "h200"])
def test_everything_follows_from_the_new_weights(tmp_path: Path, target: str) -> None:
    path = write(tmp_path / "b.tar")
    updated = update(path, values(1))
    assert set(updated.changed) == set(values())
    assert updated.derived == 2
    loaded = load(path, target=target, build=False)
    torch.testing.assert_close(loaded(X), answer(values(1)))
    for name, value in values(1).items():
        assert torch.equal(loaded.state_dict()[name], value)
    stored = {name: view.tensor() for name, view in updated.bundle.weights.items()}
    assert torch.equal(stored["fc.weight|t"], values(1)["fc.weight"].T)
    assert torch.equal(stored["table"], torch.zeros(3))
    golden = updated.bundle.tensors("golden/forward-0.safetensors")
    assert torch.equal(golden["input.0"].tensor(), X)
    torch.testing.assert_close(golden["output.0"].tensor(), answer(values(1)))
    assert "evaluator of trtpack-runtime" in updated.bundle.manifest.report["golden"]
    assert all(report.passed and report.comparisons for report in updated.reports.values())
    (made,) = [m for m in updated.bundle.entries if m.startswith("networks/")]
    wanted = content_of(networks.from_bytes(updated.bundle.member(made)), digests(updated.bundle))
    assert engine_of(updated.bundle).content == wanted


@pytest.mark.parametrize("weights", ["stripped", "refittable"])
def test_engines_that_can_be_refitted_go_on(tmp_path: Path, weights: str) -> None:
    path = write(tmp_path / "b.tar", record={**RECORD, "weights": weights})
    plan = bytes(open_bundle(path).member(PLAN))
    updated = update(path, values(1), to=tmp_path / "new.tar")
    engine = engine_of(updated.bundle)
    assert engine.record == {**RECORD, "weights": weights, "refit": True}
    assert bytes(updated.bundle.member(PLAN)) == plan
    assert updated.kept[("h200", "forward_0")] == "is refitted when it is loaded"
    assert engine_of(open_bundle(path)).record["refit"] is False


@pytest.mark.parametrize("record", [RECORD, {**RECORD, "weights": "inside"}])
def test_engines_with_weights_inside_are_left_to_the_device(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    updated = update(write(tmp_path / "b.tar", record=record), values(1))
    engine = engine_of(updated.bundle)
    assert engine.deferred == "built with other weights, and it holds them inside"
    assert (engine.member, engine.record) == (None, {})
    assert PLAN not in updated.bundle.entries
    assert updated.dropped[("h200", "forward_0")] == "it holds them inside"


def test_a_compiled_segment_goes_on_unless_a_changed_number_is_in_its_code(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar")
    large = {**values(), "head.weight": values(1)["head.weight"]}
    updated = update(path, large)
    assert updated.kept == {("cpu", "forward_1"): "reads the weights from the bundle"}
    assert bytes(updated.bundle.member("engines/cpu/forward_1.pt2")) == b"machine code"
    small = {**large, "head.scale": torch.tensor([3.0])}
    updated = update(path, small)
    assert updated.dropped == {("cpu", "forward_1"): "holds small weights inside"}
    engine = engine_of(updated.bundle, "forward_1", "cpu")
    assert engine.deferred == "built with other weights, and head.scale is a part of its code"
    assert "engines/cpu/forward_1.pt2" not in updated.bundle.entries


def test_equal_weights_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", record={**RECORD, "weights": "inside"})
    before = open_bundle(path)
    updated = update(path, values())
    assert (updated.changed, updated.derived, updated.kept, updated.dropped) == ((), 0, {}, {})
    assert updated.bundle.entries == before.entries
    assert updated.bundle.manifest.report == before.manifest.report


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar")
    before = path.read_bytes()
    state = {**values(1), "extra": torch.zeros(1), "fc.weight": torch.zeros(4, 3)}
    del state["head.weight"], state["head.scale"]
    with pytest.raises(WeightsMismatchError) as error:
        update(path, state)
    assert error.value.missing == ["head.scale", "head.weight"]
    assert error.value.unexpected == ["extra"]
    assert error.value.mismatched == ["fc.weight is F32[4, 3], wants F32[3, 4]"]
    assert "2 missing: head.scale, head.weight; 1 unexpected: extra; 1 of another" in str(
        error.value
    )
    assert path.read_bytes() == before


def test_other_types_are_converted_where_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar")
    halves = {name: value.half() for name, value in values(1).items()}
    with pytest.raises(WeightsMismatchError) as error:
        update(path, halves)
    assert error.value.hint.startswith("add --cast where only the types differ")
    updated = update(path, halves, cast=True)
    assert updated.bundle.weights["fc.weight"].dtype == "F32"
    torch.testing.assert_close(
        updated.bundle.weights["fc.weight"].tensor(), halves["fc.weight"].float()
    )
    integers = {**values(1), "fc.bias": torch.zeros(3, dtype=torch.int32)}
    with pytest.raises(WeightsMismatchError):
        update(path, integers, cast=True)


TIED = {"a": "head.weight", "b": "head.weight", "fc.weight": "fc.weight"} | {
    "fc.bias": "fc.bias",
    "head.scale": "head.scale",
}


def test_of_tied_weights_one_name_will_do(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", parameters=TIED)
    new = values(1)
    state = {name: new[name] for name in ("fc.weight", "fc.bias", "head.scale")}
    updated = update(path, {**state, "b": new["head.weight"]})
    assert torch.equal(updated.bundle.weights["head.weight"].tensor(), new["head.weight"])
    with pytest.raises(
        BundleError, match=r"cannot give head\.weight another value: [ab] was equal"
    ):
        update(path, {**state, "a": new["head.weight"] + 1, "b": new["head.weight"]})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"recipes": False},
            "head.weight|t another value: the bundle does not tell how it follows",
        ),
        ({"table": "fc.bias"}, "fc.bias another value: the table table was equal to it"),
    ],
)
def test_what_the_bundle_does_not_tell_is_refused(
    tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "b.tar", **given)
    before = path.read_bytes()
    with pytest.raises(BundleError) as error:
        update(path, values(1))
    assert words in error.value.message
    assert path.read_bytes() == before
    if "recipes" in given:
        assert update(path, values()).changed == ()


@pytest.mark.parametrize("what", ["nothing finite", "damaged", "full disk", "wrong engine"])
def test_a_failure_leaves_the_bundle_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = write(tmp_path / "b.tar")
    file = saved(tmp_path / "new.safetensors", values(1))
    wanted: type[TrtpackError] = ConfigError
    if what == "nothing finite":
        saved(file, {**values(), "head.scale": torch.tensor([float("nan")])})
    elif what == "damaged":
        file.write_bytes(file.read_bytes()[:-9])
        wanted = BundleError
    elif what == "full disk":
        monkeypatch.setattr(os, "fsync", _full)
    else:
        monkeypatch.setattr("trtpack_tools.update_weights._check_finite", _spoilt)
        wanted = SmokeFailure
    before = path.read_bytes()
    with pytest.raises(wanted):
        update_weights(open_bundle(path), file, path)
    assert path.read_bytes() == before
    left = {"b.tar", "b.tar.parts", "new.safetensors"}
    assert {entry.name for entry in tmp_path.iterdir()} == left


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _spoilt(method: Any, outputs: Any, states: Any) -> None:
    """What the evaluator computed is not what the loaded bundle will."""
    outputs[0] += 1


def test_a_bundle_keeps_its_permissions(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar")
    path.chmod(0o640)
    update(path, values(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_engine_keeps_its_scales_and_what_they_scale() -> None:
    recorder = Recorder()
    few, scale = recorder.constant("INT8", (2, 4), "few"), recorder.constant("FLOAT", (), "scale")
    operands = {"input": few, "scale": scale}
    (y,) = recorder.add("dequantize", operands, {"output_type": "FLOAT"}, name="y")
    made = recorder.finish([y.name])
    for name in ("few", "scale"):
        told = f"{name} is quantized or a scale, which stays inside engines"
        assert refit_problem(made, frozenset({name}), RECORD) == told


def test_what_an_engine_cannot_be_given_by_name() -> None:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (1, 4)))
    table = recorder.constant("INT32", (1, 2), "table")
    (y,) = recorder.add(
        "gather", {"input": x, "indices": table}, {"mode": "DEFAULT", "axis": 1}, name="y"
    )
    made = recorder.finish([y.name])
    assert refit_problem(made, frozenset(), RECORD) is None
    whole = "table is INT32, which stays inside engines"
    assert refit_problem(made, frozenset({"table"}), RECORD) == whole
    made = network()
    assert refit_problem(made, frozenset({"fc.bias", "fc.weight|t"}), RECORD) is None
    two = replace(made.constants["table"], name="half", dtype="HALF", shape=(1, 6))
    twice = replace(made, constants={**made.constants, "half": two})
    nameless = "table has no name of its own in it"
    assert refit_problem(twice, frozenset({"table"}), RECORD) == nameless
    assert refit_problem(twice, frozenset({"fc.bias"}), RECORD) is None


@pytest.mark.parametrize(
    ("record", "is_widened"),
    [
        ({"tensorrt": "8.6.2.3", "options": {}}, True),
        ({"tensorrt": "10.3.0.30", "options": {"dla_core": 0}}, True),
        ({"tensorrt": "10.3.0.30", "options": {"dla_core": None}}, False),
        ({"tensorrt": "11.1.0", "options": {"dla_core": 0}}, False),
        ({"tensorrt_rtx": "1.7.1"}, False),
    ],
)
def test_widened_weights_stay_inside(record: dict[str, Any], is_widened: bool) -> None:
    recorder = Recorder()
    x, scale = recorder.input(Tensor("x", "HALF", (4,))), recorder.constant("HALF", (), "scale")
    bias = recorder.constant("HALF", (4,), "bias")
    (y,) = recorder.add("elementwise", {"input1": x, "input2": bias}, {"op": "SUM"}, name="y")
    (q,) = recorder.add("quantize", {"input": y, "scale": scale}, {"output_type": "INT8"}, name="q")
    (z,) = recorder.add(
        "dequantize", {"input": q, "scale": scale}, {"output_type": "HALF"}, name="z"
    )
    told = "bias is HALF, which that release has in FLOAT inside" if is_widened else None
    assert refit_problem(recorder.finish([z.name]), frozenset({"bias"}), record) == told


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", record={**RECORD, "weights": "stripped"})
    file = saved(tmp_path / "new.safetensors", values(1))
    found = trtpack("update-weights", path, file, "-o", tmp_path / "new.tar")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0] == "4 of 4 weights changed, 2 derived constants computed anew"
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "h200: forward_0 kept is refitted when it is loaded",
        "cpu: forward_1 left to the device holds small weights inside",
        "✓ cpu computes what the evaluator does",
        "✓ h200 computes what the evaluator does",
    ]
    assert lines[5].startswith(f"wrote {tmp_path}/new.tar, ")
    assert trtpack("verify", tmp_path / "new.tar").code == 0
    shown = trtpack("inspect", tmp_path / "new.tar").out
    assert re.search(r"^  golden +outputs by the evaluator of trtpack-runtime", shown, re.MULTILINE)
    value = json.loads(trtpack("update-weights", path, file, "--json").out)
    assert value["kept"] == [
        {"target": "h200", "segment": "forward_0", "reason": "is refitted when it is loaded"}
    ]
    assert value["proved"]["cpu"][0]["failure"] is None
    again = trtpack("update-weights", path, file, "--quiet")
    assert (again.code, again.out) == (0, "")
    torch.save(values(1), tmp_path / "new.pt")
    saved_by_torch = trtpack("update-weights", path, tmp_path / "new.pt", "-o", tmp_path / "n.tar")
    assert (saved_by_torch.code, saved_by_torch.out) == (2, "")
    assert "is an archive, such as torch.save writes" in saved_by_torch.err
    none = trtpack("update-weights", path, tmp_path / "none.safetensors")
    assert (none.code, "Traceback" in none.err) == (5, False)
    where = trtpack("update-weights", path, file, "-o", tmp_path / "no" / "new.tar")
    assert (where.code, where.err.splitlines()[1]) == (2, "hint: create the folder first")


def test_what_crosses_between_segments_follows(tmp_path: Path) -> None:
    path = starts.write(tmp_path / "engines.tar")
    update(path, {name: value * 2 for name, value in deferred.weights().items()})
    (borders,) = open_bundle(path).manifest.methods["forward"].borders
    assert borders == {"v0": border_of(torch.relu(X @ (deferred.weights()["w0"] * 2)))}


def test_deferred_engines_build_from_the_new_weights(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    path = deferred.write(tmp_path / "rtx.tar")
    state = {name: value * 2 for name, value in deferred.weights().items()}
    update(path, state)
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_DATA_HOME": str(tmp_path / "data")}
    found = trtpack("finish", path, "-o", tmp_path / "finished.tar", env=env)
    assert found.code == 0, found.err
    assert "with 2 engines built here" in found.out
    inside = update(tmp_path / "finished.tar", deferred.weights())
    assert set(inside.dropped) == {("ada", "forward_0"), ("ada", "forward_1")}
    again = trtpack("finish", tmp_path / "finished.tar", "-o", tmp_path / "again.tar", env=env)
    assert "with 2 engines built here" in again.out
    assert "from the store" not in again.out
