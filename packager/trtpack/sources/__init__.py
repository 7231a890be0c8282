# SPDX-License-Identifier: Apache-2.0
"""A MODEL argument becomes a module with example inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import SourceError
from ..options import InputArgument, SizeRange
from .arguments import call_text, exported_ranges, settle_inputs
from .example_code import code_of_call, code_of_specs
from .examples import BoundInputs, Call, spread
from .exported import from_program, load_exported
from .factory import (
    GIVEN,
    call_of,
    described,
    from_result,
    functions_in,
    load_file,
    load_package,
    raised,
)
from .loaded import Loaded
from .methods import FORWARD, Method, of_method, seen_as, specs_in
from .timm_models import load_timm
from .torchvision_models import load_torchvision
from .transformers_models import load_transformers
from .weights import WEIGHT_SUFFIXES, load_weights

__all__ = ["Call", "Method", "Model", "Source", "load_source", "load_sources"]

Model = str | nn.Module | torch.export.ExportedProgram | tuple[Any, ...]
"""A MODEL argument, an exported program, or what a factory returns: a module, or it with args, or
args and kwargs, or its methods by name."""

_Whole = (str, torch.export.ExportedProgram)
"""What is no module yet."""
_GIVEN = "give a torch.nn.Module, an exported program, or what stands for MODEL as text"
_FORMS = (
    "write file.py:factory, package.module:factory, FILE.pt2, torchvision:NAME, timm:NAME or hf:DIR"
)


@dataclass(frozen=True)
class Source:
    """A model in evaluation mode, on the CPU, with the inputs to trace it with.

    ``dynamic_shapes`` is what ``torch.export`` takes; ``ranges`` gives (flat input, axis) its
    minimum, optimum and maximum. A ``.pt2`` comes as ``exported`` and its unlifted ``module``.
    ``random`` says that no trained weights were loaded. ``metadata`` is what the source knows about
    labels and preprocessing. ``module`` is called as ``method`` of the model is.
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
    method: str = FORWARD

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
                f"running {self.name} on {call_text(call)}",
                hint="change the --input, or correct the line",
            ) from error

    def example_code(self) -> str:
        """Python for the example inputs as they stand in a call: ``torch.randn(1, 3, 8, 8)``."""
        if self._bound is not None:
            return code_of_specs(self._bound)
        return code_of_call((self.args, self.kwargs))

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
    """As ``load_sources``, of a model with one method.

    Raises:
        SourceError: as ``load_sources``, or it has several methods.
        ConfigError: inputs that the method does not take.
    """
    found = load_sources(model, weights=weights, dtype=dtype, seed=seed, inputs=inputs)
    if len(found) > 1:
        raise SourceError(
            f"{found[0].name} has the methods {', '.join(s.method for s in found)}",
            hint="return (module, inputs) from the factory, for one of them",
        )
    return found[0]


def load_sources(
    model: Model,
    *,
    weights: Path | None = None,
    dtype: str | None = None,
    seed: int = 0,
    inputs: Sequence[InputArgument] = (),
) -> tuple[Source, ...]:
    """Builds a model, loads its weights, settles the example inputs of each of its methods.

    A module given as an object is itself put into evaluation mode, on the CPU, in ``dtype``.

    Raises:
        SourceError: the model, its weights or a sample file cannot be used.
        ConfigError: inputs that a method does not take.
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
    is_random = loaded.random and weights is None
    loaded = replace(loaded, module=module, notes=tuple(notes), random=is_random)
    names = tuple(loaded.methods) or (FORWARD,)
    return tuple(
        _source(
            _as_method(loaded, name), name, of_method(inputs, name, names, "--input"), dtype, seed
        )
        for name in names
    )


def _as_method(loaded: Loaded, name: str) -> Loaded:
    """A model as one with the inputs of one of its methods, if it has several."""
    if not loaded.methods:
        return loaded
    method = loaded.methods[name]
    loaded = replace(loaded, module=seen_as(loaded.module, name))
    if method.inputs is None and method.kwargs is None:
        return loaded
    whole = replace(method, inputs=()) if method.inputs is None else method
    call = call_of(whole, f"method {name}")
    if specs := specs_in(call, name):
        return replace(loaded, inputs=specs)
    return replace(loaded, call=call, dynamic_shapes=method.dynamic_shapes)


def _source(
    loaded: Loaded, method: str, inputs: Sequence[InputArgument], dtype: str | None, seed: int
) -> Source:
    call, bound, real = settle_inputs(loaded, inputs, dtype, seed)
    dynamic_shapes, ranges = loaded.dynamic_shapes, {}
    if loaded.exported is not None:
        ranges = exported_ranges(loaded, bound)
    elif bound is not None:
        dynamic_shapes, ranges = bound.dynamic_shapes(), bound.ranges()
    return Source(
        loaded.name,
        loaded.module,
        call[0],
        call[1],
        dynamic_shapes,
        ranges,
        loaded.exported,
        loaded.metadata,
        loaded.notes,
        loaded.random,
        seed,
        bound,
        tuple(real),
        method,
    )


def _load(model: Model, dtype: str | None) -> Loaded:
    if isinstance(model, tuple) and model and isinstance(model[0], _Whole):
        given = from_result((nn.Identity(), *model[1:]), "", GIVEN)
        return replace(_load(model[0], dtype), call=given.call, inputs=())
    if isinstance(model, torch.export.ExportedProgram):
        return from_program(model, "program")
    if not isinstance(model, str):
        named = model[0] if isinstance(model, tuple) and model else model
        if not isinstance(named, nn.Module):
            raise SourceError(f"the model is {described(named)}", hint=_GIVEN)
        return from_result(model, type(named).__name__.lower(), GIVEN)
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
    with suppress(NotImplementedError):  # a module of torch.export stays as it was exported
        module.eval()
    module.requires_grad_(False)
    if dtype is not None:
        module.to(getattr(torch, dtype))
    if any(t.device.type != "cpu" for t in (*module.parameters(), *module.buffers())):
        module.to("cpu")
    return module
