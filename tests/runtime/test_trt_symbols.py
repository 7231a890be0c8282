# SPDX-License-Identifier: Apache-2.0
"""Every name the engines use on TensorRT's objects, held against what each release has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import trtpack_runtime.engines
from tests.runtime.trt_double.facts import has, members, releases
from trtpack_runtime.engines import _config
from trtpack_runtime.layers import ENUMS, KINDS
from trtpack_tools import layer_profiler, probing

ALL = tuple(releases())
SOURCES = {
    path.name: ast.parse(path.read_text(encoding="utf-8"))
    for path in (
        *sorted(Path(trtpack_runtime.engines.__file__).parent.glob("*.py")),
        Path(probing.__file__),
        Path(layer_profiler.__file__),
    )
}
OURS = frozenset(
    {
        *("constant", "enqueue", "format", "free", "int64"),
        *("major", "minor", "release", "update", "write"),
    }
)
"""Names of our own, Python's or PyTorch's objects that some release of TensorRT has too."""
EMITTING = ("_layers.py", "_moves.py")

ONLY_WHERE = {
    "IStreamWriter": "IStreamWriter",
    "build_serialized_network_to_stream": "IStreamWriter",
    "IProgressMonitor": "IProgressMonitor",
    "progress_monitor": "IProgressMonitor",
    "ComputeCapability": "ComputeCapability",
    "num_compute_capabilities": "ComputeCapability",
    "set_compute_capability": "ComputeCapability",
    "IDebugListener": "IDebugListener",
    "set_debug_listener": "IDebugListener",
    "set_tensor_debug_state": "IDebugListener",
    "mark_debug": "mark_debug",
    "mark_weights_refittable": "mark_weights_refittable",
    "indices_type": "indices_type",
    "add_attention_v2": "add_attention_v2",
    "queryKeys": "queryKeys",
    "query": "queryKeys",
    "tacticHash": "queryKeys",
    "timingMSec": "queryKeys",
    "TimingCacheValue": "update",
    "precision": "not causal_kind",
    "set_output_type": "not causal_kind",
    "add_plugin_v2": "not ComputeCapability",
    "add_plugin_v3": "add_plugin_v3",
    "IPluginCreatorV3One": "add_plugin_v3",
    "TensorRTPhase": "add_plugin_v3",
    "BUILD": "add_plugin_v3",
    "get_creator": "get_creator",
    "get_plugin_creator": "not get_creator",
    "create_execution_context_without_device_memory": (
        "create_execution_context_without_device_memory"
    ),
    "USER_MANAGED": "ExecutionContextAllocationStrategy",
    "set_device_memory": "set_device_memory",
    "PROFILE_SHARING_0806": "PROFILE_SHARING_0806",
}
"""A name not every release has -> the name the code asks for before it uses it.

Types of layers are told only to weakly typed networks, which ended with release 11, as
``IAttention.causal_kind`` began; there the code asks for ``STRONGLY_TYPED`` and
``OBEY_PRECISION_CONSTRAINTS``.
"""


@cache
def names(release: str) -> frozenset[str]:
    """Every name a release has, whosever it is."""
    table = releases()[release]
    found = {*table["functions"], *table["dtype_aliases"], *table["classes"]}
    for owner in table["classes"]:
        found |= members(release, owner)
    for enum, numbers in table["enums"].items():
        found |= {enum.split(".")[-1], *numbers}
    return frozenset(found)


def used() -> Iterator[tuple[str, str, str]]:
    """Attributes in the engines' sources that are TensorRT's: file, function's name, attribute."""
    every = frozenset().union(*map(names, ALL)) - OURS
    for file, tree in SOURCES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Attribute) and node.attr in every:
                        yield file, function.name, node.attr


def asked() -> frozenset[str]:
    """Names the sources ask for as text: with hasattr, getattr or in a table."""
    nodes = (node for tree in SOURCES.values() for node in ast.walk(tree))
    return frozenset(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def holds(release: str, condition: str) -> bool:
    """Whether a release has a name, or with ``not`` in front lacks it."""
    wanted = not condition.startswith("not ")
    return (condition.removeprefix("not ") in names(release)) == wanted


def test_names_that_not_every_release_has_are_asked_for_first() -> None:
    wrong = []
    for file, function, name in set(used()):
        lacking = [release for release in ALL if name not in names(release)]
        if file in EMITTING and function in KINDS:  # the emitter asks for the kind first
            lacking = [r for r in lacking if has(r, f"INetworkDefinition.add_{function}")]
        condition = ONLY_WHERE.get(name)
        wrong += [
            f"{file}, {function}: {name} is not in TensorRT {release}"
            for release in lacking
            if condition is None or holds(release, condition)
        ]
    assert sorted(wrong) == []


def test_what_is_asked_for_first_really_is() -> None:
    text = asked()
    conditions = {c for c in ONLY_WHERE.values() if not c.startswith("not ")}
    assert conditions <= text
    assert {"STRONGLY_TYPED", "OBEY_PRECISION_CONSTRAINTS"} <= text


def test_the_scan_sees_what_the_engines_use() -> None:
    seen = {name for _, _, name in used()}
    assert {"add_shuffle", "create_network", "set_memory_pool_limit", "execute_async_v3"} <= seen
    assert len(seen) > 100


@pytest.mark.parametrize("release", ALL)
def test_every_enum_member_a_network_may_name_is_some_releases(release: str) -> None:
    """A network's enums are TensorRT's; members a release lacks are newer or older ones."""
    newest = releases()["11.4"]["enums"]
    for enum, wanted in ENUMS.items():
        assert wanted <= set(newest[enum])
        known = releases()[release]["enums"].get(enum, {})
        lasting = set(known) & set(newest[enum])
        assert {m: known[m] for m in lasting} == {m: newest[enum][m] for m in lasting}


def test_kinds_came_with_the_release_the_table_says() -> None:
    plain = [release for release in ALL if not release.startswith("rtx")]
    for kind in KINDS.values():
        method = {"gather": "add_gather_v2"}.get(kind.name, kind.method)
        having = [r for r in plain if has(r, f"INetworkDefinition.{method}")]
        assert having == [r for r in plain if _number(r) >= _number(kind.since)], kind.name


def test_messages_name_the_first_release_with_an_option() -> None:
    plain = [release for release in ALL if not release.startswith("rtx")]
    for (owner, member), since in _config._SINCE.items():
        having = [r for r in plain if has(r, f"{owner}.{member}" if member else owner)]
        if member == "STRIP_PLAN":  # of use only together with what came with 10.2
            having = [r for r in having if has(r, f"{owner}.REFIT_INDIVIDUAL")]
        newer = [r for r in plain if since[0].isdigit() and _number(r) >= _number(since)]
        assert having == newer, f"{owner}.{member}"


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))
