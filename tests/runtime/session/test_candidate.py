# SPDX-License-Identifier: Apache-2.0
"""A candidate of a tuning where there is no PyTorch: a session is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.cuda_double import Error
from tests.runtime.session.nets import DOUBLE, NETS, some
from tests.runtime.session.test_smoke_numpy import golden
from trtpack_runtime import candidate
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.session import Session


@pytest.fixture
def bundle(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle on a machine without PyTorch."""
    monkeypatch.setattr(candidate.util, "find_spec", lambda name: None)
    lab.machine(NETS)
    made = golden(DOUBLE, input_0=some(), output_0=2 * some())
    return lab.bundle(NETS, {"forward": made})


def subject(lab: Lab, bundle: Path) -> Any:
    found: Any = candidate.subject_of(bundle, "orin", trust=True)
    lab.kept(found._session)
    return found


def test_it_is_called_with_its_golden_sample(
    lab: Lab, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    run_async = Session.run_async

    def noted(session: Session, inputs: Any, **options: Any) -> Any:
        future = run_async(session, inputs, **options)
        called.append((inputs, options, future))
        return future

    monkeypatch.setattr(Session, "run_async", noted)
    found = subject(lab, bundle)
    assert found.device == "cuda:0"
    assert found.memory_bytes > 0
    assert len(called) == candidate.WARM_CALLS
    figures = candidate.block(found, 0.0)
    alone, in_a_row = candidate.LEAST_CALLS, candidate.IN_FLIGHT
    assert len(called) == candidate.WARM_CALLS + alone + in_a_row
    assert all((inputs[0] == some()).all() for inputs, _, _ in called)
    assert {options["method"] for _, options, _ in called} == {"forward"}
    assert figures["ms"] > 0
    assert figures["per_second"] > 0


def test_a_call_that_fails_is_not_measured_as_a_fast_one(lab: Lab, bundle: Path) -> None:
    found = subject(lab, bundle)
    lab.cuda.fails["cudaEventSynchronize"] = Error.cudaErrorInvalidValue
    with pytest.raises(DeviceError, match="cudaErrorInvalidValue"):
        candidate.block(found, 0.0)
    lab.cuda.fails.clear()


@pytest.mark.parametrize("said", [True, False])
def test_it_takes_cuda_graphs_where_the_bundle_says_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    monkeypatch.setattr(candidate.util, "find_spec", lambda name: None)
    lab.machine(NETS)
    variant = {"cuda_graphs": True} if said else {}
    found = subject(lab, lab.bundle(NETS, {"forward": DOUBLE}, variant=variant))
    for _ in range(4):
        found.call()
    found.wait()
    assert ("graph" in lab.cuda.journal) == said
