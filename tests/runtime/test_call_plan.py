# SPDX-License-Identifier: Apache-2.0
"""Programs made ready to be called, and the calling conventions in front of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from trtpack_runtime import treespec
from trtpack_runtime.call_plan import CallPlan
from trtpack_runtime.calling import Convention
from trtpack_runtime.errors import BundleError, InputMismatchError
from trtpack_runtime.execution import LoadedSegment
from trtpack_runtime.program import Program, Segment, StateSlot
from trtpack_runtime.records import Record
from trtpack_runtime.signatures import signature_of

Work = Callable[..., list[torch.Tensor]]


def segment(
    name: str, inputs: Sequence[str], outputs: Sequence[str], run: Work, kind: str = "reference"
) -> LoadedSegment:
    return LoadedSegment(name, kind, tuple(inputs), tuple(outputs), lambda given: run(*given))


def plan(
    inputs: Sequence[str],
    outputs: Sequence[Any],
    segments: Sequence[LoadedSegment],
    state: Sequence[StateSlot] = (),
    constants: dict[str, str] | None = None,
    stored: dict[str, torch.Tensor] | None = None,
) -> CallPlan:
    steps = tuple(Segment(s.name, "aten", {}, {}) for s in segments)
    program = Program("forward", tuple(inputs), tuple(outputs), steps, tuple(state), constants)
    return CallPlan(program, segments, stored or {})


def test_values_find_their_readers() -> None:
    made = plan(
        ["a", "b"],
        ["sum", {"constant": 3}, "a", {"size": {"dim": ["b", 1]}}, "twice"],
        [
            segment("0", ["b", "a"], ["difference", "sum"], lambda b, a: [b - a, a + b]),
            segment("1", ["difference", "a"], ["twice"], lambda d, a: [2 * (d + a)]),
        ],
    )
    a, b = torch.ones(2, 3), torch.full((2, 3), 5.0)
    tensors = made.outputs(made.run(made.values([a, b])))
    total, constant, same, size, twice = made.leaves(tensors, [a, b])
    assert torch.equal(total, a + b)
    assert torch.equal(twice, 2 * b)
    assert (constant, size) == (3, 3)
    assert same is a


def test_a_value_lives_no_longer_than_to_its_last_reader() -> None:
    alive: list[bool] = []
    seen: list[weakref.ref[torch.Tensor]] = []

    def first(x: torch.Tensor) -> list[torch.Tensor]:
        made, unread = x + 1, x + 2
        seen.extend((weakref.ref(made), weakref.ref(unread)))
        return [made, unread]

    def look(x: torch.Tensor) -> list[torch.Tensor]:
        alive.extend(ref() is not None for ref in seen)
        return [x * 2]

    made = plan(
        ["x"],
        ["z"],
        [
            segment("0", ["x"], ["h", "unread"], first),
            segment("1", ["h"], ["y"], look),
            segment("2", ["y"], ["z"], look),
        ],
    )
    made.run(made.values([torch.ones(1)]))
    assert alive == [True, False, False, False]


@pytest.mark.parametrize(("kind", "copied"), [("reference", True), ("tensorrt", False)])
def test_constants_are_copied_for_what_may_answer_views_of_them(kind: str, copied: bool) -> None:
    stored = torch.ones(3)
    made = plan(
        [],
        ["y"],
        [segment("0", ["c"], ["y"], lambda c: [c.view(3)], kind)],
        constants={"c": "weight"},
        stored={"weight": stored},
    )
    (answer,) = made.outputs(made.run(made.values([])))
    assert (answer.data_ptr() != stored.data_ptr()) == copied


def test_state_is_read_and_its_next_value_found() -> None:
    made = plan(
        ["x"],
        ["y"],
        [segment("0", ["x", "s"], ["y", "t"], lambda x, s: [x * s, s + 1])],
        state=[StateSlot("steps", "s", "t")],
    )
    values = made.run(made.values([torch.tensor(3.0)], [torch.tensor(4.0)]))
    assert float(made.outputs(values)[0]) == 12
    assert [float(values[slot]) for slot in made.kept] == [5]


def test_state_that_is_only_read_is_not_copied() -> None:
    made = plan(
        ["x"],
        ["y"],
        [segment("0", ["x", "s"], ["y"], lambda x, s: [x * s])],
        state=[StateSlot("steps", "s", "s")],
    )
    state = torch.tensor(4.0)
    values = made.run(made.values([torch.tensor(3.0)], [state]))
    (kept,) = made.kept
    assert values[kept] is state
    assert kept not in made.risky


def test_an_engine_that_answers_too_little_is_told() -> None:
    made = plan(["x"], ["y"], [segment("0", ["x"], ["y", "z"], lambda x: [x])])
    with pytest.raises(BundleError, match="after an engine there are 2 values, not 3"):
        made.run(made.values([torch.ones(1)]))


CALL = {"call": {"parameters": ["x", "mask", "scale"], "args": ["*"], "kwargs": [["scale", "*"]]}}
IN_ORDER = {"call": {"parameters": ["x", "scale"], "args": ["*"], "kwargs": [["scale", "*"]]}}
NAMELESS = {"call": {"parameters": [], "args": ["*", "*"], "kwargs": []}}
NESTED = {"call": {"parameters": ["x"], "args": [{"dict": [["a", "*"], ["b", "*"]]}], "kwargs": []}}
VALUED = {"call": {"parameters": ["x", "flag"], "args": ["*", {"value": True}], "kwargs": []}}


@pytest.mark.parametrize(
    ("tree", "args", "kwargs"),
    [
        (CALL, (1,), {"scale": 2}),
        (CALL, (), {"scale": 2, "x": 1}),
        (CALL, (1, None), {"scale": 2}),
        (CALL, (1, None, 2), {}),
        (IN_ORDER, (1, 2), {}),
        (IN_ORDER, (1,), {"scale": 2}),
        (IN_ORDER, (), {"scale": 2, "x": 1}),
        (NAMELESS, (1, 2), {}),
        (NESTED, ({"b": 2, "a": 1},), {}),
        (NESTED, (), {"x": {"a": 1, "b": 2}}),
    ],
)
def test_arguments_are_found_as_by_their_structure(
    tree: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    made = Convention(tree, "*", ("x", "y"), 1)
    assert list(made.tensors(args, kwargs)) == [1, 2]
    assert treespec.flatten_call(tree, args, kwargs) == [1, 2]


@pytest.mark.parametrize(
    ("tree", "args", "kwargs"),
    [
        (CALL, (1, 2), {}),
        (CALL, (1,), {"other": 2}),
        (IN_ORDER, (1, 2, 3), {}),
        (IN_ORDER, (1,), {"x": 2}),
        (IN_ORDER, (1,), {}),
        (NAMELESS, (1,), {}),
        (NESTED, (1,), {}),
    ],
)
def test_other_arguments_are_refused(
    tree: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(InputMismatchError):
        Convention(tree, "*", ("x", "y"), 1).tensors(args, kwargs)


def test_what_is_no_tensor_is_compared_and_left_out() -> None:
    made = Convention(VALUED, "*", ("x", None), 1)
    assert list(made.tensors((1, True), {})) == [1]
    with pytest.raises(InputMismatchError, match="the captured value True"):
        made.tensors((1, False), {})


OUTPUTS = {
    "tuple": [
        "*",
        {"list": ["*", {"value": None}]},
        {"dict": [["a", "*"], [3, "*"]]},
        {"ordered_dict": [["b", "*"]]},
        {"namedtuple": [["p", "*"], ["q", "*"]], "class": "nowhere.Point"},
        {"record": [["logits", "*"]], "class": "nowhere.Output"},
    ]
}


def test_answers_are_nested_as_by_their_structure() -> None:
    leaves = list(range(9))
    got = Convention(NAMELESS, OUTPUTS, ("x", "y"), 9).answer(leaves)
    want = treespec.unflatten(OUTPUTS, leaves)
    assert repr(got) == repr(want)
    assert [type(part) for part in got[:4]] == [type(part) for part in want[:4]]
    assert isinstance(got[5], Record)
    assert (got[4].p, got[4].q, got[5].logits) == (6, 7, 8)


def test_answers_that_do_not_fill_the_structure_are_told() -> None:
    with pytest.raises(BundleError, match="2 leaves do not fill it"):
        Convention(NAMELESS, {"tuple": ["*"]}, ("x", "y"), 2).answer([1, 2])


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (CALL, "(x, *, mask=None, scale)"),
        (IN_ORDER, "(x, scale)"),
        (NESTED, "(x)"),
        ({"call": {"parameters": ["x"], "args": ["*"], "kwargs": [["more", "*"]]}}, "(x, *, more)"),
    ],
)
def test_the_signature_says_how_it_is_called(tree: Any, text: str) -> None:
    assert str(signature_of(tree)) == text
    assert signature_of(NAMELESS) is None
