# SPDX-License-Identifier: Apache-2.0
"""Loops and conditionals with bodies small enough to be written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tests.runtime.layer_cases.case import NUMBERS, Case, Operand, x
from trtpack_runtime.dims import dim
from trtpack_runtime.network import Network, Tensor
from trtpack_tools.recorder import Recorder

T = torch.Tensor


def loops() -> list[Case]:
    return [
        Case(
            "scan",
            {"states": (x(2, 3),), "scanned": (x(2, 4, 3),), "captured": (x(1, 3),)},
            {"length": dim("scanned.0", 1), "axis": 1, "reverse": reverse},
            lambda states, scanned, captured, r=reverse: _running_sum(
                states[0], scanned[0], captured[0], reverse=r
            ),
            dtypes=NUMBERS,
            dynamic={"states.0": (0,), "scanned.0": (0, 1)},
            label="reverse" if reverse else "forward",
            regions=_sums,
        )
        for reverse in (False, True)
    ] + [
        Case(
            "scan",
            {"states": (x(3),)},
            {"length": 4, "axis": 0, "reverse": False},
            lambda states: states[0] * 16,
            dtypes=NUMBERS,
            label="states only",
            regions=_doubles,
        ),
        Case(
            "scan",
            {"scanned": (x(3, 4), x(3, 4))},
            {"length": 3, "axis": 0, "reverse": False},
            lambda scanned: scanned[0] - scanned[1],
            dtypes=NUMBERS,
            label="steps only",
            regions=_differences,
        ),
    ]


def conditionals() -> list[Case]:
    return [
        Case(
            "branch",
            {
                "condition": Operand((), "BOOL", (value,)),
                "captured": (x(2, 3), x(1, 3, constant=True)),
            },
            {},
            lambda condition, captured: (
                captured[0] + captured[1] if condition else captured[0] * captured[1]
            ),
            dtypes=NUMBERS,
            dynamic={"captured.0": (0,)},
            label=str(value).lower(),
            regions=_arithmetic,
        )
        for value in (True, False)
    ]


def _running_sum(state: T, scanned: T, captured: T, *, reverse: bool) -> tuple[T, T]:
    steps = (scanned + captured[:, None]).flip(1) if reverse else scanned + captured[:, None]
    sums = state[:, None] + steps.cumsum(1).to(state.dtype)
    return sums[:, -1], sums.flip(1) if reverse else sums


def _sums(recorder: Recorder, given: Mapping[str, Any]) -> dict[str, Network]:
    """The next state is state + slice + captured, and so is what the step answers."""
    (state,), (scanned,), (captured,) = (given[k] for k in ("states", "scanned", "captured"))
    body = recorder.region()
    before = body.region_input(state, "before")
    step = Tensor("", scanned.dtype, (scanned.shape[0], *scanned.shape[2:]))
    inputs = (body.region_input(step, "step"), body.region_input(captured, "along"))
    after = before
    for tensor in inputs:
        after = _elementwise(body, "SUM", after, tensor)
    return {"body": body.finish_region([after.name, after.name])}


def _doubles(recorder: Recorder, given: Mapping[str, Any]) -> dict[str, Network]:
    body = recorder.region()
    before = body.region_input(given["states"][0], "before")
    return {"body": body.finish_region([_elementwise(body, "SUM", before, before).name])}


def _differences(recorder: Recorder, given: Mapping[str, Any]) -> dict[str, Network]:
    body = recorder.region()
    a, b = (
        body.region_input(Tensor("", scanned.dtype, scanned.shape[1:]), "step")
        for scanned in given["scanned"]
    )
    return {"body": body.finish_region([_elementwise(body, "SUB", a, b).name])}


def _arithmetic(recorder: Recorder, given: Mapping[str, Any]) -> dict[str, Network]:
    """A sum or a product of an input of the region and a constant read by name."""
    made = {}
    varying, constant = given["captured"]
    for name, op in (("then", "SUM"), ("otherwise", "PROD")):
        region = recorder.region()
        first, _ = (region.region_input(tensor, name) for tensor in (varying, constant))
        made[name] = region.finish_region([_elementwise(region, op, first, constant).name])
    return made


def _elementwise(recorder: Recorder, op: str, a: Tensor, b: Tensor) -> Tensor:
    (made,) = recorder.add("elementwise", {"input1": a, "input2": b}, {"op": op}, name=op.lower())
    return made
