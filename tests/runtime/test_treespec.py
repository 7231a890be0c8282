# SPDX-License-Identifier: Apache-2.0
"""Nested inputs and outputs survive JSON, with and without their classes."""

from __future__ import annotations

import collections
import inspect
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from trtpack_runtime import treespec
from trtpack_runtime.errors import BundleError, ConfigError, InputMismatchError
from trtpack_runtime.records import Record


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Detection:
    boxes: Any
    scores: Any = None


pytree.register_dataclass(Detection)

leaves = st.just(0.5)
structures = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
        st.dictionaries(st.text(), inner, max_size=3).map(collections.OrderedDict),
        st.tuples(inner, inner).map(lambda p: Pair(*p)),
    ),
)


@given(structures)
def test_structures_survive(value: Any) -> None:
    flat, spec = pytree.tree_flatten(value)
    stored = json.loads(json.dumps(treespec.encode(spec)))
    assert treespec.flatten(stored, value) == flat
    numbered = list(range(len(flat)))
    rebuilt = treespec.unflatten(stored, numbered)
    assert rebuilt == pytree.tree_unflatten(numbered, spec)
    assert type(rebuilt) is type(pytree.tree_unflatten(numbered, spec))
    assert len(treespec.leaf_paths(stored)) == len(flat)


@pytest.mark.parametrize(
    "value",
    [
        Detection(1.5, [2.5]),
        {"a": Detection(1.5, 2.5)},
        torch.max(torch.ones(2, 2), dim=0),
        collections.defaultdict(list, {"x": [1.5]}),
    ],
    ids=["dataclass", "nested dataclass", "return type", "defaultdict"],
)
def test_known_classes_come_back(value: Any) -> None:
    flat, spec = pytree.tree_flatten(value)
    rebuilt = treespec.unflatten(treespec.encode(spec), flat)
    assert pytree.tree_flatten(rebuilt)[0] == flat
    if not isinstance(value, collections.defaultdict):
        assert type(rebuilt) is type(value)


def test_a_model_output_comes_back_as_itself_or_as_a_record() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    value = outputs.BaseModelOutput(last_hidden_state=torch.ones(1), attentions=(torch.zeros(1),))
    flat, spec = pytree.tree_flatten(value)
    stored = treespec.encode(spec)
    assert isinstance(treespec.unflatten(stored, flat), outputs.BaseModelOutput)
    stored["class"] = "somewhere.else.BaseModelOutput"
    record = treespec.unflatten(stored, flat)
    assert record.last_hidden_state is record["last_hidden_state"] is record[0] is flat[0]
    assert list(record) == ["last_hidden_state", "attentions"]
    assert record[1:] == record.to_tuple()[1:] == ((flat[1],),)
    with pytest.raises(AttributeError, match="has no 'logits'"):
        _ = record.logits


def test_an_unknown_named_tuple_is_made_up() -> None:
    spec = {"namedtuple": [["a", "*"], ["b", "*"]], "class": "nowhere.Point"}
    point = treespec.unflatten(spec, [1, 2])
    assert (point.a, point.b) == point == (1, 2)


@pytest.mark.parametrize("name", ["subprocess.Popen", "os.system", "builtins.exec"])
def test_a_class_name_runs_nothing(name: str) -> None:
    spec = {"record": [["args", "*"]], "class": name}
    assert isinstance(treespec.unflatten(spec, ["true"]), Record)
    spec = {"namedtuple": [["x); import os; (", "*"]], "class": name}
    with pytest.raises(BundleError, match="malformed"):
        treespec.unflatten(spec, [1])


def test_literals_are_kept_and_checked() -> None:
    value = ((1.5, None), {"scale": 2})
    flat, spec = pytree.tree_flatten(value)
    stored = treespec.encode_call(spec, leaves=[torch.ones(1), None, 2])
    assert treespec.flatten_call(stored, (0.0, None), {"scale": 2}) == [0.0, None, 2]
    with pytest.raises(InputMismatchError, match="input scale: wanted the captured value 2, got 3"):
        treespec.flatten_call(stored, (0.0, None), {"scale": 3})
    with pytest.raises(
        InputMismatchError, match=r"input args\[1\]: wanted the captured value None"
    ):
        treespec.flatten_call(stored, (0.0, 1.0), {"scale": 2})
    assert len(flat) == 3


def _model(pixels: Any, mask: Any = None, *, labels: Any = None) -> None: ...


SIGNATURE = inspect.signature(_model)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("p",), {"mask": "m"}),
        (("p", "m"), {}),
        ((), {"mask": "m", "pixels": "p"}),
        (("p",), {"mask": "m", "labels": None}),
    ],
)
def test_arguments_bind_by_position_or_name(args: Any, kwargs: Any) -> None:
    spec = {
        "call": {
            "parameters": ["pixels", "mask", "labels"],
            "args": ["*"],
            "kwargs": [["mask", "*"]],
        }
    }
    assert treespec.flatten_call(spec, args, kwargs) == ["p", "m"]


def test_the_signature_gives_the_parameters() -> None:
    tensors = ((torch.ones(1),), {"mask": torch.ones(1)})
    spec = treespec.encode_call(pytree.tree_flatten(tensors)[1], SIGNATURE)
    assert spec == {
        "call": {
            "parameters": ["pixels", "mask", "labels"],
            "args": ["*"],
            "kwargs": [["mask", "*"]],
        }
    }
    assert treespec.leaf_paths(spec) == ["args[0]", "mask"]


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "inputs: wanted arguments 'batch', got none"),
        (({"pixel_values": 1}, 2), {}, "inputs: wanted at most 1 positional arguments, got 2"),
        (({"pixel_values": 1},), {"batch": 1}, "input batch: wanted one value, got two"),
        (({"pixel_values": 1},), {"more": 1}, "wanted arguments 'batch', got 'batch', 'more'"),
        (([1],), {}, r"input args\[0\]: wanted a dict with keys 'pixel_values', got a list of 1"),
        (({"pixels": 1},), {}, r"input args\[0\]: wanted keys 'pixel_values', got 'pixels'"),
        (
            ({"pixel_values": [1]},),
            {},
            r"input args\[0\]\['pixel_values'\]: wanted a tuple of 2, got a list of 1",
        ),
    ],
)
def test_a_wrong_call_is_told(args: Any, kwargs: Any, said: str) -> None:
    inner: Any = {"tuple": ["*", "*"]} if "tuple of 2" in said else "*"
    spec = {
        "call": {
            "parameters": ["batch"],
            "args": [{"dict": [["pixel_values", inner]]}],
            "kwargs": [],
        }
    }
    with pytest.raises(InputMismatchError, match=said) as caught:
        treespec.flatten_call(spec, args, kwargs)
    assert caught.value.exit_code == 2


def test_other_containers_are_refused() -> None:
    spec = pytree.tree_flatten(collections.deque([1.5]))[1]
    with pytest.raises(ConfigError, match=r"cannot store .* collections\.deque"):
        treespec.encode(spec)
    with pytest.raises(ConfigError, match="dict with key"):
        treespec.encode({(1, 2): 1.5})


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_leaves_is_malformed(count: int) -> None:
    with pytest.raises(BundleError, match="malformed structure"):
        treespec.unflatten({"tuple": ["*", "*"]}, [0] * count)


def test_needs_no_torch() -> None:
    code = (
        "import sys; from trtpack_runtime import treespec as t;"
        "assert t.unflatten({'list': ['*']}, t.flatten({'list': ['*']}, [1])) == [1];"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (1.5, ["output"]),
        ((1.5, {"a": 1.5}), ["output.0", "output.1.a"]),
        (
            {"logits": 1.5, "boxes": [1.5, 1.5], 7: 1.5},
            ["logits", "boxes.0", "boxes.1", "output.7"],
        ),
        (Detection(1.5, 2.5), ["boxes", "scores"]),
    ],
)
def test_leaves_have_names(value: Any, names: list[str]) -> None:
    assert treespec.leaf_names(treespec.encode(value), "output") == names
