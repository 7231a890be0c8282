# SPDX-License-Identifier: Apache-2.0
"""Methods in a call without PyTorch: a session over a built bundle, on doubles of CUDA and TensorRT
whose engines compute the bundle's own networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import trtpack
from tests.packager.test_methods import networks_of, notes, used
from tests.runtime.session.bundles import FACTS
from tests.runtime.session.conftest import Lab
from tests.runtime.session.trt_double import Net
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.finish import Finished
from trtpack_runtime.finish_bundle import write_finished
from trtpack_runtime.network import Network
from trtpack_runtime.reference import evaluate
from trtpack_runtime.session import Session

RECORD = {
    **{key: FACTS[key] for key in ("tensorrt", "os", "arch")},
    "sm": "8.7",
    "device": "Orin",
    "options": {},
    "weights": "inside",
    "refit": False,
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    made = Lab(tmp_path, monkeypatch)
    yield made
    made.end()


def net(network: Network, opened: Bundle) -> Net:
    """What an engine of a network computes."""
    constants = {name: view.tensor() for name, view in stored(opened).items()}

    def compute(*inputs: Any) -> Sequence[Any]:
        tensors = [torch.from_numpy(numpy.array(value)) for value in inputs]
        return [value.numpy() for value in evaluate(network, constants, tensors)]

    types = {tensor.name: tensor for tensor in network.inputs} | dict(network.tensors)
    return Net(
        {t.name: (t.dtype, t.shape) for t in network.inputs},
        {name: (types[name].dtype, types[name].shape) for name in network.outputs},
        compute,
        [dict(profile.shapes) for profile in network.profiles] or [{}],
    )


def ignoring_state(right: Net) -> Net:
    """An engine that takes the first value of the state for the state."""

    def compute(*inputs: Any) -> Sequence[Any]:
        names = zip(right.inputs, inputs, strict=True)
        return right.compute(*(v * (not name.startswith("state_")) for name, v in names))

    return replace(right, compute=compute)


def stored(opened: Bundle) -> Any:
    return opened.tensors("weights/0.safetensors")


class Called:
    """A session called as the model is, with tensors."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        def call(*args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
            given = [value.numpy() for value in (*args, *kwargs.values())]
            (answer,) = self._session.run(given, method=name).values()
            return torch.from_numpy(numpy.array(answer))

        return call


@pytest.mark.slow
def test_methods_share_state_in_a_session(lab: Lab, tmp_path: Path) -> None:
    model, methods = notes()
    options = trtpack.Options(
        targets=("orin",), output=tmp_path / "n.tar", defer=True, min_block_size=1
    )
    trtpack.build(model, methods, options=options)
    opened = open_bundle(tmp_path / "n.tar")
    nets, engines = {}, []
    for name in methods:
        (network,) = networks_of(opened, name, "orin")
        nets[f"{name}_0"] = net(network, opened)
        plan = tmp_path / f"{name}.plan"
        plan.write_text(f"plan {name}_0")
        engines.append(Finished(f"{name}_0", "tensorrt", plan, RECORD, False, 0.0, 0.0, ""))
    write_finished(opened, tmp_path / "done.tar", {"orin": tuple(engines)}, {})
    lab.machine(nets)
    session = lab.kept(Session(tmp_path / "done.tar", method=tuple(methods)))
    assert [g.follows for g in opened.manifest.methods["ask"].golden] == [("add",)]
    assert session.smoke().passed
    wanted = used(model, model.get_buffer("kept").zero_)
    for _ in range(2):
        for have, want in zip(used(Called(session), session.reset), wanted, strict=True):
            torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)
    session.close()
    lab.machine({**nets, "ask_0": ignoring_state(nets["ask_0"])})
    faulty = lab.kept(Session(tmp_path / "done.tar", method=tuple(methods)))
    assert [(c.sample, c.output) for c in faulty.smoke().failed] == [("ask-0", "output")]
