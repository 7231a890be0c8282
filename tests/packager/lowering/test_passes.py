# SPDX-License-Identifier: Apache-2.0
"""Each pass on its own: what it rewrites, what it keeps, and that numbers stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from trtpack.branches import every_branch
from trtpack.capture import capture
from trtpack.lowering import PASSES, lower
from trtpack.lowering.drop_asserts import drop_asserts
from trtpack.lowering.drop_no_ops import drop_no_ops
from trtpack.lowering.fold_batch_norm import fold_batch_norm
from trtpack.lowering.fold_constants import fold_constants
from trtpack.lowering.graph import Recipes, run_pass
from trtpack.lowering.inline_sizes import inline_sizes
from trtpack.lowering.relax_views import relax_views
from trtpack_runtime import recipes as recipe_format
from trtpack_runtime.errors import CompileError

aten = torch.ops.aten


def operators(module: fx.GraphModule) -> Counter[str]:
    return Counter(
        str(n.target).removeprefix("aten.") for n in module.graph.nodes if n.op == "call_function"
    )


def captured(function: Callable[..., Any] | nn.Module, *args: torch.Tensor) -> fx.GraphModule:
    class Wrapped(nn.Module):
        def forward(self, *inputs: torch.Tensor) -> Any:
            return function(*inputs)

    module = function if isinstance(function, nn.Module) else Wrapped()
    return capture(module.eval(), args).graph_module


def constants(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def lively(norm: nn.Module) -> nn.Module:
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


def test_drop_asserts() -> None:
    def checked(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32) * 2

    module = captured(checked, torch.ones(3))
    assert "_assert_tensor_metadata.default" in operators(module)
    assert run_pass(drop_asserts, module, {}) == 1
    assert "_assert_tensor_metadata.default" not in operators(module)


def test_inline_sizes_leaves_only_tensor_work() -> None:
    model = nn.Flatten()
    batch = torch.export.Dim("batch", min=1, max=8)
    module = capture(model, (torch.ones(2, 3, 4),), dynamic_shapes={"input": {0: batch}})
    graph_module = module.graph_module
    assert "sym_size.int" in operators(graph_module)
    assert run_pass(inline_sizes, graph_module, {}) == 1
    assert "sym_size.int" not in operators(graph_module)


def test_inline_sizes_keeps_sizes_of_data() -> None:
    module = captured(lambda x: x.unique().view(1, -1), torch.arange(3))
    before = operators(module)
    assert run_pass(inline_sizes, module, {}) == 0
    assert operators(module) == before


def test_relax_views() -> None:
    module = captured(lambda x: x.view(2, -1), torch.ones(4, 3))
    assert run_pass(relax_views, module, {}) == 1
    assert operators(module) == {"reshape.default": 1}


@pytest.mark.parametrize(
    ("function", "dropped"),
    [
        (lambda x: nn.functional.dropout(x, 0.5, False) + 1, True),
        (lambda x: x.clone() + 1, True),
        (lambda x: x.to(torch.float32).detach() + 1, True),
        (lambda x: x.reshape(4, 3) + 1, True),
        (lambda x: x.permute(0, 1) + 1, True),
        (lambda x: x[:, :] + 1, True),
        (lambda x: x.expand(4, 3) + 1, True),
        (lambda x: nn.functional.pad(x, (0, 0)) + 1, True),
        (lambda x: x.to(torch.float16) + 1, False),
        (lambda x: x.reshape(3, 4) + 1, False),
        (lambda x: x.permute(1, 0) + 1, False),
        (lambda x: x[:, ::2] + 1, False),
        (lambda x: nn.functional.pad(x, (0, 1)) + 1, False),
    ],
)
def test_drop_no_ops(function: Callable[..., Any], dropped: bool) -> None:
    module = captured(function, torch.ones(4, 3))
    for rewrite in (drop_asserts, relax_views, drop_no_ops):
        run_pass(rewrite, module, {})
    assert (operators(module) == {"add.Tensor": 1}) == dropped


def test_a_returned_copy_of_an_input_stays_a_copy() -> None:
    module = captured(lambda x: x.clone(), torch.ones(3))
    assert run_pass(drop_no_ops, module, {}) == 0
    assert operators(module) == {"clone.default": 1}


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(
    ("producer", "norm", "shape"),
    [
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), (2, 3, 5, 5)),
        (nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), (2, 3, 5, 5)),
        (nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), (2, 4, 5, 5)),
        (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), (2, 3, 5)),
        (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), (2, 3, 5, 5)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.ConvTranspose1d(4, 4, 3, groups=4, bias=False), nn.BatchNorm1d(4), (2, 4, 5)),
        (nn.Linear(3, 4), nn.BatchNorm1d(4), (2, 3)),
    ],
    ids=str,
)
def test_fold_batch_norm(
    producer: nn.Module, norm: nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(producer, lively(norm)).to(dtype).eval()
    x = torch.randn(shape, dtype=dtype)
    recipes: Recipes = {}
    module = captured(model, x)
    assert run_pass(fold_batch_norm, module, recipes) == 1
    run_pass(fold_constants, module, recipes)
    assert sum(operators(module).values()) == 1
    module.recompile()
    (answer,) = module(x)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(answer, model(x), rtol=tolerance, atol=tolerance)
    stored = {k: v for k, v in constants(module).items() if "folded" not in k}
    stored |= dict(model.state_dict())
    for name, recipe in recipes.items():
        replayed = recipe_format.replay(recipe, stored)
        torch.testing.assert_close(replayed, constants(module)[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
    ],
    ids=["batch statistics", "not after the convolution"],
)
def test_a_batch_norm_that_cannot_be_folded_stays(model: nn.Sequential) -> None:
    channels = model[0].in_channels
    module = captured(model, torch.randn(2, channels, 5, 5))
    assert run_pass(fold_batch_norm, module, {}) == 0


def test_a_shared_convolution_is_not_folded() -> None:
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = convolution, norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convolution(x)
            return self.norm(y) + y

    module = captured(Shared(), torch.randn(2, 3, 5, 5))
    assert run_pass(fold_batch_norm, module, {}) == 0


def test_fold_constants_evaluates_what_reads_no_input() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (self.weight.exp() + 1) + torch.arange(3)

    recipes: Recipes = {}
    model = Table()
    module = captured(model, torch.ones(3))
    run_pass(fold_constants, module, recipes)
    assert operators(module) == {"mul.Tensor": 1, "add.Tensor": 1}
    ((name, recipe),) = recipes.items()
    assert recipe_format.sources(recipe) == ["weight"]
    torch.testing.assert_close(constants(module)[name], model.weight.exp() + 1)


def test_fold_constants_keeps_random_numbers() -> None:
    module = captured(lambda x: x + torch.rand(3), torch.ones(3))
    before = operators(module)
    run_pass(fold_constants, module, {})
    assert operators(module) == before


def test_fold_constants_does_not_blow_up_what_is_stored() -> None:
    module = captured(lambda x: x + torch.ones(1, 1).expand(1024, 1024), torch.ones(1024, 1024))
    run_pass(fold_constants, module, {})
    assert "expand.default" in operators(module)


def test_a_failing_pass_is_named() -> None:
    def break_graph(graph: fx.Graph) -> int:
        raise ValueError("no such node")

    module = captured(lambda x: x + 1, torch.ones(3))
    with pytest.raises(CompileError, match="the pass break_graph failed: ValueError: no such node"):
        run_pass(break_graph, module, {})


def test_lowering_reports_every_pass_in_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).eval()
    lowered = lower(capture(model, (torch.randn(1, 3, 5, 5),)))
    assert list(lowered.effects) == [p.__name__ for p in PASSES]
    assert lowered.effects["fold_batch_norm"] == 1
    assert set(lowered.recipes) == {"0|weight_bn_folded", "0|bias_bn_folded"}


def test_branches_are_lowered_too() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def then(x: torch.Tensor) -> torch.Tensor:
                spread = x.var(-1, correction=0, keepdim=True)
                normal = (x - x.mean(-1, keepdim=True)) / torch.sqrt(spread + 1e-5)
                return normal * self.weight

            def otherwise(x: torch.Tensor) -> torch.Tensor:
                return torch.cond(
                    x.sum() > 9,
                    lambda x: (x * 2.0 * 3.0).clone(),
                    lambda x: x.clone(),
                    (x,),
                )

            return torch.cond(x.sum() > 0, then, otherwise, (x,))

    model = Choosing().eval()
    x = torch.randn(3, 4)
    made = lower(capture(model, (x,)))
    assert made.effects["recognise_layer_norm"] == 1
    assert made.effects["fold_scalars"] == 1
    left = [operators(branch) for branch in every_branch(made.captured.graph_module)]
    assert {"layer_norm.default": 1} in left
    assert {"mul.Tensor": 1} in left
    assert {"clone.default": 1} in left, "a branch never answers its own input"
    for sample in (x, x.abs(), -x.abs(), x.abs() * 9 - 18):
        (answer,) = made.captured.graph_module(sample)
        torch.testing.assert_close(answer, model(sample))


def test_a_recipe_names_tables_instead_of_writing_them_out() -> None:
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            index = torch.arange(4)
            for _ in range(40):  # written out, this would be 2**40 operators
                index = (index + index) % 4 + torch.arange(4)
                index = index % 4
            return x + self.weight[index]

    recipes: Recipes = {}
    module = captured(Looked(), torch.ones(4, 2))
    run_pass(fold_constants, module, recipes)
    ((name, recipe),) = recipes.items()
    weight, table = recipe_format.sources(recipe)
    assert (weight, table.split("|")[0]) == ("weight", "table")
    replayed = recipe_format.replay(recipe, constants(module))
    torch.testing.assert_close(replayed, constants(module)[name], rtol=0, atol=0)
