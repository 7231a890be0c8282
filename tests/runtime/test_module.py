# SPDX-License-Identifier: Apache-2.0
"""A loaded bundle behaves as the model it was built from."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runtime import handmade
from trtpack_runtime import load, placement
from trtpack_runtime.errors import BundleError, ConfigError, InputMismatchError, SmokeFailure
from trtpack_runtime.loading import DegradedWarning
from trtpack_runtime.module import BundleModule

X, SCALE = torch.linspace(-2, 8, 12).reshape(3, 4), torch.tensor([0.5])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return handmade.write(tmp_path / "bundle.tar")


@pytest.fixture(params=["cpu", "orin"])
def module(request: pytest.FixtureRequest, bundle: Path) -> BundleModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegradedWarning)
        return load(bundle, target=request.param)


def test_it_answers_what_the_model_answers(module: BundleModule) -> None:
    want = handmade.Classifier()(X, scale=SCALE)
    for got in (module(X, scale=SCALE), module(X, SCALE), module(scale=SCALE, x=X)):
        assert list(got) == list(want)
        torch.testing.assert_close(got["logits"], want["logits"])
        assert torch.equal(got["best"][0], want["best"][0])
        assert got["best"][1] is None
        assert got["batch"] == 3


def test_it_runs_inside_other_modules_and_inference_mode(module: BundleModule) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.inner(x, scale=SCALE)["logits"])

    outer = Outer().to("cpu").eval()
    assert "inner.fc.weight" in outer.state_dict()
    with torch.inference_mode():
        inside = outer(X)
    torch.testing.assert_close(outer(X).detach(), inside)
    outer(X).sum().backward()
    assert outer.head.weight.grad is not None
    assert outer.load_state_dict(outer.state_dict()).missing_keys == []


def test_it_has_the_original_names_and_values(module: BundleModule) -> None:
    original = handmade.Classifier()
    state = module.state_dict()
    assert state.keys() == original.state_dict().keys()
    for name, value in original.state_dict().items():
        assert torch.equal(state[name], value)
    assert {n for n, _ in module.named_parameters()} == {n for n, _ in original.named_parameters()}


def test_parameters_are_mapped_and_shared_with_the_segments(module: BundleModule) -> None:
    with torch.no_grad():
        module.get_parameter("fc.weight").zero_()
        module.get_parameter("fc.bias").fill_(2)
    assert torch.equal(module(X, scale=SCALE)["logits"], torch.ones(3, 3))
    again = load(module.bundle.path, target="cpu")
    assert again.get_parameter("fc.weight").abs().sum() > 0


def test_other_weights_are_taken_at_the_next_call(module: BundleModule) -> None:
    module(X, scale=SCALE)
    other = {k: torch.full_like(v, 2) for k, v in module.state_dict().items()}
    module.load_state_dict(other)
    assert (module.stale, module.states["calls"]) == (True, 2)
    wanted = (X.clamp(0, 6) @ other["fc.weight"].T + other["fc.bias"]) * SCALE
    torch.testing.assert_close(module(X, scale=SCALE)["logits"], wanted)
    assert not module.stale


def test_state_is_kept_and_reset(module: BundleModule) -> None:
    for _ in range(3):
        module(X, scale=SCALE)
    assert module.states["calls"] == module.state_dict()["calls"] == 3
    module.reset()
    assert module.get_buffer("calls") == 0
    other = load(module.bundle.path, target="cpu")
    other(X, scale=SCALE)
    assert (other.states["calls"], module.states["calls"]) == (1, 0)


def test_the_golden_samples_pass_from_fresh_state(module: BundleModule) -> None:
    module(X, scale=SCALE)
    report = module.smoke()
    assert report.passed
    assert [c.output for c in report.comparisons] == ["logits", "best.0", "state calls"]
    assert module.states["calls"] == 0


def test_a_wrong_golden_output_fails(tmp_path: Path) -> None:
    module = load(handmade.write(tmp_path / "b.tar", golden_error=0.1), target="cpu")
    with pytest.raises(SmokeFailure, match="1 of 3 outputs wrong, worst is 'logits'"):
        module.smoke().raise_for_failure()


def test_the_best_variant_is_taken_and_the_others_explained(bundle: Path) -> None:
    module = load(bundle)
    assert (module.variant, module.degraded) == ("cpu", False)
    first, second = module.explain().splitlines()
    assert first == f"cpu: PyTorch {torch.__version__} runs it eagerly"
    assert second == "not orin: needs an NVIDIA GPU of SM 8.7, this machine has none"
    assert "variant='cpu'" in repr(module)


def test_a_variant_that_does_not_fit_runs_degraded_and_says_so(bundle: Path) -> None:
    with pytest.warns(DegradedWarning, match="orin: runs its portable form in PyTorch"):
        module = load(bundle, target="orin")
    assert module.degraded
    with pytest.raises(BundleError, match="orin: needs an NVIDIA GPU") as caught:
        load(bundle, target="orin", strict=True)
    assert caught.value.exit_code == 5


def test_the_portable_form_of_a_gpus_variant_runs_on_the_gpu_where_there_is_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "GPU", "meta")  # stands for a GPU
    with pytest.warns(DegradedWarning):
        assert load(bundle, target="orin").device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.warns(DegradedWarning):
        assert load(bundle, target="orin").device.type == "meta"
    with pytest.warns(DegradedWarning):
        assert load(bundle, target="orin", device="cpu").device.type == "cpu"
    assert load(bundle, target="cpu").device.type == "cpu"


def test_an_unknown_variant_suggests_the_nearest(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="no variant 'orinn', it has cpu, orin") as caught:
        load(bundle, target="orinn")
    assert caught.value.hint == "did you mean orin?"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": X.double()}, "input x: wanted float32, got float64"),
        ({"x": X[0]}, r"input x: wanted 2 dimensions \[1..8, 4\], got 1 \[4\]"),
        ({"x": torch.ones(9, 4)}, "input x: dimension 0 is 9, wanted 1 to 8"),
        ({"x": torch.ones(0, 4)}, "input x: dimension 0 is 0, wanted 1 to 8"),
        ({"x": torch.ones(3, 5)}, "input x: dimension 1 is 5, wanted 4"),
        ({"x": X.numpy()}, "input x: wanted a tensor, got ndarray"),
        ({"x": torch.ones(3, 4, device="meta")}, "input x: it is on meta, the bundle on cpu"),
        ({"scale": None}, "input scale: wanted a tensor, got NoneType"),
        ({"more": SCALE}, "got .*'more'"),
    ],
)
def test_wrong_inputs_are_told(module: BundleModule, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputMismatchError, match=said) as caught:
        module(**({"x": X, "scale": SCALE} | change))
    assert caught.value.hint
    assert module.states["calls"] == 0


def test_other_types_are_refused(module: BundleModule) -> None:
    with pytest.raises(
        ConfigError, match="cannot turn the float32 weights of a bundle into float16"
    ):
        module.half()
    assert module.to("cpu").float().eval() is module


def test_it_moves_as_a_whole(module: BundleModule) -> None:
    assert module.to("meta") is module
    tensors = [*module.state_dict().values(), *module.states.values()]
    assert {t.device.type for t in tensors} == {module.device.type} == {"meta"}
    answer = module(X.to("meta"), scale=SCALE.to("meta"))
    assert answer["logits"].device.type == "meta"
    with pytest.raises(InputMismatchError, match="input x: it is on cpu, the bundle on meta"):
        module(X, scale=SCALE)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, pickle.dumps])
def test_copies_are_refused(module: BundleModule, duplicate: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be copied or pickled"):
        duplicate(module)


def test_methods_are_found_by_name(module: BundleModule) -> None:
    assert torch.equal(module.method("forward")(X, SCALE)["logits"], module(X, SCALE)["logits"])
    with pytest.raises(ConfigError, match="no method 'encode', it has forward"):
        module.method("encode")
    with pytest.raises(AttributeError):
        _ = module.encode


def test_a_module_that_has_to_be_imported_is_named(tmp_path: Path) -> None:
    requires = {"requires": ["format:1", "module:colorsys"]}
    path = handmade.write(tmp_path / "b.tar", changes=requires)
    sys.modules.pop("colorsys", None)
    with pytest.raises(BundleError, match="uses operators of the module 'colorsys'") as caught:
        load(path)
    assert "--import colorsys" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot import no_such_module"):
        load(path, imports=["no_such_module"])
    assert load(path, imports=["colorsys"]).variant == "cpu"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"start": "Fast"}, "unknown value 'Fast' of the option start"),
        ({"verify": "all"}, "unknown verify='all'"),
        ({"cuda_graphs": "Off"}, "unknown value 'Off' of the option cuda_graphs"),
        ({"inputs": "cast"}, "unknown value 'cast' of the option inputs"),
        ({"options": {"graph": 4}}, "unknown option 'graph' in options"),
        ({"options": {"contexts": 0}}, "the option contexts is 0"),
    ],
)
def test_an_option_has_one_of_its_values(bundle: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(bundle, **wrong)


def test_a_newer_pytorch_is_asked_for(tmp_path: Path) -> None:
    path = handmade.write(tmp_path / "b.tar", changes={"requires": ["format:1", "torch>=99.1"]})
    with pytest.raises(BundleError, match=r"needs PyTorch 99\.1 or newer"):
        load(path)


def test_a_program_that_reads_what_is_not_there_is_refused(tmp_path: Path) -> None:
    broken = handmade.one_segment()
    broken.segments[0].inputs["x"] = "nowhere"  # type: ignore[index]  # a dict, broken on purpose
    path = handmade.write(tmp_path / "b.tar", programs={"cpu": broken})
    with pytest.raises(BundleError, match="forward_0 reads 'nowhere' before it is computed"):
        load(path, target="cpu")


GUARDED = """
import sys, warnings
def guard(event, args):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {args}")
import torch, torch._dynamo, torch.fx
torch.load = None
sys.addaudithook(guard)
warnings.simplefilter("ignore")
import trtpack_runtime
for target in ("cpu", "orin"):
    module = trtpack_runtime.load(sys.argv[1], target=target)
    module.smoke().raise_for_failure()
    print(module.variant)
"""


@pytest.mark.slow
def test_nothing_is_unpickled(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, bundle], capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["cpu", "orin"], "")


MEMORY = """
import json, resource, sys, torch, trtpack_runtime
def anonymous():
    line = next(l for l in open("/proc/self/status") if l.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
trtpack_runtime.load(sys.argv[2])
before = anonymous()
module = trtpack_runtime.load(sys.argv[1])
sum(float(v.double().sum()) for v in module.state_dict().values() if v.numel() < 100)
print(json.dumps([anonymous() - before, sum(v.nbytes for v in module.parameters())]))
"""


@pytest.mark.slow
def test_loading_maps_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = handmade.write(tmp_path / "small.tar")

    class Large(handmade.Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.ballast = nn.Parameter(torch.randn(2**24))

    monkeypatch.setattr(handmade, "Classifier", Large)
    names = ("fc.weight", "fc.bias", "ballast")
    weights = {
        "members": ["weights/0.safetensors"],
        "parameters": {name: name for name in names},
        "buffers": {"calls": "calls"},
    }
    large = handmade.write(tmp_path / "large.tar", changes={"weights": weights})
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, large, small], capture_output=True, text=True, check=True
    )
    grown, size = json.loads(done.stdout)
    assert size > 64 << 20
    assert grown < 8 << 20
