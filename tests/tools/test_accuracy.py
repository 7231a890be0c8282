# SPDX-License-Identifier: Apache-2.0
"""The layer that computes something else is found, by looking at all tensors or at few.

An engine is stood in for by an evaluation with a fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime import handmade, planned
from tests.tools.deep_network import INPUTS, NETWORK, STORED, X, expected
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.network import Tensor
from trtpack_tools import accuracy
from trtpack_tools.accuracy import Expected, chunked, compare_all, evaluator, search
from trtpack_tools.cli.debug import _parts
from trtpack_tools.debugging import choose_segment, subject
from trtpack_tools.recorder import Recorder

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
