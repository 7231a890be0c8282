# SPDX-License-Identifier: Apache-2.0
"""``load_state_dict`` on a loaded bundle: engines get the weights at the next call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.weighted import X, answer, values, write
from trtpack_runtime import load, segment_loading
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.engines import LoadContext, Verdict, engine
from trtpack_runtime.errors import BundleError, ConfigError, DeviceError
from trtpack_runtime.module import BundleModule
from trtpack_runtime.reference import evaluate
from trtpack_runtime.resolve import Candidate, Choice
from trtpack_runtime.starting import DegradedWarning

pytestmark = pytest.mark.filterwarnings("ignore::trtpack_runtime.loading.DegradedWarning")
NEW = values(1)


class Engine:
    """An engine that has weights of its own, by the names of the weight store."""

    def __init__(self, context: LoadContext) -> None:
        assert context.network is not None
        self.network, self.refits, self.broken = context.network, 0, False
        self._take(context.weights)

    def refit(self, weights: Mapping[str, Any]) -> None:
        if self.broken:
            raise DeviceError("the GPU has no memory", hint="free some")
        self.refits += 1
        self._take(weights)

    def _take(self, weights: Mapping[str, Any]) -> None:
        names = {constant.data for constant in self.network.constants.values()}
        self.held = {
            name: torch.frombuffer(bytearray(weights[name].buffer), dtype=torch.float32)
            for name in names
        }

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        shapes = {c.data: c.shape for c in self.network.constants.values()}
        held = {name: value.reshape(shapes[name]) for name, value in self.held.items()}
        return evaluate(self.network, held, inputs)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines of TensorRT that were loaded, which are doubles."""
    made: list[Engine] = []

    class Kind:
        def load(self, blob: object, context: LoadContext) -> Engine:
            made.append(Engine(context))
            return made[-1]

    monkeypatch.setattr(
        segment_loading, "engine", lambda kind: Kind() if kind == "tensorrt" else engine(kind)
    )
    return made


Load = Callable[[str], BundleModule]


@pytest.fixture
def on_engine(tmp_path: Path, engines: list[Engine]) -> Load:
    """Loads a bundle whose first segment is an engine of TensorRT, built with these weights."""

    def load_it(weights: str) -> BundleModule:
        bundle = open_bundle(write(tmp_path / "b.tar", record={"weights": weights}))
        fits = Candidate("h200", Verdict("exact", "a double"), {"forward_0": Verdict("exact", "")})
        return BundleModule(bundle, Choice(fits, False, (fits,)), torch.device("cpu"))

    return load_it


def right(module: BundleModule, state: Mapping[str, torch.Tensor]) -> None:
    torch.testing.assert_close(module(X), answer(state))
    for name, value in state.items():
        assert torch.equal(module.state_dict()[name], value)


def test_what_pytorch_runs_follows_at_once(tmp_path: Path) -> None:
    module = load(write(tmp_path / "b.tar"), target="h200", build=False)
    right(module, values())
    assert module.load_state_dict(NEW).missing_keys == []
    assert module.stale
    right(module, NEW)
    assert not module.stale
    module.load_state_dict({"head.weight": values()["head.weight"]}, strict=False)
    right(module, {**NEW, "head.weight": values()["head.weight"]})
    module.load_state_dict(values())
    right(module, values())
    assert module.identity == module.bundle.digest


@pytest.mark.parametrize("weights", ["refittable", "stripped"])
def test_an_engine_is_refitted_at_the_next_call(
    weights: str, on_engine: Load, engines: list[Engine]
) -> None:
    module = on_engine(weights)
    right(module, values())
    module.load_state_dict(NEW)
    module.load_state_dict({name: value.double() for name, value in NEW.items()})
    assert (module.stale, engines[0].refits) == (True, 0)
    for _ in range(2):
        right(module, NEW)
    assert ([e.refits for e in engines], module.stale) == ([1], False)
    assert [segment.kind for segment in module.segments()] == ["tensorrt", "reference"]


def test_an_engine_that_reads_none_of_them_stays(on_engine: Load, engines: list[Engine]) -> None:
    module = on_engine("inside")
    head = {name: value for name, value in NEW.items() if name.startswith("head")}
    module.load_state_dict(head, strict=False)
    right(module, {**values(), **head})
    assert [e.refits for e in engines] == [0]


def test_an_engine_with_weights_inside_refuses_others(on_engine: Load) -> None:
    module = on_engine("inside")
    with pytest.raises(RuntimeError, match="it holds them inside") as caught:
        module.load_state_dict(NEW)
    assert 'build with engine_weights="refittable"' in str(caught.value)
    assert not module.stale
    right(module, values())


def test_a_twin_keeps_its_weights(on_engine: Load, engines: list[Engine]) -> None:
    module = on_engine("refittable")
    twin = module.twin()
    module.load_state_dict(NEW)
    right(module, NEW)
    right(twin, values())
    assert [e.refits for e in engines] == [0, 0], "the second one was loaded with them"
    del twin
    module.load_state_dict(values())
    right(module, values())
    assert [e.refits for e in engines] == [0, 1]


def test_a_refit_that_fails_is_tried_again(on_engine: Load, engines: list[Engine]) -> None:
    module = on_engine("refittable")
    module.load_state_dict(NEW)
    engines[0].broken = True
    for _ in range(2):
        with pytest.raises(DeviceError, match="no memory"):
            module(X)
        assert module.stale
    engines[0].broken = False
    module.refit()
    right(module, NEW)


def test_one_segment_called_alone_has_the_new_weights(on_engine: Load) -> None:
    module = on_engine("refittable")
    before = module.engine("forward_0")
    module.load_state_dict(NEW)
    hidden = torch.relu(X @ NEW["fc.weight"].T + NEW["fc.bias"])
    torch.testing.assert_close(module.engine("forward_0")(X)[0], hidden)
    assert not torch.equal(before(X)[0], torch.zeros_like(hidden))


def test_the_golden_samples_are_of_other_weights(tmp_path: Path) -> None:
    module = load(write(tmp_path / "b.tar"), target="h200", build=False)
    module.load_state_dict(NEW)
    with pytest.raises(ConfigError, match="the golden samples are of the weights"):
        module.smoke()


def test_a_traced_program_belongs_to_its_weights(tmp_path: Path) -> None:
    module = load(write(tmp_path / "b.tar"), target="h200", build=False)
    other = load(module.bundle.path, target="h200", build=False)
    old = torch.export.export(module, (X,))
    module.load_state_dict(NEW)
    new = torch.export.export(module, (X,))
    for program, state in ((new, NEW), (old, values()), (new, NEW)):
        torch.testing.assert_close(program.module()(X), answer(state))
    right(other, values())
    module.load_state_dict(values())
    with pytest.raises(BundleError, match="weights that were loaded into it later"):
        new.module()(X)


def test_what_the_bundle_does_not_tell_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", recipes=False)
    module = load(path, target="h200", build=False)
    with pytest.raises(RuntimeError, match="does not tell how it follows from the weights"):
        module.load_state_dict(NEW)
    torch.testing.assert_close(module(X), answer(values()))


def test_other_shapes_are_pytorchs_to_refuse(tmp_path: Path) -> None:
    module = load(write(tmp_path / "b.tar"), target="h200", build=False)
    with pytest.raises(RuntimeError, match=r"size mismatch for fc\.bias"):
        module.load_state_dict({**NEW, "fc.bias": torch.zeros(4)})
    torch.testing.assert_close(
        module(X), answer({**NEW, "fc.bias": values()["fc.bias"]})
    )  # as PyTorch does, the others are taken


def test_inference_mode_leaves_no_mark(tmp_path: Path) -> None:
    module = load(write(tmp_path / "b.tar"), target="h200", build=False)
    with torch.inference_mode():
        module.load_state_dict({name: value + 0 for name, value in NEW.items()})
        right(module, NEW)
    assert not any(tensor.is_inference() for tensor in module.stored.values())
    module.load_state_dict(values())
    right(module, values())


def test_given_tensors_stay_the_callers(tmp_path: Path) -> None:
    module = load(write(tmp_path / "b.tar"), target="h200", build=False)
    given = {name: value.clone() for name, value in NEW.items()}
    module.load_state_dict(given, assign=True)
    for value in given.values():
        value.zero_()
    right(module, NEW)


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], BundleModule]:
    """Loads a bundle whose second segment AOTInductor compiled; a double of that runs it."""

    class Kind:
        def load(self, blob: object, context: LoadContext) -> Any:
            return engine("reference").load(None, context)

    monkeypatch.setattr(
        segment_loading, "engine", lambda kind: Kind() if kind == "inductor" else engine(kind)
    )

    def load_it(strict: bool) -> BundleModule:
        bundle = open_bundle(write(tmp_path / "b.tar"))
        fits = Candidate("cpu", Verdict("exact", "a double"), {"forward_1": Verdict("exact", "")})
        choice, device = Choice(fits, False, (fits,)), torch.device("cpu")
        return BundleModule(bundle, choice, device, trust=True, options={"strict": strict})

    return load_it


def test_what_is_in_compiled_code_is_left_to_pytorch(
    compiled: Callable[[bool], BundleModule],
) -> None:
    module = compiled(False)
    large = {"head.weight": NEW["head.weight"]}
    module.load_state_dict(large, strict=False)
    right(module, {**values(), **large})
    assert [segment.kind for segment in module.segments()] == ["reference", "inductor"]
    module.load_state_dict(NEW)
    with pytest.warns(DegradedWarning, match=r"and head\.scale is a part of its code"):
        right(module, NEW)
    assert [segment.kind for segment in module.segments()] == ["reference", "reference"]
    module.load_state_dict(values())
    right(module, values())
    assert [segment.kind for segment in module.segments()] == ["reference", "inductor"]


def test_strictly_it_is_refused(compiled: Callable[[bool], BundleModule]) -> None:
    module = compiled(True)
    with pytest.raises(RuntimeError, match=r"head\.scale is a part of its code; build the bundle"):
        module.load_state_dict(NEW)
    right(module, values())
