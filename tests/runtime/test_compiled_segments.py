# SPDX-License-Identifier: Apache-2.0
"""What PyTorch runs between engines, compiled by the machine that runs it."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import handmade
from tests.runtime.command import trtpack
from trtpack_runtime import dims, load
from trtpack_runtime.builders import Site
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.cli.finish import text
from trtpack_runtime.compiling import (
    Source,
    by_reason,
    cannot_compile,
    compile_segment,
    parts,
)
from trtpack_runtime.device import facts
from trtpack_runtime.engines import _inductor_build
from trtpack_runtime.errors import BundleError, EngineBuildError
from trtpack_runtime.finish import Workshop
from trtpack_runtime.finish_bundle import finish_bundle
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.network import Profile, Tensor
from trtpack_runtime.resolve import resolve
from trtpack_runtime.safetensors import write_safetensors
from trtpack_runtime.samples import StoredTensor
from trtpack_runtime.segment_jobs import check_content, segment_job
from trtpack_runtime.tf32 import full_float32
from trtpack_tools.update_weights import update_weights

BATCH = dims.dim("h", 0)
SOURCE = Source(
    handmade.head("h"),
    (
        Tensor("h", "FLOAT", (BATCH, 4)),
        Tensor("scale", "FLOAT", (1,)),
        Tensor("calls", "INT64", ()),
    ),
    Profile({"h": ((1, 4), (2, 4), (8, 4))}),
)
CPU = {"name": "mixed", "kind": "reference", "arch": os.uname().machine, "sm": None}


def write(path: Path, source: Source = SOURCE, target: Mapping[str, Any] = CPU, **ref: Any) -> Path:
    """The classifier as a network and a segment of PyTorch's own, which is to be compiled."""
    engine = {"kind": "inductor", "options": source.options(), **ref}
    if "member" not in ref:
        engine["deferred"] = "left to the device"
    variants = {
        "mixed": {
            "target": dict(target),
            "programs": {"forward": "programs/forward/mixed.json"},
            "engines": {"forward_1": engine},
        }
    }
    return handmade.write(
        path, changes={"variants": variants}, programs={"mixed": handmade.hybrid()}
    )


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):  # a machine that has built nothing
        monkeypatch.setenv(name, str(tmp_path / name))
    return write(tmp_path / "bundle.tar")


def test_options_say_everything_but_the_graph() -> None:
    assert Source.of(SOURCE.graph, SOURCE.options()) == SOURCE
    fixed = Source(SOURCE.graph, SOURCE.inputs)
    assert Source.of(fixed.graph, fixed.options()) == fixed
    digests = {"fc.weight": "0" * 64, "fc.bias": "1" * 64, "other": "2" * 64}
    content = SOURCE.content(digests)
    assert content == SOURCE.content({**digests, "other": "3" * 64})
    assert content != SOURCE.content({**digests, "fc.bias": "3" * 64})
    assert content != fixed.content(digests)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"inputs": []}, "not those of the graph"),
        ({"inputs": 3}, "TypeError"),
        ({"profile": {"h": [[1, 4], [2, 4]]}}, "ValueError"),
    ],
)
def test_malformed_options_are_a_damaged_bundle(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Source.of(SOURCE.graph, {**SOURCE.options(), **change})


def test_text_that_could_be_a_program_is_not_compiled(tmp_path: Path) -> None:
    node = handmade.node("y", "aten.div.Tensor_mode", handmade.value("x"), 2)
    node["kwargs"] = {"rounding_mode": '"); system("true'}
    graph = {"schema": "trtpack.aten/1", "inputs": ["x"], "outputs": ["y"], "nodes": [node]}
    source = Source(graph, (Tensor("x", "FLOAT", (4,)),))
    with pytest.raises(EngineBuildError, match="cannot compile the text"):
        compile_segment(source, [], tmp_path / "out.pt2", Site(facts(), CPU))


GPU = {"name": "NVIDIA H200", "sm": "9.0"}
HERE = {
    "torch": "2.13.0",
    "arch": "x86_64",
    "compiler": {"path": "/usr/bin/g++", "version": "12"},
    "gpus": [GPU],
    "torch_cuda": "13.0",
}


@pytest.mark.parametrize(
    ("changes", "target", "reason"),
    [
        ({}, {"arch": "x86_64", "sm": "9.0"}, None),
        ({"gpus": []}, {"arch": "x86_64", "sm": None}, None),
        ({"torch": None}, {}, "PyTorch is not installed"),
        ({"torch": "2.3.1"}, {}, "PyTorch 2.3.1 cannot compile segments, 2.7 can"),
        ({"compiler": None}, {}, "there is no C++ compiler"),
        ({}, {"arch": "aarch64"}, "this machine is x86_64, not aarch64"),
        ({}, {"sm": "8.7"}, "NVIDIA H200 is SM 9.0, not 8.7"),
        ({"gpus": [], "problems": ["no driver"]}, {"sm": "8.7"}, "no driver"),
        ({"torch_cuda": None}, {"sm": "9.0"}, "PyTorch here cannot use it"),
    ],
)
def test_a_machine_knows_whether_it_can_compile(
    changes: dict[str, Any], target: dict[str, Any], reason: str | None
) -> None:
    assert cannot_compile(Site({**HERE, **changes}, target)) == reason


@pytest.mark.parametrize(("sm", "counts"), [("9.0", True), (None, False)])
def test_what_a_gpu_rounds_convolutions_to_makes_another_engine(
    sm: str | None, counts: bool
) -> None:
    site = Site({**facts(), **HERE}, {"sm": sm})
    usual = parts("content", site)
    with full_float32():
        assert (parts("content", site) != usual) is counts
    assert parts("content", site) == usual


def test_segments_of_one_reason_are_told_together() -> None:
    told = by_reason({"forward_1": "no compiler", "forward_3": "no compiler", "forward_5": "died"})
    assert told == {"no compiler": "forward_1 and 1 more", "died": "forward_5"}


def fits(bundle: Path, here: Mapping[str, Any], untrusted: tuple[str, ...] = ()) -> tuple[str, str]:
    (candidate,) = resolve(open_bundle(bundle).manifest, here, untrusted)
    return candidate.verdict.fit, candidate.engines["forward_1"].fit


def test_what_is_not_compiled_costs_the_variant_nothing(bundle: Path) -> None:
    assert fits(bundle, facts()) == ("works", "rebuild")


def test_other_weights_make_another_engine(bundle: Path, tmp_path: Path) -> None:
    state = handmade.Classifier().state_dict()
    digests = {n: hashlib.sha256(v.numpy().tobytes()).hexdigest() for n, v in state.items()}
    first = write(tmp_path / "first.tar", content=SOURCE.content(digests))
    check_content(segment_job(open_bundle(first), "mixed", "forward_1"))
    new = tmp_path / "new.safetensors"
    changed = {
        name: value + 1 if value.is_floating_point() else value for name, value in state.items()
    }
    write_safetensors(new, [StoredTensor(k, v) for k, v in changed.items()])
    second = update_weights(open_bundle(first), new, tmp_path / "second.tar").bundle
    job = segment_job(second, "mixed", "forward_1")
    check_content(job)
    assert job.content != SOURCE.content(digests)
    lied = write(tmp_path / "lied.tar", content="0" * 64)
    with pytest.raises(BundleError, match="is said to compute 000000000000, what is in it"):
        check_content(segment_job(open_bundle(lied), "mixed", "forward_1"))


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A compiler that refuses everything; the outputs it was asked for."""
    asked: list[Path] = []

    def refuse(graph: Any, weights: Any, inputs: Any, output: Path, **rest: Any) -> Any:
        asked.append(output)
        text = "AOTInductor failed: Loud: at line 1\n  at line 2"
        raise _inductor_build.UncompilableError(text, hint="no hint")

    monkeypatch.setattr(_inductor_build, "build_in_child", refuse)
    return asked


@pytest.mark.parametrize("strict", [False, True])
def test_a_failing_compiler_leaves_it_to_pytorch_with_one_warning(
    bundle: Path, strict: bool, refusing: list[Path]
) -> None:
    with pytest.warns(DegradedWarning) as warned:
        module = load(bundle, strict=strict)
    assert [str(w.message) for w in warned] == [
        "mixed: PyTorch runs forward_1 uncompiled, slower: AOTInductor failed: Loud: at line 1"
    ]
    assert [s.kind for s in module.segments()] == ["reference", "reference"]
    assert module.uncompiled == {"forward_1": "AOTInductor failed: Loud: at line 1"}
    assert not module.degraded
    assert module.smoke().passed
    assert len(refusing) == 1


def test_without_a_cuda_toolkit_no_process_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(environment: Mapping[str, str]) -> Path:
        raise EngineBuildError("no CUDA toolkit", hint="")

    here = Site(facts(), {**CPU, "sm": "9.0"})
    monkeypatch.setattr(_inductor_build, "toolkit", none)
    monkeypatch.setattr(_inductor_build.subprocess, "Popen", None)
    with pytest.raises(EngineBuildError, match="no CUDA toolkit"):
        compile_segment(SOURCE, [], tmp_path / "out.pt2", here)


def test_what_failed_once_is_not_tried_at_every_start(bundle: Path, refusing: list[Path]) -> None:
    with pytest.warns(DegradedWarning, match="at line 1$"):
        load(bundle)
    with pytest.warns(DegradedWarning, match="at line 1; it was tried before$"):
        load(bundle)
    assert len(refusing) == 1
    with pytest.warns(DegradedWarning, match="at line 1$"):
        load(bundle, rebuild=True)
    assert len(refusing) == 2


def test_a_run_tells_what_is_not_compiled(bundle: Path, refusing: list[Path]) -> None:
    told = trtpack("run", bundle, "--no-bench", "--no-build")
    assert told.code == 0, told.err
    assert "PyTorch runs forward_1 uncompiled, slower: not built on this device yet" in told.out
    assert refusing == []


def test_finishing_without_a_compiler_leaves_the_rest_as_it_is(
    bundle: Path, refusing: list[Path], tmp_path: Path
) -> None:
    shop = Workshop(facts(), tmp_path)
    told = text(finish_bundle(open_bundle(bundle), tmp_path / "finished.tar", shop), 1.0)
    assert "mixed: PyTorch runs forward_1 uncompiled: AOTInductor failed: Loud" in told
    assert len(refusing) == 1
    ref = open_bundle(tmp_path / "finished.tar").manifest.variants["mixed"].engines["forward_1"]
    assert (ref.member, ref.deferred) == (None, "left to the device")


@pytest.mark.slow
def test_a_device_compiles_it_at_its_first_run_and_keeps_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DegradedWarning)
        module = load(bundle)
        assert [s.kind for s in module.segments()] == ["reference", "inductor"]
        assert module.smoke().passed
        for size in (1, 2, 5, 8):
            x, scale = torch.randn(size, 4), torch.tensor([0.5])
            with torch.no_grad():
                wanted = handmade.Classifier()(x, scale=scale)
            answer = module(x, scale=scale)
            torch.testing.assert_close(answer["logits"], wanted["logits"])
        assert module.states["calls"] == 4
        again = load(bundle)
    assert not module.own_engines["forward_1"].cached
    assert again.own_engines["forward_1"].cached
    finished = tmp_path / "finished.tar"
    told = trtpack("finish", bundle, "-o", finished)
    assert told.code == 0, told.err
    members = open_bundle(finished).entries
    assert "engines/mixed/forward_1.pt2" in members
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):  # another machine
        monkeypatch.setenv(name, str(tmp_path / "other" / name))
    here = facts()
    assert fits(finished, here) == ("exact", "exact")
    assert fits(finished, here, ("engines/mixed/forward_1.pt2",)) == ("works", "impossible")
    with pytest.warns(DegradedWarning, match="machine code that this machine did not build"):
        distrusted = load(finished, build=False)
    assert [s.kind for s in distrusted.segments()] == ["reference", "reference"]
    assert distrusted.smoke().passed
    trusted = load(finished, build=False, trust=True)
    assert [s.kind for s in trusted.segments()] == ["reference", "inductor"]
    assert trusted.smoke().passed


@pytest.mark.gpu
def test_on_a_gpu_it_is_compiled_and_captured_with_what_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    bundle = write(tmp_path / "bundle.tar", target={**CPU, "sm": facts()["gpus"][0]["sm"]})
    module = load(bundle, device="cuda", cuda_graphs="on")
    assert module.uncompiled == {}
    assert [s.kind for s in module.segments()] == ["reference", "inductor"]
    model = handmade.Classifier()
    for size in (2, 2, 2, 5, 5, 2):
        x, scale = torch.randn(size, 4), torch.tensor([1.5])
        with torch.no_grad():
            wanted = model(x, scale=scale)["logits"]
        answer = module(x.to("cuda"), scale=scale.to("cuda"))["logits"]
        torch.testing.assert_close(answer.cpu(), wanted, rtol=1e-4, atol=1e-4)
    assert module.states["calls"] == 6
    graphs = module._loaded.calls["forward"].graphs
    assert graphs is not None
    assert graphs.refused is None
    assert any(seen.graph is not None for seen in graphs._seen.values())
