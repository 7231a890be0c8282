# SPDX-License-Identifier: Apache-2.0
"""Tensors inside an engine are shown, whatever TensorRT does for it; on the double of its names.

Building and loading is stood in for by evaluations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runtime.trt_double import double
from tests.tools.deep_network import INPUTS, NETWORK, STORED, X, expected
from trtpack_runtime.engines import LoadContext
from trtpack_runtime.engines._child import BuildJob
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import EngineBuildError
from trtpack_runtime.program import Segment
from trtpack_runtime.reference import evaluate
from trtpack_tools import probing
from trtpack_tools.accuracy import Expected, search
from trtpack_tools.probing import DebugJob, EngineProbe


class Builds:
    """Stands in for building and loading: engines are evaluations, which note how they were made.

    ``refuses`` are tensors that no engine can have as outputs, ``untold`` those no listener hears.
    """

    def __init__(self, refuses: Sequence[str] = (), untold: Sequence[str] = ()) -> None:
        self.built: list[tuple[list[str], list[str]]] = []
        self._refuses, self._untold = set(refuses), set(untold)
        self._plans: dict[str, BuildJob] = {}

    def build(self, job: BuildJob, on_progress: Any = None) -> None:
        further = [name for name in job.network.outputs if name not in NETWORK.outputs]
        self.built.append((further, list(job.options.debug)))
        if self._refuses & {*further, *job.options.debug}:
            raise EngineBuildError("no tactic", hint="none")
        self._plans[str(job.plan)] = job

    def load(self, module: str, plan: Path, context: LoadContext) -> Any:
        job = self._plans[str(plan)]
        held = SimpleNamespace(listener=None, watched=[])
        held.set_debug_listener = lambda listener: setattr(held, "listener", listener)
        held.set_tensor_debug_state = lambda name, flag: held.watched.append(name)

        def run(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            keep: dict[str, torch.Tensor] = {}
            outputs = evaluate(job.network, STORED, inputs, keep=keep)
            for name in held.watched if held.listener is not None else ():
                if name not in self._untold:
                    self._tell(held.listener, name, keep[name])
            return outputs

        runner: Any = run
        return _Runner(runner, [held])

    def _tell(self, listener: Any, name: str, value: torch.Tensor) -> None:
        kinds = SimpleNamespace(name="HOST"), SimpleNamespace(name="FLOAT")
        value = value.contiguous()
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        capsule = new(value.data_ptr(), None, None)
        assert listener.process_debug_tensor(capsule, *kinds, tuple(value.shape), name, 0)


class _Runner:
    def __init__(self, run: Any, contexts: list[Any]) -> None:
        self._run, self.contexts = run, contexts

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        answer: list[torch.Tensor] = self._run(inputs)
        return answer


def probe(monkeypatch: pytest.MonkeyPatch, release: str, builds: Builds) -> EngineProbe:
    monkeypatch.setattr(probing, "build_in_worker", builds.build)
    monkeypatch.setattr(probing, "load_engine", builds.load)
    segment = Segment("forward_0", "network", {}, {})
    context = LoadContext(segment, STORED, torch.device("cpu"), NETWORK)
    job = DebugJob("tensorrt", NETWORK, (), BuildOptions(tf32=True), context, "forward_0 of here")
    return EngineProbe(double(release), job, [X])


INNER = ["blocks.0/linear", "add", "blocks.5/linear"]


def test_on_release_8_tensors_become_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds()
    values = probe(monkeypatch, "8.6", builds)([*INNER, "blocks.5.act/relu"])
    assert builds.built == [(INNER, [])]
    wanted = expected().values([*INNER, "blocks.5.act/relu"])
    assert all(torch.equal(values[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("release", ["10.3", "11.1"])
def test_later_a_listener_is_told(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(untold=["add"])
    values = probe(monkeypatch, release, builds)(INNER)
    assert builds.built == [([], INNER), (["add"], [])]
    wanted = expected().values(INNER)
    assert all(torch.equal(values[name], wanted[name]) for name in INNER)


def test_tensors_tensorrt_refuses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(refuses=["add"])
    look = probe(monkeypatch, "10.3", builds)
    values = look(INNER)
    assert sorted(values) == sorted(set(INNER) - {"add"})
    count = len(builds.built)
    look(["blocks.0/linear"])
    assert builds.built[count:] == [(["blocks.0/linear"], [])]  # debugging was refused once


def test_an_engine_that_cannot_be_built_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds()

    def refuse(job: BuildJob, on_progress: Any = None) -> None:
        raise EngineBuildError("no tactic", hint="none")

    look = probe(monkeypatch, "8.6", builds)
    monkeypatch.setattr(probing, "build_in_worker", refuse)
    with pytest.raises(EngineBuildError, match="no tactic"):
        look(["blocks.5.act/relu"])


def test_found_in_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: a fault in what the network should be is found in the engine."""
    changed = {**STORED, "blocks.2.weight": STORED["blocks.2.weight"] * 0.97}
    truth = Expected(NETWORK, changed, INPUTS)
    report = search(NETWORK, truth, probe(monkeypatch, "8.6", Builds()), width=4)
    assert report.first is not None
    assert report.first.layer == "blocks.2/linear"


def test_replacing_outputs_keeps_the_network_whole() -> None:
    from trtpack_tools.check import check_network

    check_network(replace(NETWORK, outputs=(*NETWORK.outputs, *INNER)))
