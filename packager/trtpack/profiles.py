# SPDX-License-Identifier: Apache-2.0
"""Further optimisation profiles: narrower ranges of a model's dynamic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .capture import Captured
from .errors import ConfigError
from .options import DynamicDim, InputSpec, ProfileSpec, SizeRange

Sizes = int | torch.SymInt


def profile_ranges(
    captured: Captured, profiles: Sequence[ProfileSpec]
) -> tuple[Mapping[str, SizeRange], ...]:
    """The range of every size symbol in each profile; what one leaves out stays as declared.

    Raises:
        ConfigError: an unknown input, a shape it cannot have, or sizes outside the declared range.
    """
    return tuple(_ranges(captured, profile) for profile in profiles)


def _ranges(captured: Captured, profile: ProfileSpec) -> Mapping[str, SizeRange]:
    nodes = {n.name: n for n in captured.graph_module.graph.find_nodes(op="placeholder")}
    shapes = {name: nodes[name].meta["val"].shape for name in captured.inputs if name}
    if not captured.ranges:
        raise ConfigError(
            f"{_text(profile)}: the model has no dynamic size to narrow",
            hint="declare one with --input x=1/8/32x3x224x224, or leave --profile away",
        )
    given: dict[str, SizeRange] = {}
    derived: list[tuple[str, int, torch.SymInt, SizeRange]] = []
    for spec in profile:
        shape = _shape(profile, spec, shapes)
        for axis, (size, dim) in enumerate(zip(shape, spec.shape, strict=True)):
            sizes = dim.range if isinstance(dim, DynamicDim) else SizeRange(dim, dim, dim)
            if isinstance(size, int):
                if sizes.values != (size,) * 3:
                    raise _wrong(profile, spec, axis, f"is always {size}, not {sizes}")
            elif size.node.expr.is_Symbol:
                symbol = str(size.node.expr)
                if given.setdefault(symbol, sizes) != sizes:
                    other = given[symbol]
                    raise _wrong(profile, spec, axis, f"is also {other}, since it is one size")
                _check_within(profile, spec, axis, sizes, captured.ranges[symbol])
            else:
                derived.append((str(spec.name), axis, size, sizes))
    ranges = {**captured.ranges, **given}
    for name, axis, size, sizes in derived:
        expression = size.node.expr
        found = [
            int(expression.subs({s: ranges[str(s)].values[i] for s in expression.free_symbols}))
            for i in range(3)
        ]
        if tuple(found) != sizes.values:
            raise ConfigError(
                f"{_text(profile)}: dimension {axis} of {name} is then "
                f"{SizeRange(*found)}, not {sizes}",
                hint=f"write {name} so, or leave it out",
            )
    return ranges


def _shape(
    profile: ProfileSpec, spec: InputSpec, shapes: Mapping[str, Sequence[Sizes]]
) -> Sequence[Sizes]:
    if spec.name not in shapes:
        raise ConfigError(
            f"{_text(profile)}: the model has no input {spec.name!r}",
            hint=f"name one of: {', '.join(shapes)}",
        )
    shape = shapes[str(spec.name)]
    if len(shape) != len(spec.shape):
        raise ConfigError(
            f"{_text(profile)}: {spec.name} has {len(shape)} dimensions, not {len(spec.shape)}",
            hint="write all of them, also those that do not vary",
        )
    return shape


def _check_within(
    profile: ProfileSpec, spec: InputSpec, axis: int, sizes: SizeRange, declared: SizeRange
) -> None:
    if sizes.minimum < declared.minimum or sizes.maximum > declared.maximum:
        raise _wrong(profile, spec, axis, f"is declared {declared}, which {sizes} leaves")


def _wrong(profile: ProfileSpec, spec: InputSpec, axis: int, problem: str) -> ConfigError:
    return ConfigError(
        f"{_text(profile)}: dimension {axis} of {spec.name} {problem}",
        hint="choose sizes within those of --input",
    )


def _text(profile: ProfileSpec) -> str:
    return f"--profile {';'.join(map(str, profile))}"
