# SPDX-License-Identifier: Apache-2.0
"""Every case of the converters' tests once more: all releases, bfloat16, and sizes left open.

The quick lane runs the cases as written and in float16, for three targets. Here every release's
double takes the network of each case, in three types, and of the same call with one more open
size; all answers are held against eager PyTorch, and TensorRT-RTX builds what is new to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.packager.converters import engine
from tests.packager.converters.harness import (
    EVERY,
    ON_GPU_ONLY,
    Case,
    Graph,
    assert_agrees,
    assumes_sizes,
    graph_of,
    network,
    refused_beforehand,
    variants,
)
from tests.proving.collecting import collect
from trtpack.convert import ConversionError
from trtpack.converters.refusals import NO_LAYER_SIZED_BY_DATA, NOT_SIZED_BY_DATA_BEFORE_10
from trtpack.converters.sampling import WRONG_BICUBIC

pytestmark = pytest.mark.slow

FEWEST = 1500
"""Cases that there are at least."""

WITHOUT_CASES = {
    "coverage": "is about the library",
    "every_case": "this one",
    "harness": "is about the checks",
    "layout_properties": "makes cases at random",
    "number_properties": "makes cases at random",
    "on_gpu": "runs the cases",
    "registry": "is about the library",
}
"""Test files that no case is collected from, and why."""

SUBJECTS = sorted(
    {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    - set(WITHOUT_CASES)
)

_COUNT = "a running count of so many elements needs ICumulativeLayer of TensorRT 10.8"
_VOLUMES = "before TensorRT 11 images can be sampled, but no volumes"
LACKING: Mapping[str, set[str]] = {
    "8.6": {
        "TensorRT 8 takes int8 for scaled numbers only, never as they are",
        "TensorRT has bfloat16 from 10.0 on",
        "TensorRT computes this in floats only, got int64",
        "TensorRT raises whole numbers to powers since 10.0",
        "this TensorRT has no top-k of int64",
        NOT_SIZED_BY_DATA_BEFORE_10,
        WRONG_BICUBIC,
        _COUNT,
        _VOLUMES,
    },
    "10.3": {_COUNT, _VOLUMES},
    "10.16": {_VOLUMES},
    "11.1": set(),
    "rtx-1.7": {NO_LAYER_SIZED_BY_DATA},
}
"""What a release cannot take of the cases as they are written: all reasons there may be."""

NEVER_OPEN = {
    "a size times 0.7 rounds in floating point as no quotient of numbers does",
    "its kernel and channels have to be fixed",
    "the number of channels or the kernel's size is dynamic",
    "the number of rows is dynamic, and with it which pairs there are",
    "the number of channels is dynamic",
    "the scale does not lead exactly to a dynamic size",
}
"""Why a case with one more open size may stay in PyTorch on any release."""


NOT_OPENED = {
    "include_last_offset=True": "the last offset has to be the end",
    "upsample_nearest2d.default(float32[2x3x": "the given scales have to lead to the given sizes",
    "topk.default(float32[4000": "among so many numbers some are equal, in any order",
}
"""Parts of cases for which eager PyTorch's answer is not to be had at another size, and why."""


@cache
def _cases() -> dict[str, list[Case]]:
    unreadable: dict[str, str] = {}
    found: dict[str, list[Case]] = defaultdict(list)
    for subject, case in collect(unreadable):
        found[subject].append(case)
    assert unreadable == {}
    return dict(found)


def test_every_case_is_collected() -> None:
    found = _cases()
    assert sorted(found) == SUBJECTS, "a test file without cases belongs into WITHOUT_CASES"
    ours = {id(case) for cases in found.values() for case in cases}
    assert {case.op.name() for case in _rows() if id(case) not in ours} <= ON_GPU_ONLY
    assert sum(map(len, found.values())) >= FEWEST


def _rows() -> Iterator[Case]:
    """Every case in a list of a test file."""
    for subject in SUBJECTS:
        module = import_module(f"{__package__}.test_{subject}")
        lists = [value for value in vars(module).values() if isinstance(value, list)]
        yield from (case for rows in lists for case in rows if isinstance(case, Case))


@pytest.mark.parametrize("dtype", ["as written", "float16", "bfloat16"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_release_takes_the_network(subject: str, dtype: str) -> None:
    is_new = dtype != "as written"  # which the quick lane builds
    cases = [v for case in _cases()[subject] for v in _in(dtype, case)]
    _assert_none([line for case in cases for line in _wrong(case, LACKING, build=is_new)])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_one_more_size_may_be_open(subject: str) -> None:
    lacking = {release: reasons | NEVER_OPEN for release, reasons in LACKING.items()}
    written = (case for case in _cases()[subject] if not any(p in str(case) for p in NOT_OPENED))
    opened = [case for each in written for case in each.openings()]
    _assert_none([line for case in opened for line in _wrong(case, lacking, build=True)])


def _in(dtype: str, case: Case) -> list[Case]:
    return [case] if dtype == "as written" else variants(case, getattr(torch, dtype))


def _wrong(case: Case, lacking: Mapping[str, set[str]], *, build: bool) -> Iterator[str]:
    """What is wrong with a case, and for which releases, a line each."""
    graph, agreed = graph_of(case), set[str]()
    if assumes_sizes(graph):
        return  # PyTorch itself does not leave the size open
    found: dict[str, list[str]] = defaultdict(list)
    for release, target in EVERY.items():
        try:
            reason = refused_beforehand(graph[0], target) or _refused_or_wrong(
                case, graph, release, agreed, build=build
            )
        except Exception as error:
            found[f"{type(error).__name__}: {error or '-'}"].append(release)
        else:
            if reason and reason not in lacking[release]:
                found[f"is refused: {reason}"].append(release)
    yield from (f"{case} on {', '.join(releases)}: {why}" for why, releases in found.items())


def _refused_or_wrong(
    case: Case, graph: Graph, release: str, agreed: set[str], *, build: bool
) -> str | None:
    """Why a case is refused while it is converted, None where all is well; ``agreed`` are the
    networks whose answers are known to be right."""
    try:
        segment = network(graph, release)
    except ConversionError as error:
        return error.refusal.reason
    if segment.network.digest() not in agreed:
        assert_agrees(case, graph, segment, "it")
        agreed.add(segment.network.digest())
    if build and release.startswith("rtx"):
        engine.build(segment)
    return None


def _assert_none(wrong: Sequence[str]) -> None:
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong)
