# SPDX-License-Identifier: Apache-2.0
"""``trtpack run`` without PyTorch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from tests.runtime.session.bundles import FACTS
from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import CHAIN, COUNT, NETS, some
from tests.runtime.session.test_smoke_numpy import golden
from trtpack_runtime import device
from trtpack_runtime.cli import main
from trtpack_runtime.safetensors import open_safetensors

Call = Callable[..., tuple[int, str, str]]
X = some()
RIGHT = golden(CHAIN, input_0=X, output_0=5 * X, output_1=(5 * X).mean(1), output_2=X)
FAST = ("--repeats", 3, "--warmup", 1)


@pytest.fixture
def trtpack(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command on a machine without PyTorch."""
    gpu = {**FACTS["gpus"][0], "integrated": True}
    monkeypatch.setattr(device, "facts", lambda: {**FACTS, "gpus": [gpu]})
    monkeypatch.setitem(sys.modules, "torch", None)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def bundle(lab: Lab) -> Path:
    lab.machine(NETS)
    return lab.bundle(NETS, {"forward": RIGHT})


@pytest.mark.parametrize("graphs", [(), ("--cuda-graphs",)])
def test_a_run_proves_and_measures(bundle: Path, trtpack: Call, graphs: tuple[str, ...]) -> None:
    code, out, err = trtpack("run", bundle, *FAST, *graphs)
    assert (code, err) == (0, "")
    assert "smoke test: passed" in out
    assert "latency" in out
    assert "cuda:0" in out


def test_json_says_that_pytorch_did_not_run(bundle: Path, trtpack: Call) -> None:
    code, out, err = trtpack("run", bundle, "--json", *FAST)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["settings"] == {"cuda_graphs": False, "pytorch": False}
    assert (found["variant"], found["device"], found["degraded"]) == ("orin", "cuda:0", False)
    method = found["methods"]["forward"]
    assert method["smoke"]["passed"] is True
    assert [segment["engine"] for segment in method["segments"]] == ["tensorrt"] * 3
    assert method["latency"]["gpu"] is not None, "CUDA's events time it"
    assert found["start"]["seconds"]["resolve"] > 0


def test_a_wrong_output_exits_with_7(lab: Lab, trtpack: Call) -> None:
    lab.machine(NETS)
    wrong = golden(CHAIN, input_0=X, output_0=4 * X, output_1=(5 * X).mean(1), output_2=X)
    code, out, err = trtpack("run", lab.bundle(NETS, {"forward": wrong}), *FAST)
    assert code == 7
    assert "smoke test: FAILED, 1 of 3 outputs wrong" in out
    assert err.startswith("error: 1 of 3 outputs wrong, worst is 'sum' of forward-0: relative")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_files_in_and_out(bundle: Path, tmp_path: Path, trtpack: Call, suffix: str) -> None:
    numpy.savez(tmp_path / "x.npz", x=some(3, 7))
    to = tmp_path / f"out.{suffix}"
    code, out, _ = trtpack("run", bundle, "--input", tmp_path / "x.npz", "--output", to, *FAST)
    assert code == 0
    assert f"wrote {to}" in out
    if suffix == "npz":
        found = dict(numpy.load(to))
    else:
        found = {name: view.numpy() for name, view in open_safetensors(to).items()}
        again = trtpack("run", bundle, "--input", f"x={to}", "--no-bench")
        assert again[0] == 2, "it holds three tensors, none is called x"
    assert numpy.array_equal(found["sum"], 5 * some(3, 7))


def test_state_is_put_back(lab: Lab, trtpack: Call) -> None:
    lab.machine(NETS)
    zero = numpy.zeros(3, "f4")
    made = golden(COUNT, input_0=zero, output_0=zero + 2, state_s=zero + 3)
    path = lab.bundle(NETS, {"forward": made}, states={"s": zero + 2})
    code, out, err = trtpack("run", path, *FAST)
    assert (code, err) == (0, "")
    assert "state s" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--device", "cpu"], 2, "without PyTorch a bundle runs on a GPU, not on cpu"),
        (["--device", "cuda:3"], 6, "there is no GPU 3"),
        (["--threads", "2"], 2, "--threads needs PyTorch"),
        (["--import", "torchvision"], 2, "--import needs PyTorch"),
        (["--input", "x=none.npz"], 2, "there is no input file none.npz"),
        (["--method", "encode"], 2, "no method 'encode'"),
        (["--target", "agx"], 2, "no variant 'agx'"),
    ],
)
def test_mistakes_are_one_line_with_a_hint(
    bundle: Path, trtpack: Call, arguments: list[str], code: int, said: str
) -> None:
    got, _, err = trtpack("run", bundle, *arguments)
    lines = err.splitlines()
    assert (got, len(lines)) == (code, 2), err
    assert said in lines[0]
    assert lines[1].startswith("hint: ")


def test_an_input_of_another_shape(bundle: Path, tmp_path: Path, trtpack: Call) -> None:
    numpy.savez(tmp_path / "x.npz", x=some(3)[:, :2])
    code, _, err = trtpack("run", bundle, "--input", tmp_path / "x.npz")
    assert code == 2
    assert err.startswith("error: input x: dimension 1 is 2, wanted 3")


def test_a_classifiers_labels(tmp_path: Path) -> None:
    from trtpack_runtime.session import files

    logits = numpy.log(numpy.float32([[1, 7, 2], [6, 2, 2]]))
    first, second = files.top_classes(logits, ["a", "b", "c"], count=2)
    assert [(name, round(p, 3)) for name, p in first] == [("b", 0.7), ("c", 0.2)]
    assert [(name, round(p, 3)) for name, p in second] == [("a", 0.6), ("b", 0.2)]


def test_images_of_16_bits() -> None:
    from trtpack_runtime.sample_files import Wanted
    from trtpack_runtime.session.files import _bits, _image

    values = numpy.float32([[1.0, 1.00390625, 1.01171875, -3.14159]])
    assert [hex(bits) for bits in _bits(values)[0]] == ["0x3f80", "0x3f80", "0x3f82", "0xc049"]
    assert _image(values, Wanted("x", "HALF", (1, 4))).dtype == numpy.float16


def test_both_ways_agree_where_pytorch_is(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """``--no-torch`` is the same run."""
    pytest.importorskip("torch")
    lab.machine(NETS)
    path = lab.bundle(NETS, {"forward": RIGHT})
    with pytest.raises(SystemExit) as caught:
        main(["run", str(path), "--no-torch", "-q", "--no-bench"])
    assert (caught.value.code or 0, *capsys.readouterr()) == (0, "", "")
