# SPDX-License-Identifier: Apache-2.0
"""A MODEL argument becomes a module with example inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import SourceError
from ..options import InputArgument, InputSpec, SampleFile, SizeRange
from .examples import BoundInputs, Call, bind, cast_floats, signature_text, spread, traceable
from .exported import input_specs, load_exported
from .factory import from_result, functions_in, load_file, load_package, raised
from .loaded import Loaded
from .sample_files import Sample, check_sample, read_samples, specs_of
from .timm_models import load_timm
from .torchvision_models import load_torchvision
from .transformers_models import load_transformers
from .weights import WEIGHT_SUFFIXES, load_weights

__all__ = ["Call", "Model", "Source", "load_source"]

Model = str | nn.Module | tuple[Any, ...]
"""A MODEL argument, or what a factory returns: a module, (module, args) or (module, args, kwargs)."""

_FORMS = (
    "write file.py:factory, package.module:factory, FILE.pt2, torchvision:NAME, timm:NAME or hf:DIR"
)


@dataclass(frozen=True)
class Source:
    """A model in evaluation mode, on the CPU, with the inputs to trace it with.

    ``dynamic_shapes`` is what ``torch.export`` takes; ``ranges`` gives (flat input, axis) its
    minimum, optimum and maximum. A ``.pt2`` comes as ``exported`` and its unlifted ``module``.
    ``random`` says that no trained weights were loaded. ``metadata`` is what the source knows about
    labels and preprocessing.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    ranges: Mapping[tuple[int, int], SizeRange]
    exported: torch.export.ExportedProgram | None
    metadata: Mapping[str, Any]
    notes: tuple[str, ...]
    random: bool
    seed: int
    _bound: BoundInputs | None
    _real: tuple[Call, ...]

    def run(self, call: Call) -> Any:
        """What the model itself answers, without gradients.

        Raises:
            SourceError: the model raises, with the user's line.
        """
        args, kwargs = call
        try:
            with torch.no_grad():
                return self.module(*args, **kwargs)
        except Exception as error:
            raise raised(
                error,
                f"running {self.name} on {_call_text(call)}",
                hint="change the --input, or correct the line",
            ) from error

    def samples(self, count: int) -> Iterator[Call]:
        """Arguments to prove the bundle with: all real samples if there are any, else ``count``.

        Drawn ones start at the optimum sizes and go on with the smallest and the largest. The same
        seed draws the same.
        """
        if self._real:
            yield from self._real
        else:
            yield from spread((self.args, self.kwargs), self._bound, count, self.seed)


def load_source(
    model: Model,
    *,
    weights: Path | None = None,
    dtype: str | None = None,
    seed: int = 0,
    inputs: Sequence[InputArgument] = (),
) -> Source:
    """Builds a model, loads its weights, settles its example inputs.

    Raises:
        SourceError: the model, its weights or a sample file cannot be used.
        ConfigError: inputs that ``forward`` does not take.
    """
    _seed(seed)
    loaded = _load(model, dtype)
    notes = list(loaded.notes)
    module = loaded.module
    if weights is not None:
        if loaded.exported is not None:
            raise SourceError(
                f"weights cannot be replaced in {loaded.name}.pt2",
                hint="build from the module: file.py:factory --weights FILE",
            )
        notes = [*(n for n in notes if "random" not in n), *load_weights(module, weights)]
    if dtype is not None and loaded.exported is not None:
        raise SourceError(
            f"the type of {loaded.name}.pt2 is fixed",
            hint="convert the module before it is exported, or build from file.py:factory",
        )
    module = _settled(module, dtype, fixed=loaded.exported is not None)
    call, bound, real = _inputs(loaded, inputs, dtype, seed)
    dynamic_shapes, ranges = loaded.dynamic_shapes, {}
    if loaded.exported is not None:
        ranges = _within(loaded, bound)
    elif bound is not None:
        dynamic_shapes, ranges = bound.dynamic_shapes(), bound.ranges()
    return Source(
        loaded.name,
        module,
        call[0],
        call[1],
        dynamic_shapes,
        ranges,
        loaded.exported,
        loaded.metadata,
        tuple(notes),
        loaded.random and weights is None,
        seed,
        bound,
        tuple(real),
    )


def _load(model: Model, dtype: str | None) -> Loaded:
    if not isinstance(model, str):
        named = model[0] if isinstance(model, tuple) and model else model
        return from_result(model, type(named).__name__.lower(), "the given model")
    kind, colon, rest = model.partition(":")
    if colon and kind in ("torchvision", "timm", "hf"):
        if not rest:
            raise SourceError(f"MODEL {model!r} names no model", hint=_FORMS)
        if kind == "hf":
            return load_transformers(Path(rest).expanduser(), dtype)
        return load_torchvision(rest) if kind == "torchvision" else load_timm(rest)
    origin, colon, factory = model.rpartition(":")
    if colon and factory.isidentifier():
        path = Path(origin).expanduser()
        if path.suffix == ".py" or path.exists() or "/" in origin:
            return load_file(path, factory)
        if all(part.isidentifier() for part in origin.split(".")):
            return load_package(origin, factory)
    path = Path(model).expanduser()
    if path.suffix == ".pt2":
        return load_exported(path)
    raise _unknown(model, path)


def _unknown(model: str, path: Path) -> SourceError:
    """Why MODEL has none of the known forms, with the form that was probably meant."""
    if path.suffix == ".py":
        if not path.is_file():
            return SourceError(f"there is no file {path}", hint="check the path of MODEL")
        names = functions_in(path)
        hint = f"write {model}:{names[0]}" if names else "define a function that returns the model"
        return SourceError(f"MODEL {model} names no factory", hint=hint)
    if path.suffix in WEIGHT_SUFFIXES:
        return SourceError(
            f"{model} holds weights but not the model's code",
            hint=f"write file.py:factory --weights {model}",
        )
    if path.suffix == ".onnx":
        return SourceError(
            f"{model} is an ONNX file, which is not read", hint="build from the PyTorch model"
        )
    if (path / "config.json").is_file():
        return SourceError(f"{model} is a folder", hint=f"write hf:{model}")
    if path.exists():
        what = "a folder" if path.is_dir() else f"a file of unknown kind {path.suffix}".rstrip()
        return SourceError(f"cannot build from {model}, {what}", hint=_FORMS)
    if path.suffix or "/" in model:
        return SourceError(f"there is no file {model}", hint=_FORMS)
    meant = f"torchvision:{model}, timm:{model} or file.py:{model}"
    return SourceError(f"cannot tell what MODEL {model!r} is", hint=f"write for example {meant}")


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        import numpy
    except ImportError:
        return
    numpy.random.seed(seed % (1 << 32))


def _settled(module: nn.Module, dtype: str | None, *, fixed: bool) -> nn.Module:
    """In evaluation mode, on the CPU, without gradients, in the wanted floating type."""
    if fixed:
        return module
    module.eval()
    module.requires_grad_(False)
    if dtype is not None:
        module.to(getattr(torch, dtype))
    if any(t.device.type != "cpu" for t in (*module.parameters(), *module.buffers())):
        module.to("cpu")
    return module


def _inputs(
    loaded: Loaded, arguments: Sequence[InputArgument], dtype: str | None, seed: int
) -> tuple[Call, BoundInputs | None, list[Call]]:
    """The call to trace with, its specs if it was drawn from specs, and the real samples."""
    files = [a for a in arguments if isinstance(a, SampleFile)]
    specs = [a for a in arguments if isinstance(a, InputSpec)]
    forward = loaded.module.forward
    samples = read_samples(files, _parameters(loaded)) if files else []
    if samples and not specs:
        specs = [*specs_of(samples[0])]
    if not specs and loaded.call is not None:
        return cast_floats(_on_cpu(loaded.call), dtype), None, []
    if not specs and not loaded.inputs:
        raise SourceError(
            f"no example inputs for {loaded.name}: {signature_text(forward)}",
            hint="add --input 1x3x224x224, or return (module, inputs) from the factory",
        )
    bound = bind(specs or loaded.inputs, loaded.inputs, forward, dtype)
    real = [_call_of(i, sample, bound) for i, sample in enumerate(samples)]
    static = not bound.ranges()
    return (real[0] if real and static else bound.draw(traceable, seed)), bound, real


def _parameters(loaded: Loaded) -> list[str]:
    import inspect

    return list(inspect.signature(loaded.module.forward).parameters)


def _call_of(index: int, sample: Sample, bound: BoundInputs) -> Call:
    """A sample's tensors at the places of their specs, in the specs' types."""
    wanted = dict(zip(bound.parameters, bound.specs, strict=True))
    for name in wanted:
        if name not in sample:
            raise SourceError(
                f"sample {index} has no input {name}, it has {', '.join(sample)}",
                hint="rename the tensors in the file as the inputs are named",
            )
    for name in sample:
        if name not in wanted:
            raise SourceError(
                f"sample {index} has the tensor {name!r}, which is no input ({', '.join(wanted)})",
                hint="rename the tensors in the file as the inputs are named",
            )
    tensors: list[Tensor] = []
    for name, spec in wanted.items():
        check_sample(index, name, sample[name], spec)
        tensors.append(sample[name].to(getattr(torch, spec.dtype or "float32")))
    keywords = dict(zip(bound.kwargs, tensors[len(bound.args) :], strict=True))
    return tuple(tensors[: len(bound.args)]), keywords


def _within(loaded: Loaded, bound: BoundInputs | None) -> dict[tuple[int, int], SizeRange]:
    """The declared ranges of an exported program's inputs, which have to lie in its own.

    Raises:
        SourceError: a dimension the program has fixed, or a range it does not allow.
    """
    assert loaded.exported is not None
    graph = input_specs(loaded.exported)
    allowed = BoundInputs(graph, {}, ()).ranges()
    if bound is None:
        return allowed
    declared = bound.ranges()
    for name, spec, own in zip(bound.parameters, bound.specs, graph, strict=False):
        if len(spec.shape) != len(own.shape) or any(
            isinstance(a, int) and isinstance(b, int) and a != b
            for a, b in zip(spec.shape, own.shape, strict=True)
        ):
            raise SourceError(
                f"input {name} is {own.shape_text} in {loaded.name}.pt2, "
                f"{spec.shape_text} was asked for",
                hint="give the shape it was exported with",
            )
    for (position, axis), size in declared.items():
        limit = allowed.get((position, axis))
        name = bound.parameters[position]
        if limit is None:
            raise SourceError(
                f"dimension {axis} of input {name} is fixed in {loaded.name}.pt2",
                hint="export it again with dynamic_shapes, or give one size",
            )
        if size.minimum < limit.minimum or size.maximum > limit.maximum:
            raise SourceError(
                f"dimension {axis} of input {name} takes {limit.minimum} to {limit.maximum} in "
                f"{loaded.name}.pt2, {size} was asked for",
                hint="give a range inside it",
            )
    return {**allowed, **declared}


def _on_cpu(call: Call) -> Call:
    args, kwargs = pytree.tree_map_only(Tensor, lambda t: t.detach().cpu(), call)
    return tuple(args), dict(kwargs)


def _call_text(call: Call) -> str:
    """``(1x3x224x224 float32, ids=1x128 int64)``: the tensors of a call."""
    args, kwargs = call
    shown = [_leaf_text(v) for v in args] + [f"{k}={_leaf_text(v)}" for k, v in kwargs.items()]
    return f"({', '.join(shown)})"


def _leaf_text(value: Any) -> str:
    if isinstance(value, Tensor):
        shape = "x".join(map(str, value.shape)) or "scalar"
        return f"{shape} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
