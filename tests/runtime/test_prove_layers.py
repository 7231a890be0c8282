# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/prove_layers`` is made of finds a wrong TensorRT, and only what is wrong."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.proving import limits, report
from tests.proving.comparing import difference
from tests.proving.converters import converter_trials, target_of
from tests.proving.merging import merge
from tests.proving.proof import LEFT_TO_PYTORCH, NO_KERNEL, prove, together
from tests.proving.trial import Sample, Trial, layer_trials
from trtpack_runtime import layers, network
from trtpack_runtime.engines._weak import is_mixed
from trtpack_runtime.errors import DeviceError, EngineBuildError
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Network
from trtpack_runtime.reference import evaluate

T = torch.Tensor
TRIALS = layer_trials()
SOME = [trial for trial in TRIALS if trial.group == "dynamic FLOAT"][:12]
ROOT = Path(__file__).parents[2]


class Evaluator:
    """An engine that is the evaluator, but for what it is told to do wrong."""

    def __init__(self, refuses: str = "", blames: bool = False, changes: str = "") -> None:
        self.refuses, self.blames, self.changes = refuses, blames, changes
        self.says = "no implementation"
        self.sizes: list[int] = []

    def answers(
        self, network: Network, constants: Mapping[str, T], samples: Sequence[Mapping[str, T]]
    ) -> list[list[T]]:
        self.sizes.append(len(network.layers))
        for layer in network.layers:
            if layer.attributes.get("type") == self.refuses:
                names = (layer.name,) if self.blames else ()
                raise EngineBuildError(self.says, hint="none", layers=names)
        found = [evaluate(network, constants, dict(sample)) for sample in samples]
        for index, name in enumerate(network.outputs):
            (maker,) = (layer for layer in network.layers if name in layer.outputs)
            if maker.attributes.get("type") == self.changes:
                found[-1][index] = found[-1][index] + 0.01
        return found


def _proved(engine: Evaluator, trials: Sequence[Trial] = SOME, **more: Any) -> dict[str, Any]:
    results: dict[str, Any] = {}
    prove(trials, [engine], pack=80, on_results=results.update, **more)
    return results


def _states(results: Mapping[str, Any], state: str) -> list[str]:
    return [name for name, result in results.items() if result["state"] == state]


def test_every_trial_has_a_name_of_its_own() -> None:
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)


def test_every_kind_is_tried() -> None:
    assert {trial.subject for trial in TRIALS} == set(KINDS) - {"plugin"}  # no library


@pytest.mark.parametrize("group", sorted({trial.group for trial in TRIALS}))
def test_merged_networks_answer_as_they_do_alone(group: str) -> None:
    trials = [trial for trial in TRIALS if trial.group == group]
    answers = together(trials, Evaluator())
    assert answers is not None
    assert [trial.name for trial in trials if difference(trial, answers[trial.name])] == []


def test_a_merged_network_is_a_network() -> None:
    merged = merge({f"t{i}": trial.network for i, trial in enumerate(SOME)})
    assert network.from_bytes(merged.to_bytes()) == merged
    dynamic = {tensor.name for tensor in merged.inputs if not tensor.is_static}
    assert set(merged.profiles[0].shapes) == dynamic


def test_float_trials_share_an_engine_with_half_only_where_that_is_tried() -> None:
    mixed = {trial.group for trial in TRIALS if is_mixed(trial.network) and trial.dtype == "FLOAT"}
    assert mixed == {"static FLOAT beside HALF"}
    beside = {t.subject for t in TRIALS if t.name.endswith("FLOAT beside HALF")}
    assert beside == {t.subject for t in TRIALS if t.dtype == "FLOAT"}


def test_a_dynamic_trial_runs_in_two_shapes() -> None:
    for trial in TRIALS:
        shapes = [[tuple(v.shape) for v in s.inputs.values()] for s in trial.samples]
        assert len(shapes) == (2 if trial.name.endswith("dynamic") else 1)
        assert shapes[0] != shapes[-1] or len(shapes) == 1


def test_all_pass_where_tensorrt_is_right() -> None:
    engine = Evaluator()
    results = _proved(engine)
    assert _states(results, "passed") == [trial.name for trial in SOME]
    assert engine.sizes == [len(SOME)]


def test_an_error_in_one_sample_of_one_trial_is_found() -> None:
    results = _proved(Evaluator(changes="ELU"))
    assert _states(results, "failed") == ["activation-ELU FLOAT dynamic"]
    assert "sample 1, output 0: 30 of 30 differ, by at most 0.01" in report.text(results)


@pytest.mark.parametrize("blames", [True, False], ids=["named", "not named"])
def test_a_trial_that_cannot_be_built_costs_no_other(blames: bool) -> None:
    engine = Evaluator(refuses="CLIP", blames=blames)
    results = _proved(engine)
    assert _states(results, "failed") == ["activation-CLIP FLOAT dynamic"]
    assert results["activation-CLIP FLOAT dynamic"]["why"] == "no implementation"
    assert len(_states(results, "passed")) == len(SOME) - 1
    assert engine.sizes[:2] == [len(SOME), 1 if blames else len(SOME) // 2]


def test_what_tensorrt_has_no_kernel_for_is_left_to_pytorch() -> None:
    engine = Evaluator(refuses="CLIP")
    engine.says = f"TensorRT built no engine: 10: {NO_KERNEL} clip."
    results = _proved(engine)
    assert _states(results, "failed") == []
    assert _states(results, "skipped") == ["activation-CLIP FLOAT dynamic"]
    assert results["activation-CLIP FLOAT dynamic"]["why"] == LEFT_TO_PYTORCH


def test_engines_work_side_by_side() -> None:
    both = threading.Barrier(2, timeout=30)

    class Meeting(Evaluator):
        def answers(self, *work: Any) -> list[list[T]]:
            if not self.sizes:
                both.wait()
            return super().answers(*work)

    engines, results = [Meeting(), Meeting(changes="ELU")], {}
    prove(SOME, engines, pack=12, on_results=results.update)
    assert sum(len(engine.sizes) for engine in engines) == len(SOME) // 3
    assert all(engine.sizes for engine in engines)
    assert set(results) == {trial.name for trial in SOME}


def test_a_mistake_of_ours_ends_the_run() -> None:
    class Mistaken(Evaluator):
        def answers(self, *work: Any) -> list[list[T]]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _proved(Mistaken())


def test_no_engine_is_begun_when_the_time_is_up() -> None:
    said: list[str] = []
    engine = Evaluator()
    assert _proved(engine, until=0.0, say=said.append) == {}
    assert engine.sizes == []
    assert said[-1] == "the time is up: run this again for the rest"


def _trial(answer: T, dtype: str = "FLOAT") -> Trial:
    return Trial(
        "a trial", "unary", dtype, "g", SOME[0].network, {}, (Sample({}, [answer]),),
        {"FLOAT": 1e-3},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("want", "have", "why"),
    [
        (torch.tensor([math.nan, math.inf]), torch.tensor([math.nan, math.inf]), None),
        (torch.tensor([100.0]), torch.tensor([100.05]), None),
        (torch.tensor([math.nan, 1]), torch.tensor([0.0, 1]), None),
        (torch.tensor([math.nan, 1]), torch.tensor([0.0, 2]), "1 of 2 differ"),
        (torch.tensor([0.0, 1]), torch.tensor([math.nan, 1]), "1 of 2 differ"),
        (torch.tensor([math.inf, -math.inf]), torch.tensor([1e38, -1e38]), None),
        (torch.tensor([math.inf, -math.inf]), torch.tensor([8e37, -8e37]), "2 of 2 differ"),
        (torch.tensor([math.inf]), torch.tensor([-math.inf]), "1 of 1 differ"),
        (torch.tensor([math.inf]), torch.tensor([-1e38]), "1 of 1 differ"),
        (torch.tensor([math.inf]), torch.tensor([math.nan]), "1 of 1 differ"),
        (torch.tensor([1e38]), torch.tensor([math.inf]), "1 of 1 differ"),
        (torch.tensor([7, 8]), torch.tensor([7, 9]), "1 of 2 differ, by at most 1 "),
        (torch.tensor([2**60]), torch.tensor([2**60 + 1]), "1 of 1 differ"),
        (torch.tensor([True]), torch.tensor([False]), "1 of 1 differ"),
        (torch.tensor([1]), torch.tensor([1.0]), r"wanted INT64\[1\], TensorRT answers FLOAT\[1"),
        (torch.zeros(2), torch.zeros(1), r"wanted FLOAT\[2\], TensorRT answers FLOAT\[1\]"),
    ],
)
def test_answers_are_compared(want: T, have: T, why: str | None) -> None:
    found = difference(_trial(want), [[have]])
    if why is None:
        assert found is None
    else:
        with pytest.raises(AssertionError, match=why):
            raise AssertionError(found)


def test_a_trial_changes_with_all_that_decides_it() -> None:
    one, same = _trial(torch.zeros(2)), _trial(torch.zeros(2))
    assert one.digest == same.digest
    assert one.digest != _trial(torch.ones(2)).digest


def _named(name: str) -> Trial:
    (trial,) = (trial for trial in TRIALS if trial.name == name)
    return trial


@pytest.mark.parametrize(
    ("name", "release", "why"),
    [
        ("activation-RELU FLOAT static", "8.6.0", None),
        ("activation-RELU INT32 static", "8.6.0", "activation takes whole numbers since"),
        ("activation-RELU INT32 static", "10.3.0.30", None),
        ("activation-GELU_ERF HALF dynamic", "8.6.1.6", "8.6.1.6 has no ActivationType.GELU_ERF"),
        ("unary-ABS INT64 static", "8.6.0", None),
        ("unary-ABS BF16 static", "8.6.0", "TensorRT 8.6.0 has no type BF16"),
        ("unary-ABS BF16 static", "10.0.1", None),
        ("attention-SOFTMAX-mask HALF static", "10.3.0", "attention came with TensorRT 10.14"),
        ("elementwise-POW INT64 static", "8.6.0", "raises no whole numbers to powers"),
        ("elementwise-POW INT64 static", "10.3.0", None),
        ("elementwise-POW HALF static", "8.6.0", None),
        ("einsum-ij,jk-implicit FLOAT beside HALF", "8.6.0", "rounds einsum in FLOAT beside HALF"),
        ("einsum-ij,jk-implicit FLOAT beside HALF", "10.3.0", None),
        ("einsum-ij,jk-implicit FLOAT static", "8.6.0", None),
        ("scan-forward FLOAT beside HALF", "8.6.0", "rounds scan in FLOAT"),
        ("branch-true FLOAT beside HALF", "8.6.0", "rounds branch in FLOAT"),
        ("scan-forward HALF static", "8.6.0", None),
        ("gather-ND FLOAT beside HALF", "8.6.0", None),
        ("grid_sample-CUBIC,CLAMP-False far FLOAT static", "8.6.0", "sample CUBIC, CLAMP wrong"),
        ("grid_sample-LINEAR,FILL-True far FLOAT dynamic", "8.6.0", "sample LINEAR, FILL wrong"),
        ("grid_sample-LINEAR,FILL-True far FLOAT dynamic", "10.0.1", None),
        ("grid_sample-NEAREST,CLAMP FLOAT static", "8.6.0", None),
        ("grid_sample-NEAREST,CLAMP FLOAT beside HALF", "8.6.0", "rounds grid_sample in FLOAT"),
        ("non_zero-of numbers FLOAT static", "8.6.0", "no execution context of what data sizes"),
        ("non_zero-of numbers FLOAT static", "10.3.0", None),
        ("nms-CORNER_PAIRS-one class FLOAT static", "8.6.0", "no execution context of what data"),
        ("deconvolution_nd-(1, 1) (1, 1) (2, 1) 2 HALF dynamic", "8.6.0", "of groups in HALF"),
        ("deconvolution_nd-(1, 1) (1, 1) (2, 1) 2 FLOAT dynamic", "8.6.0", None),
    ],
)
def test_what_a_release_lacks_is_not_tried(name: str, release: str, why: str | None) -> None:
    found = limits.why_not(_named(name).network, release)
    assert (found is None) if why is None else (why in str(found))


def test_what_tensorrt_rtx_cannot_build_is_not_tried() -> None:
    narrow, wide = (
        _named(f"deconvolution_nd {dtype} static").network for dtype in ("BF16", "HALF")
    )
    assert "no deconvolution in BF16" in str(limits.why_not(narrow, "11.1", rtx=True))
    assert limits.why_not(narrow, "11.1") is limits.why_not(wide, "11.1", rtx=True) is None


def test_a_kind_is_proved_where_nothing_failed() -> None:
    results = _proved(Evaluator(changes="ELU"))
    results["a"] = {"state": "passed", "subject": "softmax", "dtype": "HALF", "digest": ""}
    results["w"] = {"state": "passed", "subject": "softmax", "dtype": "INT64", "digest": ""}
    results["b"] = {"state": "skipped", "subject": "softmax", "dtype": "INT32", "digest": ""}
    known = {"activation": {"tensorrt 8.6.0": {}, "tensorrt 10.3.0": {"types": [], "cases": 1}}}
    assert report.proved(known, results, "tensorrt 8.6.0") == {
        "activation": {"tensorrt 10.3.0": {"types": [], "cases": 1}},
        "softmax": {"tensorrt 8.6.0": {"types": ["HALF"], "cases": 2}},
    }


def test_the_recorded_proofs_are_of_kinds_and_types_there_are() -> None:
    for kind, releases in layers.proofs().items():
        assert KINDS[kind].proved_on == tuple(releases)
        for release, proof in releases.items():
            module, version = release.split()
            if module == "tensorrt":
                assert limits.numbers(version) >= limits.numbers(KINDS[kind].since)
            tried = [trial for trial in TRIALS if trial.subject == kind]
            assert set(proof["types"]) <= {trial.dtype for trial in tried}
            assert 0 < proof["cases"] <= len(tried)


def test_a_kind_nothing_ran_is_from_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"softmax": {"tensorrt 8.6.0": {"types": ["HALF"], "cases": 1}}}
    monkeypatch.setattr(layers, "proofs", lambda: entry)
    assert KINDS["softmax"].proved_on == ("tensorrt 8.6.0",)
    assert KINDS["softmax"].proof == "proved on tensorrt 8.6.0"
    assert KINDS["attention"].proof == "from documentation"


@pytest.mark.slow
def test_the_script_resumes_and_tells_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, str(ROOT / "scripts/prove_layers"), "--module", "tensorrt_rtx"]
        results = ["--build-only", "--results", str(tmp_path / "results.json")]
        return subprocess.run([*script, *results, *more], capture_output=True, text=True)

    pattern = "activation-.*FLOAT static"
    count = sum(bool(re.search(pattern, trial.name)) for trial in TRIALS)
    first = run("--only", pattern)
    assert f"{count} of {len(TRIALS)} cases to run" in first.stdout
    assert "have no result yet" in first.stdout
    assert first.returncode == 1
    second = run("--minutes", "-1")
    lacking = sum(limits.why_not(trial.network, "11.1", rtx=True) is not None for trial in TRIALS)
    assert f"{len(TRIALS) - count - lacking} of {len(TRIALS)} cases to run" in second.stdout
    assert "the time is up" in second.stdout


def test_an_engine_that_crashes_costs_no_other() -> None:
    class Crashing(Evaluator):
        def answers(self, network: Network, *more: Any) -> list[list[T]]:
            if any(layer.attributes.get("type") == "CLIP" for layer in network.layers):
                raise DeviceError("the engine crashed", hint="none")
            return super().answers(network, *more)

    results = _proved(Crashing())
    assert _states(results, "failed") == ["activation-CLIP FLOAT dynamic"]
    assert results["activation-CLIP FLOAT dynamic"]["why"] == "the engine crashed"


@pytest.mark.slow
def test_converter_cases_are_trials_too() -> None:
    target = target_of("tensorrt", "8.6.0")
    trials, others = converter_trials(target, {"triangle", "join", "softmax"})
    assert {trial.subject for trial in trials} == {"triangle", "join", "softmax"}
    assert {len(trial.samples) for trial in trials} == {1, 3}
    results = _proved(Evaluator(), trials)
    assert len(_states(results, "passed")) == len(trials) > 50
    assert {(r["state"], r["why"]) for r in others.values()} == {
        ("skipped", "no layer is left of it"),
        ("skipped", "TensorRT has bfloat16 from 10.0 on"),
    }


@pytest.mark.slow
def test_converter_cases_are_found_without_pytest() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv[1:]:
            raise ModuleNotFoundError(name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in sys.argv[1:] else real(name, *more)
sys.meta_path.insert(0, Absent())
from tests.proving.collecting import collect
lacking = {}
print(sum(1 for _ in collect(lacking)), lacking)
"""
    command = [sys.executable, "-c", code, "pytest", "hypothesis"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count, lacking = done.stdout.split()
    assert int(count) > 1000
    assert lacking == "{}"
