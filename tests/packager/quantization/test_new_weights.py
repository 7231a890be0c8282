# SPDX-License-Identifier: Apache-2.0
"""New weights and new scales of a quantized model are rounded as the old ones were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import trtpack_runtime
from tests.packager.quantization.models import images
from tests.packager.quantization.test_torch_ao import SYMMETRIC, trained
from trtpack import pipeline
from trtpack.options import InputSpec, Options
from trtpack_runtime.bundle import open_bundle
from trtpack_tools.update_weights import update_weights

pytestmark = pytest.mark.slow  # it builds a bundle
SPEC = InputSpec("x", tuple(images().shape))


@pytest.mark.filterwarnings("ignore::trtpack_runtime.starting.DegradedWarning")
def test_a_bundle_takes_new_weights_and_scales(tmp_path: Path) -> None:
    model, path, new = trained(SYMMETRIC), tmp_path / "few.tar", tmp_path / "new.safetensors"
    pipeline.build(model, Options(targets=("orin",), output=path, inputs=(SPEC,)))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name.endswith("weight"):
            value.mul_(0.9).add_(0.01)
        if name.endswith("weight_fake_quant.scale"):
            value.mul_(1.05)
    save_file(state, new)
    updated = update_weights(open_bundle(path), new, path)
    assert updated.derived == 4  # the weights in int8
    model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(trtpack_runtime.load(path)(images()), model(images()))
