# SPDX-License-Identifier: Apache-2.0
"""Models from the user's own code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from trtpack.errors import SourceError

from .loading import CODE, line_of, load, refused


def test_a_factory_gives_a_settled_module(code: str) -> None:
    source = load(f"{code}:make_model", "2x3")
    assert source.name == "mymodel"
    assert not source.module.training
    assert not any(p.requires_grad for p in source.module.parameters())
    assert source.run((source.args, source.kwargs)).shape == (2, 4)
    assert source.dynamic_shapes is None
    assert not source.random


def test_a_factory_may_give_inputs(code: str) -> None:
    assert load(f"{code}:with_input").args[0].shape == (2, 3)
    assert load(f"{code}:with_input").name == "with_input"
    source = load(f"{code}:with_arguments")
    assert source.kwargs["scale"].item() == 2
    assert source.args[0].shape == (2, 3)


def test_a_factory_may_give_dynamic_shapes(code: str) -> None:
    source = load(f"{code}:with_dynamic")
    exported = torch.export.export(
        source.module, source.args, source.kwargs, dynamic_shapes=source.dynamic_shapes
    )
    assert [int(r.upper) for r in exported.range_constraints.values()] == [8]


def test_the_same_seed_gives_the_same_model_and_inputs(code: str) -> None:
    first, again, other = (load(f"{code}:make_model", "2x3", seed=s) for s in (5, 5, 6))
    assert torch.equal(first.module.fc.weight, again.module.fc.weight)  # type: ignore[union-attr, arg-type]  # fc is a Linear
    assert torch.equal(first.args[0], again.args[0])
    assert not torch.equal(first.module.fc.weight, other.module.fc.weight)  # type: ignore[union-attr, arg-type]  # fc is a Linear
    assert not torch.equal(first.args[0], other.args[0])


def test_dtype_casts_parameters_and_inputs(code: str) -> None:
    source = load(f"{code}:with_arguments", dtype="float16")
    assert source.module.fc.weight.dtype == torch.float16  # type: ignore[union-attr]  # fc is a Linear
    assert source.args[0].dtype == torch.float16
    assert source.kwargs["scale"].dtype == torch.float16
    assert load(f"{code}:make_model", "2x3", dtype="bfloat16").args[0].dtype == torch.bfloat16


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("SIZE = 7")
    (tmp_path / "m.py").write_text(
        "import torch\nfrom beside_it import SIZE\ndef make(): return torch.nn.Linear(SIZE, 1)"
    )
    assert load(f"{tmp_path / 'm.py'}:make", "1x7").module.weight.shape == (1, 7)  # type: ignore[union-attr]  # a Linear


def test_a_package_is_found_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shapes_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    source = load("shapes_package.net:with_input")
    assert source.name == "with_input"


def test_a_module_of_this_process_is_taken_too() -> None:
    source = load(nn.Linear(3, 2), "1x3")
    assert (source.name, source.args[0].shape) == ("linear", (1, 3))
    assert load((nn.Linear(3, 2), (torch.ones(5, 3),))).args[0].shape == (5, 3)


@pytest.mark.parametrize(
    ("factory", "message", "hint"),
    [
        ("make_modle", "has no factory 'make_modle'", "did you mean make_model?"),
        ("raises", rf"KeyError: 'missing' at .*:{line_of('return table')}: return table\[", "line"),
        ("stops", f"SystemExit: 3 at .*:{line_of('raise SystemExit')}: raise Sys", "correct"),
        ("a_class", "returned the class Two", "return a module"),
        ("nothing", "returned None", "return a module"),
        ("wanting", "without arguments .*'features'", "defaults"),
        ("on_meta", "fc.weight is on the meta device", "--weights"),
        ("lazy", "no shapes yet: weight", "call it once"),
        ("scripted", "returned a TorchScript module", "from the nn.Module"),
        ("CONSTANT", "is an int, not a factory", "return a module"),
    ],
)
def test_says_what_is_wrong_with_a_factory(
    code: str, factory: str, message: str, hint: str
) -> None:
    error = refused(f"{code}:{factory}", "1x3")
    assert re.search(message, error.message), error.message
    assert hint in error.hint


def test_an_error_while_running_names_the_line_and_the_inputs(code: str) -> None:
    source = load(f"{code}:fragile", "2x3")
    with pytest.raises(SourceError) as caught:
        source.run((source.args, source.kwargs))
    assert "(2x3 float32)" in caught.value.message
    assert f"mymodel.py:{line_of('return x @ x')}: return x @ x" in caught.value.message
    assert "--input" in caught.value.hint


def test_a_file_that_does_not_parse_shows_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import torch\ndef make(:\n    pass\n")
    assert f"SyntaxError: invalid syntax at {path}:2: def make(:" in refused(f"{path}:make").message


def test_a_missing_package_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text("import no_such_package.sub\n")
    assert refused(f"{path}:make").hint == "install it, for example: pip install no_such_package"
    assert refused("no_such_package.sub:make").message == (
        "there is no Python module no_such_package.sub"
    )


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("{dir}/mymodle.py:make_model", "there is no file", "did you mean {dir}/mymodel.py:make_"),
        ("{dir}/mymodel.py", "names no factory", "write {dir}/mymodel.py:"),
        ("{dir}/no/m.py:make", "there is no folder {dir}/no", "check the path"),
        ("{dir}/none.pt2", "there is no file {dir}/none.pt2", "check the path"),
        ("{dir}/mymodel.txt", "there is no file", "write file.py:factory"),
        ("net.onnx", "ONNX", "PyTorch model"),
        ("net.pth", "holds weights but not the model's code", "--weights net.pth"),
        ("resnet18", "cannot tell what MODEL 'resnet18' is", "torchvision:resnet18"),
        ("{dir}", "cannot build from {dir}, a folder", "write file.py:factory"),
        ("hf:{dir}/none", "there is no folder", "hf:DIR"),
        ("hf:{dir}", "has no config.json", "the model's own folder"),
        ("timm:", "names no model", "write file.py:factory"),
    ],
)
def test_says_what_is_wrong_with_model(
    code: str, tmp_path: Path, model: str, message: str, hint: str
) -> None:
    error = refused(model.format(dir=tmp_path))
    assert message.format(dir=tmp_path) in error.message
    assert hint.format(dir=tmp_path) in error.hint
