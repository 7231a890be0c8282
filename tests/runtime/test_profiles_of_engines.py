# SPDX-License-Identifier: Apache-2.0
"""Which profile serves shapes, what is refused in which words, what is remembered of calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtpack_runtime.engines._alike import LESSONS, Alike
from trtpack_runtime.engines._plans import Recent, strides
from trtpack_runtime.engines._profiles import Profiles
from trtpack_runtime.errors import InputMismatchError


def profiles(*ranges: dict[str, tuple[Any, Any]]) -> Profiles:
    """Of an engine with these least and largest shapes in each profile; -1 where they differ."""

    def shape(name: str) -> tuple[int, ...]:
        lows, highs = zip(*(profile[name] for profile in ranges), strict=True)
        return tuple(
            sizes.pop() if len(sizes) == 1 else -1
            for sizes in map(set, zip(*lows, *highs, strict=True))
        )

    engine = SimpleNamespace(
        num_optimization_profiles=len(ranges),
        get_tensor_shape=shape,
        get_tensor_profile_shape=lambda name, i: [ranges[i][name][k] for k in (0, 0, 1)],
    )
    return Profiles(engine, list(ranges[0]))


def test_the_narrowest_that_holds_every_input() -> None:
    made = profiles(
        {"x": ((1, 3), (32, 3)), "m": ((1,), (32,))},
        {"x": ((1, 3), (4, 3)), "m": ((1,), (4,))},
        {"x": ((1, 3), (8, 3)), "m": ((1,), (2,))},
    )
    assert [made.fitting(((n, 3), (m,))).index for n, m in [(4, 4), (8, 2), (8, 3), (1, 1)]] == [
        *(1, 2, 0, 1)
    ]
    assert made.first.index == 0
    assert made.dynamic == (True, True)


X = "input x: the engine takes shapes from [1, 3] to [4, 3] or from [8, 3] to [32, 3], got "
M = "input m: the engine takes shapes from [1] to [2] or from [1] to [8], got "


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((33, 3), (1,)), X + "[33, 3]; dimension 0 is 33, it may be 1 to 4 or 8 to 32"),
        (((2, 5), (1,)), X + "[2, 5]; dimension 1 is 5, it may be 3"),
        (((2, 3), (9,)), M + "[9]; dimension 0 is 9, it may be 1 to 2 or 1 to 8"),
        (((2, 3), (8,)), X + "[2, 3]; no profile has all inputs so"),
        (((2, 3), ()), M + "[]; it has 0 dimensions, not 1"),
        (((2, 3),), "the engine takes 2 inputs, got 1"),
    ],
)
def test_what_no_profile_holds_is_told(shapes: Any, message: str) -> None:
    made = profiles(
        {"x": ((1, 3), (4, 3)), "m": ((1,), (2,))}, {"x": ((8, 3), (32, 3)), "m": ((1,), (8,))}
    )
    with pytest.raises(InputMismatchError) as refusal:
        made.fitting(shapes)
    assert refusal.value.message == message


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 3), (2, 3, 4), (1, 1), (4, 0)])
def test_strides_are_pytorchs(shape: tuple[int, ...]) -> None:
    assert strides(shape) == torch.empty(shape).stride()


def test_what_was_not_used_for_longest_goes_first() -> None:
    recent: Recent[str] = Recent(2)
    recent.put(1, "one")
    recent.put(2, "two")
    assert recent.full
    assert recent.get(1) == "one"
    recent.put(3, "three")
    assert (recent.get(2), recent.values()) == (None, ["one", "three"])
    assert recent.pop_oldest() == "one"
    assert not recent.full
    assert (recent.pop(3), recent.pop(3)) == ("three", None)


def test_alike_are_tensors_of_the_same_types_sizes_and_strides() -> None:
    alike, x = Alike(), torch.rand(2, 3)
    assert not alike.check(x), "nothing was learnt"
    alike.learn([x])
    assert alike.check(torch.rand(2, 3))
    for other in (
        *(torch.rand(3, 3), torch.rand(6), torch.rand(3, 2).t(), torch.rand(2, 3).half()),
        *(torch.rand(4, 6)[::2, ::2], torch.rand(2, 3, device="meta")),
    ):
        assert not alike.check(other)


def test_only_so_many_lessons_are_taken() -> None:
    alike = Alike()
    for size in range(1, LESSONS + 3):
        alike.learn([torch.rand(size)])
    assert alike.check(torch.rand(LESSONS))
    assert not alike.check(torch.rand(LESSONS + 1))


def test_where_pytorch_has_no_such_check_nothing_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C._dynamo.guards, "TensorGuards")
    alike, x = Alike(), torch.rand(2)
    alike.learn([x])
    assert not alike.check(x)
