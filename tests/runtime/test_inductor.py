# SPDX-License-Identifier: Apache-2.0
"""Segments compiled by AOTInductor: weights stay mapped, sizes stay dynamic, failures are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime import handmade
from tests.runtime.command import trtpack
from trtpack_runtime import ledger, load
from trtpack_runtime.engines import LoadContext, inductor
from trtpack_runtime.engines import _inductor_build as inductor_build
from trtpack_runtime.errors import BundleError, EngineBuildError, InputMismatchError
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.network import Profile, Tensor
from trtpack_runtime.safetensors import open_safetensors, write_safetensors
from trtpack_runtime.samples import StoredTensor

pytestmark = pytest.mark.slow
"""Each compiles C++, or starts what does."""


@dataclass
class Built:
    weights: Path
    package: Path
    record: dict[str, Any]

    def context(self) -> LoadContext:
        constants = {k: v.tensor() for k, v in open_safetensors(self.weights).items()}
        segment = handmade.one_segment().segments[0]
        return LoadContext(segment, constants, torch.device("cpu"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("inductor")
    weights, package = folder / "w.safetensors", folder / "forward_0.pt2"
    state = handmade.Classifier().state_dict()
    write_safetensors(weights, [StoredTensor(k, v) for k, v in state.items()])
    lines: list[str] = []
    before = set(Path.cwd().iterdir())
    record = inductor_build.build_in_child(
        handmade.whole(),
        [weights],
        [
            Tensor("x", "FLOAT", (handmade.BATCH, 4)),
            Tensor("scale", "FLOAT", (1,)),
            Tensor("calls", "INT64", ()),
        ],
        package,
        profile=Profile({"x": ((1, 4), (1, 4), (8, 4))}),
        log=lines.append,
    )
    assert set(Path.cwd().iterdir()) == before
    assert {p.name for p in folder.iterdir()} == {"w.safetensors", "forward_0.pt2"}
    return Built(weights, package, record)


SCALE, CALLS = torch.tensor([1.5]), torch.tensor(4)


def answer(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return handmade.Classifier()(x, scale=SCALE)["logits"]


def test_every_size_of_the_profile_computes_the_same(built: Built) -> None:
    run = inductor.load(memoryview(built.package.read_bytes()), built.context())
    for size in (1, 2, 5, 8):
        x = torch.randn(size, 4)
        with torch.inference_mode():
            logits, best, calls = run([x, SCALE, CALLS])
        torch.testing.assert_close(logits, answer(x))
        assert torch.equal(best, logits.argmax(1))
        assert calls == 5


def test_inputs_with_other_strides_compute_the_same(built: Built) -> None:
    run = inductor.load(built.package, built.context())
    for x in (torch.randn(4, 3).T, torch.randn(6, 8)[::2, ::2], torch.randn(1, 4).expand(5, 4)):
        torch.testing.assert_close(run([x, SCALE, CALLS])[0], answer(x))


def test_weights_stay_where_they_are_mapped(built: Built) -> None:
    context = built.context()
    run = inductor.load(built.package, context)
    torch.testing.assert_close(run([torch.ones(1, 4), SCALE, CALLS])[0], answer(torch.ones(1, 4)))
    context.constants["fc.weight"].zero_()
    bias = context.constants["fc.bias"] * SCALE
    torch.testing.assert_close(run([torch.ones(1, 4), SCALE, CALLS])[0], bias[None])


def test_constants_have_short_names_in_order_of_use() -> None:
    names = inductor.constant_names(handmade.whole())
    assert names == {"fc.weight": "c0", "fc.bias": "c1"}


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "os": "linux",
        "arch": os.uname().machine,
        "cpu": {"flags": inductor.cpu_flags()},
    } | changes


def test_the_record_fits_this_machine(built: Built) -> None:
    assert inductor.check(built.record, facts()).fit == "exact"


@pytest.mark.parametrize(
    ("changes", "fit", "reason"),
    [
        ({"torch": None}, "impossible", "PyTorch is not installed"),
        ({"torch": "2.3.1"}, "rebuild", "this machine has 2.3.1"),
        ({"arch": "riscv64"}, "rebuild", "this machine is riscv64"),
        ({"os": "darwin"}, "rebuild", "built for linux, this machine is darwin"),
        ({"cpu": {"flags": []}}, "rebuild", "CPU instructions this machine lacks"),
    ],
)
def test_another_machine_is_told_why(
    built: Built, changes: dict[str, Any], fit: str, reason: str
) -> None:
    verdict = inductor.check(built.record, facts(**changes))
    assert verdict.fit == fit
    assert reason in verdict.reason


def test_a_broken_package_is_a_broken_bundle(built: Built) -> None:
    with pytest.raises(BundleError, match="cannot load the compiled segment forward_0"):
        inductor.load(memoryview(b"PK\x03\x04 not a package"), built.context())


@pytest.fixture
def bundle(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return handmade.write(tmp_path / "bundle.tar", package=(built.package, built.record))


def test_machine_code_of_another_machine_needs_trust(bundle: Path) -> None:
    with pytest.warns(DegradedWarning, match="machine code that this machine did not build"):
        module = load(bundle, target="cpu")
    assert [s.kind for s in module.segments()] == ["reference"]
    assert module.smoke().passed
    with pytest.raises(BundleError, match="did not build") as caught:
        load(bundle, strict=True)
    assert "--trust" in caught.value.hint


def test_the_command_runs_it_portably_and_names_trust(bundle: Path) -> None:
    told = trtpack("run", bundle, "--target", "cpu", "--no-bench")
    assert (told.code, told.err) == (0, "")
    assert "✓  cpu   portable    it holds machine code that this machine did not build" in told.out
    assert "If you trust who built the bundle, run its" in " ".join(told.out.split())
    trusted = trtpack("run", bundle, "--target", "cpu", "--no-bench", "--trust")
    assert "portable" not in trusted.out
    assert "✓  cpu   exact" in trusted.out


def test_a_trusted_engine_runs_and_keeps_state(bundle: Path) -> None:
    module = load(bundle, trust=True, strict=True)
    assert [s.kind for s in module.segments()] == ["inductor"]
    assert module.smoke().passed
    for _ in range(2):
        module(torch.ones(3, 4), SCALE)
    assert module.states["calls"] == 2
    with pytest.raises(BundleError, match="compiled for the CPU, not for meta"):
        module.to("meta")
    assert module.device.type == "cpu"
    assert module.smoke().passed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.ones(3, 4).double(), "input x: wanted float32, got float64"),
        (torch.ones(3, 2), "input x: dimension 1 is 2, wanted 4"),
        (torch.ones(9, 4), "input x: dimension 0 is 9, wanted 1 to 8"),
        (torch.ones(3, 4, device="meta"), "input x: it is on meta, the bundle on cpu"),
    ],
)
def test_a_compiled_segment_alone_refuses_what_it_would_misread(
    bundle: Path, wrong: torch.Tensor, said: str
) -> None:
    engine = load(bundle, trust=True, strict=True).engine("forward_0")
    assert len(engine(torch.ones(3, 4), SCALE, CALLS)) == 3
    with pytest.raises(InputMismatchError, match=said):
        engine(wrong, SCALE, CALLS)


def test_what_this_machine_built_is_trusted(bundle: Path) -> None:
    assert ledger.record(bundle)
    assert not load(bundle).degraded


GUARDED = """
import sys
def guard(event, args):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {args}")
import torch
torch.load = None
sys.addaudithook(guard)
import trtpack_runtime
module = trtpack_runtime.load(sys.argv[1], trust=True, strict=True)
module.smoke().raise_for_failure()
print(module.segments()[0].kind)
"""


def test_a_bundle_with_an_engine_unpickles_nothing(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, bundle], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("inductor", "")


def _build_neg(
    tmp_path: Path, op: str = "aten.neg.default", imports: Sequence[str] = ()
) -> dict[str, Any]:
    node = {"name": "y", "op": op, "args": [{"value": "x"}], "kwargs": {}}
    graph = {"schema": "trtpack.aten/1", "inputs": ["x"], "outputs": ["y"], "nodes": [node]}
    return inductor_build.build_in_child(
        graph, [], [Tensor("x", "FLOAT", (4,))], tmp_path / "neg.pt2", imports=imports
    )


COMPILES_NOTHING = """#!/bin/sh
case "$*" in *-v|*--version|*-dumpversion) exec g++ "$@";; esac
exit 1
"""
TRIED = """
import sys
from pathlib import Path
import torch
from torch._inductor.cpu_vec_isa import pick_vec_isa
from trtpack_runtime.engines._inductor_child import _try_instructions
_try_instructions(Path(sys.argv[1]))
print(str(pick_vec_isa()).upper())
"""


def test_one_child_tries_the_instructions_for_all(built: Built, tmp_path: Path) -> None:
    """With a compiler that compiles nothing a child finds what the first one found."""
    compiler = tmp_path / "c++"
    compiler.write_text(COMPILES_NOTHING)
    compiler.chmod(0o755)
    environment = {**os.environ, "CXX": str(compiler)}
    found = []
    for folder in (tmp_path / "probes", tmp_path / "empty"):
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
        if folder.name == "probes":
            inductor_build._write_probes(folder)
        done = subprocess.run(
            [sys.executable, "-c", TRIED, folder],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.strip())
    assert found == [built.record["isa"], "INVALID_VEC_ISA"]


def test_without_a_compiler_the_hint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineBuildError, match="no C\\+\\+ compiler") as caught:
        _build_neg(tmp_path)
    assert "install a C++ compiler" in caught.value.hint
    assert not (tmp_path / "neg.pt2").exists()


def test_a_failed_build_ends_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"has no operator my_ops\.twist") as caught:
        _build_neg(tmp_path, "my_ops.twist.default")
    assert "--import" in caught.value.hint


AS_IN_2_11 = """
import torch
from torch._decomp import decompositions

torch.backends.mkldnn.enabled = False  # as on a GPU
layer = decompositions.one_layer_lstm

def as_in_2_11(*given, **named):
    out, (h, c) = layer(*given, **named)
    return out, (h[None].squeeze(1), c[None].squeeze(1))

decompositions.one_layer_lstm = as_in_2_11
"""


@pytest.mark.slow
def test_an_lstm_keeps_the_shape_of_its_last_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "as_in_2_11.py").write_text(AS_IN_2_11)
    monkeypatch.syspath_prepend(tmp_path)
    lstm = torch.nn.LSTM(4, 3, num_layers=2, batch_first=True)
    names = [f"w{i}" for i in range(8)]
    weights = dict(zip(names, lstm.state_dict().values(), strict=True))
    write_safetensors(tmp_path / "w.safetensors", [StoredTensor(n, t) for n, t in weights.items()])
    x, zeros = torch.randn(5, 2, 4), torch.zeros(2, 5, 3)
    states = {"list": [{"value": "h"}, {"value": "c"}]}
    arguments = [{"value": "x"}, states, {"list": [{"constant": n} for n in names]}]
    op = {"name": "y", "op": "aten.lstm.input", "kwargs": {}}
    node = op | {"args": [*arguments, True, 2, 0.0, False, False, True]}
    parts = [
        {"name": f"y{i}", "op": "getitem", "args": [{"value": "y"}, i], "kwargs": {}}
        for i in range(3)
    ]
    graph = {
        "schema": "trtpack.aten/1",
        "inputs": ["x", "h", "c"],
        "outputs": ["y0", "y1", "y2"],
        "nodes": [node, *parts],
    }
    inputs = [
        Tensor("x", "FLOAT", (5, 2, 4)),
        Tensor("h", "FLOAT", (2, 5, 3)),
        Tensor("c", "FLOAT", (2, 5, 3)),
    ]
    path = tmp_path / "lstm.pt2"
    inductor_build.build_in_child(
        graph, [tmp_path / "w.safetensors"], inputs, path, imports=["as_in_2_11"]
    )
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), inductor.MODEL_NAME, False, 1, -1)
    short = inductor.constant_names(graph)
    loader.load_constants({short[n]: t for n, t in weights.items()}, False, True, True)
    with torch.no_grad():
        wanted, (h, c) = lstm(x)
    for found, want in zip(loader.run([x, zeros, zeros]), (wanted, h, c), strict=True):
        torch.testing.assert_close(found, want)


def test_a_crash_of_the_compiler_says_what_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = "import os, signal\ndef crash():\n    os.kill(os.getpid(), signal.SIGSEGV)\ncrash()\n"
    (tmp_path / "my_crash.py").write_text(crash)
    monkeypatch.syspath_prepend(tmp_path)
    graph = {"schema": "trtpack.aten/1", "inputs": [], "outputs": [], "nodes": []}
    with pytest.raises(EngineBuildError, match="died with signal 11") as caught:
        inductor_build.build_in_child(graph, [], [], tmp_path / "a.pt2", imports=["my_crash"])
    assert "Segmentation fault" in caught.value.message
    assert 'my_crash.py", line 3 in crash' in caught.value.message


def test_a_library_that_crashes_when_it_is_loaded_names_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose compiler links a C++ library of its own."""
    crash = (
        "import os, signal, torch\n"
        "torch._C._aoti.AOTIModelPackageLoader = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    (tmp_path / "my_loader.py").write_text(crash)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CXX", shutil.which("c++") or "")
    with pytest.raises(EngineBuildError, match=r"does not load.* signal 11") as caught:
        _build_neg(tmp_path, imports=["my_loader"])
    assert f"CXX={os.environ['CXX']}" in caught.value.hint


def test_the_end_of_the_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor_build.sys, "executable", "/bin/false")
    with pytest.raises(EngineBuildError, match="died with status 1"):
        _build_neg(tmp_path)
