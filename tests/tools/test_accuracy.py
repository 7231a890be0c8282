# SPDX-License-Identifier: Apache-2.0
"""The layer that computes something else is found, whatever shows the tensors.

An engine is stood in for by an evaluation with a fault; what TensorRT does to show its tensors is
tried on the double of its names.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime import handmade, planned
from tests.runtime.command import trtpack
from tests.runtime.trt_double import double
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.engines._child import BuildJob
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import ConfigError, EngineBuildError
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.program import Segment
from trtpack_runtime.reference import evaluate
from trtpack_tools import accuracy
from trtpack_tools import probing as _debug
from trtpack_tools.accuracy import Expected, chunked, compare_all, evaluator, search
from trtpack_tools.cli.debug import _parts
from trtpack_tools.debugging import choose_segment, subject
from trtpack_tools.probing import DebugJob, EngineProbe
from trtpack_tools.recorder import Recorder

NETWORK, STORED = planned.deep("FLOAT")
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
INPUTS = {"x": X}
HUGE = ("blocks.3/linear", "blocks.3.act/relu", "blocks.4/linear")
"""The layer that exceeds HALF, and those that read what does."""
ORDER = [name for layer in NETWORK.layers for name in layer.outputs]


class Wrong:
    """Evaluates the network with one weight disturbed, and notes what was looked at."""

    def __init__(self, *weights: str, blind: Sequence[str] = ()) -> None:
        changed = {name: STORED[name] * 1.01 for name in weights}
        self._run = evaluator(NETWORK, {**STORED, **changed}, INPUTS)
        self._blind = blind
        self.looks: list[list[str]] = []

    def __call__(self, names: Sequence[str]) -> Mapping[str, torch.Tensor]:
        self.looks.append(list(names))
        return self._run([name for name in names if name not in self._blind])


def expected(network: Network = NETWORK) -> Expected:
    return Expected(network, STORED, INPUTS)


@pytest.mark.parametrize("number", range(6))
def test_every_layer_compared(number: int) -> None:
    report = compare_all(NETWORK, expected(), Wrong(f"blocks.{number}.weight"))
    first = report.first
    assert first is not None
    assert first.layer == f"blocks.{number}/linear"
    assert str(first.origin) == f"blocks.{number} (model.py:{10 + number})"
    assert first.error == pytest.approx(0.01, rel=1e-3)
    assert first.inherited == 0.0
    assert [layer.tensor for layer in report.layers] == ORDER
    assert all(layer.departs for layer in report.layers[ORDER.index(first.tensor) :])
    assert not any(layer.departs for layer in report.layers[: ORDER.index(first.tensor)])


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("width", [1, 2, 4, 32])
def test_a_search_finds_the_same(number: int, width: int) -> None:
    wrong = Wrong(f"blocks.{number}.weight")
    report = search(NETWORK, expected(), wrong, width=width)
    assert report.first is not None
    assert report.first.layer == f"blocks.{number}/linear"
    looked = [name for look in wrong.looks for name in look]
    assert len(looked) == len(set(looked)) == len(report.layers)


def test_a_search_looks_at_few() -> None:
    wrong = Wrong("blocks.1.weight")
    report = search(NETWORK, expected(), wrong, width=3)
    assert report.chunks == len(wrong.looks) == 2
    assert len(report.layers) < len(ORDER)
    assert wrong.looks[0] == ["add", "blocks.3/linear", "blocks.5.act/relu"]


def test_a_shortcut_is_searched_too() -> None:
    """``add`` reads block 1 and the input: the way through the block is the wrong one."""
    report = search(NETWORK, expected(), Wrong("blocks.0.weight"), width=1)
    assert report.first is not None
    assert report.first.layer == "blocks.0/linear"


def test_two_faults() -> None:
    report = compare_all(NETWORK, expected(), Wrong("blocks.1.weight", "blocks.4.weight"))
    assert report.first is not None
    assert report.first.layer == "blocks.1/linear"
    found = {layer.layer: layer for layer in report.layers}
    assert found["blocks.4/linear"].added > found["blocks.3/linear"].added


@pytest.mark.parametrize("compare", [compare_all, search])
def test_without_a_fault(compare: Any) -> None:
    report = compare(NETWORK, expected(), Wrong())
    assert (report.first, report.pins, report.unseen) == (None, (), ())
    assert not any(layer.departs for layer in report.layers)


@pytest.mark.parametrize("compare", [compare_all, search])
def test_tensors_that_cannot_be_seen(compare: Any) -> None:
    wrong = Wrong("blocks.2.weight", blind=["blocks.2/linear", "blocks.1.act/relu"])
    report = compare(NETWORK, expected(), wrong)
    assert report.first is not None
    assert report.first.layer == "blocks.2.act/relu"
    assert report.first.inherited is not None
    assert report.first.inherited < 1e-6  # that of "add", beyond what could not be seen
    assert "blocks.2/linear" in report.unseen


def test_tolerance_is_the_users() -> None:
    report = compare_all(NETWORK, expected(), Wrong("blocks.2.weight"), tolerance=0.02)
    assert report.first is None
    assert {layer.tolerance for layer in report.layers} == {0.02}


def test_rounding_to_half_shows_against_float() -> None:
    network, stored = planned.deep("HALF")
    inputs = {"x": X.half() * 100}
    truth = Expected(network, stored, inputs)
    report = compare_all(network, truth, evaluator(network, stored, inputs))
    assert report.first is not None
    assert (report.first.layer, report.first.dtype) == ("blocks.3/linear", "HALF")
    assert report.first.error == float("inf")
    assert report.pins == HUGE
    own = Expected(network, stored, inputs, own_types=True)
    same = compare_all(network, own, evaluator(network, stored, inputs))
    assert same.first is None
    json.dumps(report.to_json(), allow_nan=False)


def test_pins_help_as_told() -> None:
    from trtpack_tools.precision_pins import pin

    network, stored = planned.deep("HALF")
    inputs = {"x": X.half() * 100}
    truth = Expected(network, stored, inputs)
    pinned = pin(network, HUGE)
    before = accuracy.worst_output(network, network, stored, inputs, truth)
    after = accuracy.worst_output(pinned, network, stored, inputs, truth)
    assert before == float("inf")
    assert after < 2e-3


def test_errors_that_only_add_up() -> None:
    """Every weight is a little off: no layer begins it, those that add most are suggested."""
    network, stored = planned.deep("HALF")
    small = {f"blocks.{i}.weight": stored[f"blocks.{i}.weight"] * 1.003 for i in range(3)}
    inputs = {"x": X.half() / 8}
    run = evaluator(network, {**stored, **small}, inputs)
    report = compare_all(network, Expected(network, stored, inputs), run, tolerance=0.007)
    assert report.first is not None
    assert report.first.layer == "blocks.2/linear"
    assert report.first.gradual
    assert set(report.pins) <= {f"blocks.{i}/linear" for i in range(3)} | {"add"}
    assert len(report.pins) >= 2


def test_chunks_are_bounded() -> None:
    sizes = {"a": 10, "b": 10, "c": 50, "d": 5, "e": 5, "f": 5}
    assert list(chunked(list(sizes), sizes, most=2, most_bytes=25)) == [
        ["a", "b"],
        ["c"],
        ["d", "e"],
        ["f"],
    ]
    assert list(chunked([], sizes)) == []


def test_chunks_of_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "__defaults__", (5, 1 << 30))
    wrong, told = Wrong("blocks.4.weight"), []
    report = compare_all(
        NETWORK, expected(), wrong, on_chunk=lambda number, count: told.append((number, count))
    )
    assert [len(look) for look in wrong.looks] == [5, 5, 3]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert report.chunks == 3
    assert report.first is not None
    assert report.first.layer == "blocks.4/linear"


def test_what_goes_into_a_later_segment(tmp_path: Path) -> None:
    bundle = open_bundle(handmade.write(tmp_path / "bundle.tar"))
    found = choose_segment(bundle, None, None)
    assert (found.variant, found.name) == ("orin", "forward_0")
    about = subject(bundle, found, torch.device("cpu"))
    assert torch.equal(about.inputs["x"], torch.linspace(-3, 9, 8).reshape(2, 4))


# --- engines that show their tensors -------------------------------------------------------------
class Builds:
    """Stands in for building and loading: engines are evaluations, which note how they were made.

    ``refuses`` are tensors that no engine can have as outputs, ``untold`` those no listener hears.
    """

    def __init__(self, refuses: Sequence[str] = (), untold: Sequence[str] = ()) -> None:
        self.built: list[tuple[list[str], list[str]]] = []
        self._refuses, self._untold = set(refuses), set(untold)
        self._plans: dict[str, BuildJob] = {}

    def build(self, job: BuildJob, on_progress: Any = None) -> None:
        further = [name for name in job.network.outputs if name not in NETWORK.outputs]
        self.built.append((further, list(job.options.debug)))
        if self._refuses & {*further, *job.options.debug}:
            raise EngineBuildError("no tactic", hint="none")
        self._plans[str(job.plan)] = job

    def load(self, module: str, plan: Path, context: LoadContext) -> Any:
        job = self._plans[str(plan)]
        held = SimpleNamespace(listener=None, watched=[])
        held.set_debug_listener = lambda listener: setattr(held, "listener", listener)
        held.set_tensor_debug_state = lambda name, flag: held.watched.append(name)

        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            keep: dict[str, torch.Tensor] = {}
            outputs = evaluate(job.network, STORED, inputs, keep=keep)
            for name in held.watched if held.listener is not None else ():
                if name not in self._untold:
                    self._tell(held.listener, name, keep[name])
            return outputs

        runner: Any = run
        return _Runner(runner, [held])

    def _tell(self, listener: Any, name: str, value: torch.Tensor) -> None:
        kinds = SimpleNamespace(name="HOST"), SimpleNamespace(name="FLOAT")
        value = value.contiguous()
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        capsule = new(value.data_ptr(), None, None)
        assert listener.process_debug_tensor(capsule, *kinds, tuple(value.shape), name, 0)


class _Runner:
    def __init__(self, run: Any, contexts: list[Any]) -> None:
        self._run, self.contexts = run, contexts

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        answer: list[torch.Tensor] = self._run(inputs)
        return answer


def probe(monkeypatch: pytest.MonkeyPatch, release: str, builds: Builds) -> EngineProbe:
    monkeypatch.setattr(_debug, "build_in_worker", builds.build)
    monkeypatch.setattr(_debug, "load_engine", builds.load)
    segment = Segment("forward_0", "network", {}, {})
    context = LoadContext(segment, STORED, torch.device("cpu"), NETWORK)
    job = DebugJob("tensorrt", NETWORK, (), BuildOptions(tf32=True), context, "forward_0 of here")
    return EngineProbe(double(release), job, [X])


INNER = ["blocks.0/linear", "add", "blocks.5/linear"]


def test_on_release_8_tensors_become_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds()
    values = probe(monkeypatch, "8.6", builds)([*INNER, "blocks.5.act/relu"])
    assert builds.built == [(INNER, [])]
    wanted = expected().values([*INNER, "blocks.5.act/relu"])
    assert all(torch.equal(values[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("release", ["10.3", "11.1"])
def test_later_a_listener_is_told(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(untold=["add"])
    values = probe(monkeypatch, release, builds)(INNER)
    assert builds.built == [([], INNER), (["add"], [])]
    wanted = expected().values(INNER)
    assert all(torch.equal(values[name], wanted[name]) for name in INNER)


def test_tensors_tensorrt_refuses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(refuses=["add"])
    look = probe(monkeypatch, "10.3", builds)
    values = look(INNER)
    assert sorted(values) == sorted(set(INNER) - {"add"})
    count = len(builds.built)
    look(["blocks.0/linear"])
    assert builds.built[count:] == [(["blocks.0/linear"], [])]  # debugging was refused once


def test_an_engine_that_cannot_be_built_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds()

    def refuse(job: BuildJob, on_progress: Any = None) -> None:
        raise EngineBuildError("no tactic", hint="none")

    look = probe(monkeypatch, "8.6", builds)
    monkeypatch.setattr(_debug, "build_in_worker", refuse)
    with pytest.raises(EngineBuildError, match="no tactic"):
        look(["blocks.5.act/relu"])


def test_found_in_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: a fault in what the network should be is found in the engine."""
    changed = {**STORED, "blocks.2.weight": STORED["blocks.2.weight"] * 0.97}
    truth = Expected(NETWORK, changed, INPUTS)
    report = search(NETWORK, truth, probe(monkeypatch, "8.6", Builds()), width=4)
    assert report.first is not None
    assert report.first.layer == "blocks.2/linear"


# --- the command ---------------------------------------------------------------------------------
@pytest.mark.slow
def test_simulated(tmp_path: Path) -> None:
    path = planned.write_deep(tmp_path / "deep.tar")
    done = trtpack("debug", "accuracy", path, "--target", "here", "--simulate", "--all")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        "forward_0 of here: PyTorch in its own types against the network in FLOAT\n"
        "looked at 13 of 13 layers in 1 run, "
    )
    assert "first to depart: blocks.3/linear (matrix_multiply), from blocks.3 (model.py:13)" in (
        done.out
    )
    assert "to compute in FLOAT, add --pin -o FILE\n  blocks.3/linear\n  blocks.3.act/relu\n" in (
        done.out
    )
    marked = [line.split()[1] for line in done.out.splitlines() if line.startswith("  >")]
    assert marked == ["blocks.3/linear"]


@pytest.mark.slow
def test_pinned_by_the_command(tmp_path: Path) -> None:
    path, to = planned.write_deep(tmp_path / "deep.tar"), tmp_path / "pinned.tar"
    arguments = ["--target", "here", "--simulate", "--pin", "-o", to]
    done = trtpack("debug", "accuracy", path, *arguments)
    assert (done.code, done.err) == (0, "")
    assert f"wrote {to}, 3 layers in FLOAT, " in done.out
    assert "error of the worst output in PyTorch: inf before, 0.000" in done.out
    assert "The engine was not built here: its precision pins are new, and " in done.out
    assert done.out.endswith(
        f"prove it with: trtpack run {to}\n"
        "a value overflows in blocks.3/linear: where the model itself overflows, "
        "its golden answers do too and this run can fail\n"
    )
    again = trtpack("debug", "accuracy", to, "--target", "here", "--simulate", "--json")
    found = json.loads(again.out)
    assert (found["first"], found["pins"]) == (None, [])


@pytest.mark.slow
def test_a_pin_where_nothing_overflows(tmp_path: Path) -> None:
    path, to = planned.write_deep(tmp_path / "deep.tar"), tmp_path / "pinned.tar"
    arguments: list[str | Path] = [
        "--target",
        "here",
        "--simulate",
        "--pin-layer",
        "blocks.0/linear",
        "-o",
        to,
    ]
    done = trtpack("debug", "accuracy", path, *arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"prove it with: trtpack run {to}\n")
    arguments += ["--pin-layer", "blocks.3/linear", "--json"]
    told = json.loads(trtpack("debug", "accuracy", path, *arguments).out)
    assert told["written"]["overflowing"] == ["blocks.3/linear"]


@pytest.mark.slow
def test_nothing_to_pin(tmp_path: Path) -> None:
    bundle = handmade.write(tmp_path / "bundle.tar")
    to = tmp_path / "pinned.tar"
    done = trtpack("debug", "accuracy", bundle, "--simulate", "--pin", "-o", to)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("every layer is within its tolerance\n"
                             "nothing to pin, no bundle was written\n")  # fmt: skip
    assert not to.exists()


def late(*values: Any) -> Any:
    """A row for the slow lane: each starts a process that loads PyTorch."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--target", "cpu"], 2, "only TensorRT engines can be compared layer by layer; forward_0"),
        late(["--segment", "forward_1"], 2, "only TensorRT engines can be compared layer by layer"),
        (["--segment", "forward_7"], 2, "there is no segment 'forward_7'"),
        late(["--target", "nowhere"], 2, "the bundle has no variant 'nowhere'"),
        (["--pin"], 2, "--pin writes a new bundle"),
        (["-o", "x.tar"], 2, "-o is for a bundle with pins"),
        late(["--simulate", "--sample", "3"], 2, "there is no golden sample 3"),
        (["--simulate", "--own-types"], 2, "--simulate compares the network's types with FLOAT"),
        late(
            ["--simulate", "--pin-layer", "clippt", "-o", "x.tar"],
            2,
            "the network has no layer 'clippt'",
        ),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_debugged(
    arguments: Sequence[str], code: int, error: str, tmp_path: Path
) -> None:
    done = trtpack("debug", "accuracy", handmade.write(tmp_path / "bundle.tar"), *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(f"error: {error}")
    assert "\nhint: " in done.err


@pytest.mark.parametrize("compare", [compare_all, search])
def test_what_only_a_narrower_tolerance_makes_depart(compare: Any) -> None:
    """Rounding that BF16 tolerates and FLOAT does not is no fault of the layer that casts back,
    and no search left it out."""
    recorder = Recorder()
    low = recorder.input(Tensor("x", "FLOAT", (4, 8)))
    for name, to in (("down", "BF16"), ("up", "FLOAT")):
        (low,) = recorder.add("cast", {"input": low}, {"to_type": to}, name=name)
    network = recorder.finish([low.name])
    run = evaluator(network, {}, INPUTS)
    report = compare(network, Expected(network, {}, INPUTS), run)
    assert report.first is None
    about: Any = SimpleNamespace(network=network)
    told = " ".join(" ".join(_parts(about, report, False, False)).split())
    assert "up departs first, with an error of 0.00" in told
    assert "where float tolerates 0.001; what it reads is off by up to 0.00" in told
    assert told.endswith("Judge all types alike with --tolerance.")
    alike = compare(network, Expected(network, {}, INPUTS), run, tolerance=1e-3)
    assert alike.first is not None
    assert alike.first.layer == "down"


def test_which_of_several(tmp_path: Path) -> None:
    bundle = open_bundle(planned.write_deep(tmp_path / "deep.tar"))
    with pytest.raises(ConfigError, match="there are several: forward_0 of here, forward_0 of"):
        choose_segment(bundle, None, None)
    assert choose_segment(bundle, "other", None).variant == "other"


@pytest.mark.slow
def test_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = trtpack("debug", "accuracy", handmade.write(tmp_path / "bundle.tar"))
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith("error: cannot build an engine of forward_0 of orin here")
    assert "--simulate" in done.err


def test_replacing_outputs_keeps_the_network_whole() -> None:
    from trtpack_tools.check import check_network

    check_network(replace(NETWORK, outputs=(*NETWORK.outputs, *INNER)))
