# SPDX-License-Identifier: Apache-2.0
"""Makes a randomly initialised model answer its input, so that its numbers prove something.

Fresh weights often hide mistakes: a zero head, an untouched batch-norm statistic or a layer scale
of 1e-6 gives the same output for every input, and then any two computations agree. ``liven`` draws
the weights again from a seed and sets scales and statistics from what really flows through the
layers (layer by layer, as in Mishkin and Matas, "All you need is a good init"). ``check_alive``
proves the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.hooks import RemovableHandle

from trtpack_runtime.errors import ConfigError

from .buffers import unchanged_buffers

_LOW_PRECISION = (torch.float16, torch.bfloat16)
_VARIANTS = 8  # inputs that run together, so that statistics are not those of a single one
_EMBEDDING_STD = 1.0
_TOKEN_STD = 0.5  # position tables, class tokens, relative biases
_BIAS_STD = 0.1
_BATCH_NORM_SHIFT = 1.0  # keeps most ReLUs on: else rounding errors grow 1.2 times a layer
_TINY = 0.1  # a table below this, or a layer scale, is dead
_MOST_CONSTANT = 5.0  # how much larger than its deviation an output's mean may stay: taking a
# mean away leaves the rounding errors, so no more of it goes than has to
_ROUNDING = 1e-4  # a deviation below this share of the mean is none

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


class DeadModelError(ConfigError):
    """An output is nearly the same for two different inputs."""

    def __init__(self, output: int, difference: float, wanted: float) -> None:
        super().__init__(
            f"output {output} hardly depends on the input: "
            f"relative difference {difference:.2g}, wanted at least {wanted:.2g}",
            hint="liven the model (trtpack.livening.liven) or use trained weights",
        )
        self.output, self.difference, self.wanted = output, difference, wanted


def liven(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> None:
    """Draw the parameters of ``module`` again, in place, so that outputs depend on inputs.

    Every convolution and linear layer gives outputs of about unit scale, batch norms know the
    statistics of what they see, no head, gamma, layer scale or position table is zero or tiny. The
    same module, arguments and seed give the same weights on one machine. Parameters that no known
    layer owns and that already look alive keep their values. A model in float16 or bfloat16 is
    livened in float32 and cast back.
    """
    low = next((p.dtype for p in module.parameters() if p.dtype in _LOW_PRECISION), None)
    if low is not None:
        wide = tree_map_only(Tensor, lambda t: t.float() if t.dtype == low else t, (args, kwargs))
        liven(module.float(), *wide, seed=seed)
        module.to(low)
        return
    was_training = module.training
    module.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        tied = _embedding_heads(module)
        _draw(module, tied, generator)
        inputs = (tuple(args), dict(kwargs or {}))
        try:
            with unchanged_buffers(module, _has_statistics), _Settling(module, tied) as settling:
                settling.run(inputs, _joined(inputs, generator))
        finally:
            module.train(was_training)


def check_alive(
    module: nn.Module,
    args: Sequence[Any],
    tolerance: float,
    kwargs: Mapping[str, Any] | None = None,
    *,
    seed: int = 1,
) -> float:
    """The smallest relative L2 difference of outputs between ``args`` and other inputs like them.

    Errors: DeadModelError where it is below ``100 * tolerance``, or an output is not finite.
    Integer outputs must differ somewhere; outputs whose shape depends on the data are alive when
    their shapes differ.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        first = tree_leaves(module(*args, **(kwargs or {})))
        other_args, other_kwargs = vary((tuple(args), dict(kwargs or {})), generator)
        second = tree_leaves(module(*other_args, **other_kwargs))
    smallest = math.inf
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.numel():
            difference = _difference(a, b)
            if not difference >= 100 * tolerance:
                raise DeadModelError(index, difference, 100 * tolerance)
            smallest = min(smallest, difference)
    return smallest


def vary(inputs: Any, generator: torch.Generator) -> Any:
    """Other inputs of the same structure, shapes, dtypes and value ranges.

    Floats are shuffled within each tensor and integers drawn from its range, so that salinities
    stay salinities and ids stay in the vocabulary. Kept as they are: booleans, masks and flags (at
    most two distinct integers), and sorted integers (lengths, offsets, positions). A constant float
    tensor, such as zeros, gets normal noise added.
    """

    def other(value: Tensor) -> Tensor:
        flat = value.reshape(-1)
        if value.dtype == torch.bool or value.numel() < 2:
            return value
        if not value.is_floating_point() and not value.is_complex():
            if flat.unique().numel() <= 2 or bool((flat.diff() >= 0).all()):
                return value
            rows = value.reshape(-1, value.shape[-1])
            if value.dim() > 1 and bool((rows.diff(dim=1) >= 0).all()):
                return value
            low, high = int(flat.min()), int(flat.max())
            return torch.randint(low, high + 1, value.shape, generator=generator).to(value)
        if bool((flat == flat[0]).all()):
            noise = torch.randn(value.shape, generator=generator)
            return value + noise.to(value)
        order = torch.randperm(flat.numel(), generator=generator)
        return flat[order.to(flat.device)].reshape(value.shape)

    return tree_map_only(Tensor, other, inputs)


def _difference(a: Tensor, b: Tensor) -> float:
    if not (a.is_floating_point() or a.is_complex()):
        return math.inf if bool((a != b).any()) else 0.0
    a, b = a.flatten(), b.flatten()
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    a, b = a.double(), b.double()
    scale = torch.maximum(a.norm(), b.norm())
    difference = float((a - b).norm() / scale) if float(scale) > 0 else 0.0
    return difference if math.isfinite(difference) else 0.0


# --- drawing ---------------------------------------------------------------------------------


def _draw(module: nn.Module, tied: set[int], generator: torch.Generator) -> None:
    """Give every parameter new values by what its owner does with it."""
    seen = set[int]()
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.is_floating_point():
                continue
            seen.add(id(parameter))
            normal = torch.randn(parameter.shape, generator=generator)
            if isinstance(owner, _EMBEDDINGS):
                dim = parameter.shape[-1]
                std = dim**-0.25 if id(parameter) in tied else _EMBEDDING_STD
                _set(parameter, normal * std)
            elif _is_norm(owner):
                centre = 1.0 if name == "weight" else _shift(owner)
                _set(parameter, centre + _BIAS_STD * normal)
            elif parameter.dim() >= 2 and _owns_matrices(owner):
                _set(parameter, normal / math.sqrt(_fan_in(owner, parameter)))
            elif _owns_matrices(owner):
                _set(parameter, _BIAS_STD * normal)
            else:
                _revive(parameter, normal)


def _shift(norm: nn.Module) -> float:
    return _BATCH_NORM_SHIFT if _has_statistics(norm) else 0.0


def _revive(parameter: nn.Parameter, normal: Tensor) -> None:
    """Change a parameter of unknown use only where it is dead: constant, or tiny."""
    low, high = float(parameter.min()), float(parameter.max())
    largest = max(abs(low), abs(high))
    if low == high:
        if largest == 0:
            _set(parameter, normal * (_TOKEN_STD if parameter.dim() > 1 else _BIAS_STD))
        else:
            scale = 0.5 if largest < _TINY else low
            _set(parameter, scale * (1 + 0.1 * normal.clamp(-2, 2)))
    elif parameter.dim() > 1 and float(parameter.std()) < _TINY:
        _set(parameter, normal * _TOKEN_STD)


def _set(parameter: Tensor, value: Tensor) -> None:
    parameter.copy_(value.to(parameter))


def _is_norm(owner: nn.Module) -> bool:
    return "norm" in type(owner).__name__.lower() and not list(owner.children())


def _is_linear(owner: nn.Module) -> bool:
    """One matrix product, its output in proportion to its weight (Conv1D is of transformers)."""
    known = isinstance(owner, (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd))
    return known or type(owner).__name__ == "Conv1D"


def _owns_matrices(owner: nn.Module) -> bool:
    return _is_linear(owner) or isinstance(owner, (nn.RNNBase, nn.MultiheadAttention))


def _fan_in(owner: nn.Module, weight: Tensor) -> int:
    transposed = (
        isinstance(owner, nn.modules.conv._ConvTransposeNd) or type(owner).__name__ == "Conv1D"
    )
    return max(1, weight.numel() // weight.shape[1 if transposed else 0])


def _embedding_heads(module: nn.Module) -> set[int]:
    """Embedding tables that serve as an output layer too."""
    linear = {id(m.weight) for m in module.modules() if _is_linear(m)}
    return {id(m.weight) for m in module.modules() if isinstance(m, _EMBEDDINGS)} & linear


# --- settling --------------------------------------------------------------------------------


class _Settling:
    """While entered, every layer fits itself to the first input it sees; one pass settles all.

    A layer that runs again, or shares its weight with one that ran, stays as the first time left
    it.
    """

    def __init__(self, module: nn.Module, settled: set[int]) -> None:
        self.module = module
        self.settled = set(settled)
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> _Settling:
        self.fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it would bypass the hooks
        for child in self.module.modules():
            if _has_statistics(child):
                self.handles.append(child.register_forward_pre_hook(self._take_statistics))
            elif _is_linear(child) or isinstance(child, nn.MultiheadAttention):
                self.handles.append(child.register_forward_hook(self._scale))
        return self

    def __exit__(self, *_: object) -> None:
        torch.backends.mha.set_fastpath_enabled(self.fast_path)
        for handle in self.handles:
            handle.remove()

    def run(self, inputs: Inputs, several: Inputs) -> None:
        """One pass over ``several`` inputs joined, or, if the model takes no more, the given."""
        try:
            self.module(*several[0], **several[1])
        except Exception:  # whatever a model raises that is made for one size
            self.module(*inputs[0], **inputs[1])

    def _is_first(self, tensor: Tensor) -> bool:
        first = id(tensor) not in self.settled
        self.settled.add(id(tensor))
        return first

    def _take_statistics(self, norm: nn.Module, args: tuple[Any, ...]) -> None:
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        if not self._is_first(mean) or not isinstance(args[0], Tensor):
            return
        channels = args[0].detach().float().transpose(0, 1).flatten(1)
        seen_mean, seen_variance = channels.mean(1), channels.var(1, correction=0)
        least = (
            1e-2 * float(seen_variance.mean()) or 1.0
        )  # a channel that is constant over these inputs
        _set(mean, seen_mean)
        _set(variance, seen_variance.clamp(min=least))

    def _scale(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        attention = isinstance(layer, nn.MultiheadAttention)
        matrix = layer.out_proj if isinstance(layer, nn.MultiheadAttention) else layer
        result = output[0] if attention else output
        weight = _scalable_weight(matrix)
        if weight is None or not isinstance(result, Tensor) or not self._is_first(weight):
            return None
        axis = -1 - len(matrix.kernel_size) if isinstance(matrix, nn.modules.conv._ConvNd) else -1
        others = [d for d in range(result.dim()) if d != axis % result.dim()]
        bias = cast("Tensor | None", matrix.bias)
        if bias is None or result.numel() == result.shape[axis]:
            centre, spread = torch.zeros(()), float(result.std(correction=0))
        else:
            centre = result.mean(others, keepdim=True)
            deviation = float((result - centre).std(correction=0))
            constant = float(centre.square().mean().sqrt())
            if deviation < _ROUNDING * constant:
                deviation = constant  # the same everywhere: nothing but rounding would be left
            centre = centre * max(0.0, 1 - _MOST_CONSTANT * deviation / (constant or 1.0))
            spread = float((result - centre).square().mean().sqrt())
        if not (math.isfinite(spread) and spread > 0):
            return None
        weight.div_(spread)
        if bias is not None:
            _set(bias, (bias - centre.flatten()) / spread)
        settled = (result - centre) / spread
        return (settled, *output[1:]) if attention else settled


def _has_statistics(module: nn.Module) -> bool:
    """A batch norm, frozen ones included."""
    return all(
        isinstance(getattr(module, n, None), Tensor) for n in ("running_mean", "running_var")
    )


def _scalable_weight(layer: nn.Module) -> Tensor | None:
    """The parameter in proportion to the layer's weight: itself, or a weight norm's gain."""
    if parametrize.is_parametrized(layer, "weight"):
        chain = layer.get_submodule("parametrizations.weight")
        assert isinstance(chain, parametrize.ParametrizationList)
        gain = getattr(chain, "original0", None)
        return gain if type(chain[0]).__name__ == "_WeightNorm" else None
    weight = getattr(layer, "weight_g", getattr(layer, "weight", None))
    return weight if isinstance(weight, nn.Parameter) else None


def _joined(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Several inputs like the given ones, joined along each tensor's first dimension."""
    several = [inputs, *(vary(inputs, generator) for _ in range(_VARIANTS - 1))]
    tensors = [[x for x in tree_leaves(each) if isinstance(x, Tensor)] for each in several]
    joined = iter([torch.cat(g) if g[0].dim() else g[0] for g in zip(*tensors, strict=True)])
    return cast(Inputs, tree_map_only(Tensor, lambda _: next(joined), inputs))
