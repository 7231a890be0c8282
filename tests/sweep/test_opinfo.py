# SPDX-License-Identifier: Apache-2.0
"""The first samples of every operator that PyTorch tests; scripts/opinfo tries all of them."""

from __future__ import annotations

import pytest

from tests.sweep import table
from tests.sweep.samples import operators
from tests.sweep.trying import Settings, outcomes

MOST = {"float32": 20, "int64": 8, "bool": 4, "float16": 6}
"""How many samples of each type."""


@pytest.mark.sweep
@pytest.mark.parametrize("operator", operators())
def test_no_sample_is_wrong(operator: str) -> None:
    found = [
        o for dtype, most in MOST.items() for o in outcomes(operator, dtype, Settings(most=most))
    ]
    assert [table.line(outcome) for outcome in found if outcome.state == "wrong"] == []
