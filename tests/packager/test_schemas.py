# SPDX-License-Identifier: Apache-2.0
"""The snapshot of PyTorch 2.3's operators, and the script that takes it."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from trtpack import schemas
from trtpack.schemas import Argument

SCRIPT = Path(__file__).parents[2] / "scripts" / "snapshot_schemas"
YAML = """\
- func: abs(Tensor self) -> Tensor
- func: abs_(Tensor(a!) self) -> Tensor(a!)
- func: abs.out(Tensor self, *, Tensor(a!) out) -> Tensor(a!)
- func: chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]
- func: select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)
  autogen: bernoulli.Tensor, bernoulli.Tensor_out, select.out
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    module = ModuleType("snapshot_schemas")
    module.__file__ = str(SCRIPT)
    loader = SourceFileLoader("snapshot_schemas", str(SCRIPT))
    exec(compile(loader.get_data(str(SCRIPT)), str(SCRIPT), "exec"), module.__dict__)
    return module


def test_only_functional_overloads_are_kept(script: ModuleType) -> None:
    assert script.functional_schemas(YAML) == [
        "abs(Tensor self)",
        "bernoulli.Tensor",
        "chunk(Tensor(a -> *) self, int chunks, int dim=0)",
        "select.int(Tensor(a) self, int dim, SymInt index)",
    ]


def test_arguments_are_taken_apart() -> None:
    text = "Tensor self, int[1]? dim=[0,1], *, Scalar alpha=1, Generator? generator"
    assert schemas.parse_arguments(text) == (
        Argument("self", "Tensor", True, False),
        Argument("dim", "int[1]?", False, False),
        Argument("alpha", "Scalar", False, True),
        Argument("generator", "Generator?", True, True),
    )
    assert schemas.parse_arguments("") == ()


def test_the_snapshot_is_of_2_3() -> None:
    known = schemas.snapshot()
    assert len(known) > 1500
    assert "scaled_dot_product_attention" in known
    assert "rms_norm" not in known  # new in 2.4
    for name, arguments in known.items():
        for argument in arguments or ():
            assert argument.name.isidentifier(), name
            assert argument.type, name


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "reason"),
    [
        ("aten.relu.default", [{"value": "x"}], {}, None),
        ("aten.bernoulli.Tensor", [{"value": "x"}, {"value": "p"}], {}, None),
        ("getitem", [{"value": "x"}, 0], {}, None),
        ("sym.add", [{"value": "n"}, 1], {}, None),
        ("aten.relu.default", [{"value": "x"}, 1], {}, "takes 1 positional arguments, not 2"),
        ("aten.select.int", [{"value": "x"}, 0], {}, "requires argument 'index'"),
        ("aten.relu.default", [None], {}, "has another type for argument 'self'"),
        ("aten.sum.default", [{"value": "x"}], {"axis": 0}, "has no argument 'axis'"),
        ("prims.iota.default", [3], {}, "newer than PyTorch 2.3"),
    ],
)
def test_calls_are_held_against_it(
    op: str, args: list[object], kwargs: dict[str, object], reason: str | None
) -> None:
    found = schemas.lacking({"nodes": [{"name": "y", "op": op, "args": args, "kwargs": kwargs}]})
    assert len(found) == (reason is not None)
    assert reason is None or reason in found[0]
