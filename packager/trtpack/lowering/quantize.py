# SPDX-License-Identifier: Apache-2.0
"""Quantizes a trained model: inserts what rounds weights and values to numbers of few bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from trtpack.calibration.cache import graph_key, read_cache, write_cache
from trtpack.calibration.measuring import measure
from trtpack.calibration.observers import reach
from trtpack.calibration.places import Places, Weight, places
from trtpack.calibration.request import Calibrated, Quantization
from trtpack.capture import constant_of
from trtpack.errors import ConfigError
from trtpack.precision.deciding import names
from trtpack.precision.plan import matched
from trtpack.quantization.operators import DEQUANTIZE, FAKE_QUANTIZE, RANGES

from .fold_constants import fold_constants
from .graph import Recipes, add_constant, insert

aten = torch.ops.aten
_SMALLEST_HALF = 2.0**-14
"""From here on float16 has all its bits: scales are its numbers, so that any type can meet them."""


def quantize(graph: fx.Graph, recipes: Recipes) -> int:
    """Round what products read to INT8 or FP8, or weights alone to INT8 or INT4.

    The module's ``meta["quantization"]`` asks for it; ``meta["calibrated"]`` gets what was found.
    A value is rounded once for all that read it in few bits, weights by channels, or by blocks of a
    row where they alone are rounded. Scales of weights follow from the weights, so new ones bring
    their own.

    Needs:   constants folded: weights are what products really multiply.
    Keeps:   pinned operators, a model that is quantized already, and values that are always 0.
    Returns: how many values and weights it rounds.
    """
    module = graph.owning_module
    assert module is not None
    asked: Quantization | None = module.meta.get("quantization")
    if asked is None:
        return 0
    return _Quantizing(graph, recipes, module, asked).run()


class _Quantizing:
    def __init__(
        self, graph: fx.Graph, recipes: Recipes, module: fx.GraphModule, asked: Quantization
    ) -> None:
        self.graph, self.recipes, self.module, self.asked = graph, recipes, module, asked
        self.made = Calibrated(asked.dtype, asked.observer, None, block=asked.weight_block)
        self.rounded: dict[tuple[fx.Node, float], fx.Node] = {}

    def run(self) -> int:
        if any(node.target in (FAKE_QUANTIZE, DEQUANTIZE) for node in self.graph.nodes):
            raise ConfigError(
                f"the model is quantized already, --precision {self.asked.dtype.lower()} would "
                "round it twice",
                hint="leave --precision away, or use fp16",
            )
        found = places(self.graph, _is_constant, self._stays)
        if not found.products and self.asked.partial:
            return 0
        if not found.products:
            raise ConfigError(
                f"nothing in the model can be quantized to {self.asked.dtype}: it has no "
                "convolution, linear layer or product of matrices that is not pinned",
                hint="leave --precision away",
            )
        self.made.products = len(found.products)
        if not self.asked.weights_only:
            self._values(found)
        for weight in found.weights:
            self._weight(weight)
        if self.asked.weights_only and not self.made.weights and not self.asked.partial:
            self._check_rows(found)
        fold_constants(self.graph, self.recipes)
        self.module.meta["calibrated"] = self.made
        return self.made.values + self.made.weights

    def _check_rows(self, found: Places) -> None:
        """Refuses blocks that fill no row of any linear layer, where there is one."""
        rows = {
            value.shape[1]
            for weight in found.weights
            if weight.reader.target is aten.linear.default
            and (value := constant_of(weight.value)) is not None
            and value.dim() == 2
        }
        if not rows:
            return
        fits = next((size for size in (128, 64, 32, 16, 8) if math.gcd(*rows) % size == 0), None)
        sizes = ", ".join(map(str, sorted(rows)))
        raise ConfigError(
            f"blocks of {self.asked.weight_block} fill no row of a linear layer, rows have "
            f"{sizes} columns: nothing would be quantized to {self.asked.dtype}",
            hint=f"use --weight-block {fits}" if fits else "leave --precision away",
        )

    def _stays(self, node: fx.Node) -> bool:
        return any(matched(pin, names(node)) for pin in self.asked.pins)

    # --- values ----------------------------------------------------------------------------------
    def _values(self, found: Places) -> None:
        reaches = self._reaches(found)
        for node, index in found.joined:
            if reaches.get(node.name):
                parts: list[Any] = list(node.args[0])  # type: ignore[arg-type]  # what it joins
                parts[index] = self._round(parts[index], reaches[node.name])
                node.update_arg(0, parts)
        for use in found.uses:
            value = use.value
            if not reaches.get(value.name):
                self.made.left[value.name] = "every number of it is 0"
                continue
            use.reader.update_arg(use.index, self._round(value, reaches[value.name]))
        self.made.values = len(self.rounded)

    def _reaches(self, found: Places) -> Mapping[str, float]:
        cache, values = self.asked.cache, found.values()
        key = graph_key(self.module) if cache is not None else ""
        if cache is not None and cache.exists():
            known = read_cache(cache, key, self.asked)
            self.made.reaches = {v.name: known[v.name] for v in values if v.name in known}
            return self.made.reaches
        samples, device = self.asked.samples(), self.asked.device
        histograms, self.made.samples = measure(self.module, samples, values, device)
        self.made.reaches = {
            name: reach(histogram, self.asked.observer, self.asked.dtype)
            for name, histogram in histograms.items()
        }
        if cache is not None:
            write_cache(cache, key, self.made)
        return self.made.reaches

    def _round(self, value: fx.Node, end: float) -> fx.Node:
        """The value in numbers of few bits, whose range ends at ``end``."""
        if (value, end) not in self.rounded:
            scale = torch.tensor(end / RANGES[self.asked.dtype][1])
            half = scale.half().float()
            scale = half if float(scale) >= _SMALLEST_HALF else scale
            name = add_constant(self.graph, f"{value.name}_scale", scale)
            after = self._after(value)
            with self.graph.inserting_before(after):
                attribute = self.graph.get_attr(name)
                self.rounded[value, end] = insert(
                    self.graph, value, FAKE_QUANTIZE, value, attribute, None, self.asked.dtype
                )
        return self.rounded[value, end]

    def _after(self, value: fx.Node) -> fx.Node:
        """The first node behind a value that is no placeholder."""
        node = value.next
        while node.op == "placeholder":
            node = node.next
        return node

    # --- weights ---------------------------------------------------------------------------------
    def _weight(self, weight: Weight) -> None:
        node, value = weight.value, constant_of(weight.value)
        assert value is not None
        if self.asked.weights_only:
            rounded = self._stored(weight, value)
        else:
            axis = weight.axis if self.asked.dtype == "INT8" else None
            with self.graph.inserting_before(weight.reader):
                scale = self._scale(node, value, axis)
                rounded = insert(
                    self.graph, node, FAKE_QUANTIZE, node, scale, axis, self.asked.dtype
                )
        if rounded is not None:
            weight.reader.update_arg(weight.index, rounded)
            self.made.weights += 1

    def _scale(self, node: fx.Node, value: torch.Tensor, axis: int | None) -> fx.Node:
        """The largest magnitude of each channel, or of all, through the type's largest number."""

        def op(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
            return insert(self.graph, node, target, *args, **kwargs)

        magnitudes = op(aten._to_copy.default, op(aten.abs.default, node), dtype=torch.float32)
        dims = [d for d in range(value.dim()) if d != axis] if axis is not None else []
        return self._settled(op(aten.amax.default, magnitudes, dims), op, node, "weight_scale")

    def _settled(self, largest: fx.Node, op: Any, owner: fx.Node, use: str) -> fx.Node:
        """A scale by its largest magnitude: one of float16's numbers where that has all its bits,
        and 1 where every weight is 0."""
        scale = op(aten.div.Tensor, largest, float(RANGES[self.asked.dtype][1]))
        half = op(aten._to_copy.default, scale, dtype=torch.float16)
        half = op(aten._to_copy.default, half, dtype=torch.float32)
        fits = op(aten.ge.Scalar, scale, _SMALLEST_HALF)
        scale = op(aten.where.self, fits, half, scale)
        there = op(aten.gt.Scalar, scale, 0.0)
        result: fx.Node = op(aten.where.ScalarOther, there, scale, 1.0)
        result.meta["constant_use"] = use
        result.meta["constant_owner"] = str(owner.target).removesuffix(".weight")
        return result

    def _stored(self, weight: Weight, value: torch.Tensor) -> fx.Node | None:
        """A linear layer's weight as stored numbers of INT8 or INT4, with a scale for each block of
        a row, or for each row; None where it keeps its type."""
        node, few = weight.value, self.asked.dtype
        if weight.reader.target is not aten.linear.default or value.dim() != 2:
            reason = f"{few} for weights alone is for those of linear layers"
            self.made.left[str(node.target)] = reason
            return None
        rows, columns = value.shape
        block = self.asked.weight_block or columns
        if columns % block:
            reason = f"its {columns} columns are no multiple of a block's {block}"
            self.made.left[str(node.target)] = reason
            return None

        def op(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
            return insert(self.graph, node, target, *args, **kwargs)

        with self.graph.inserting_before(weight.reader):
            numbers = op(aten._to_copy.default, node, dtype=torch.float32)
            parts = op(aten.reshape.default, numbers, [rows, columns // block, block])
            by_rows = few == "INT8" and block == columns
            summed, axis = ([1, 2], 0) if by_rows else ([2], 1)
            largest = op(aten.amax.default, op(aten.abs.default, parts), summed)
            scale = self._settled(largest, op, node, "weight_scale")
            steps = op(aten.reshape.default, scale, [rows, columns // block, 1])
            scaled = op(aten.div.Tensor, parts, steps)
            whole = op(aten.clamp.default, op(aten.round.default, scaled), *RANGES[few])
            stored = op(aten.reshape.default, whole, [rows, columns])
            stored = op(aten._to_copy.default, stored, dtype=torch.int8)
            stored.meta["constant_use"] = f"weight_{few.lower()}"
            stored.meta["constant_owner"] = str(node.target).removesuffix(".weight")
            return op(DEQUANTIZE, stored, scale, axis, few, value.dtype)


def _is_constant(node: fx.Node) -> bool:
    return constant_of(node) is not None
