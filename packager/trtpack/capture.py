# SPDX-License-Identifier: Apache-2.0
"""Captures a module as a functional ATen graph with named parameters and explicit state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from trtpack_runtime.tf32 import cudnn_told

from .batched_suppression import batched_suppression
from .branches import graph_of, is_graph
from .errors import CaptureError
from .options import SizeRange
from .quantization.fake_quantizers import fixed_fake_quantizers
from .quantization.weight_tensors import stored_weights
from .quiet_export import quiet_export
from .recurrent_shapes import recurrent_shapes
from .strided_views import as_strided, as_strided_scatter
from .user_code import user_frame

OpOverload = torch._ops.OpOverload

# fmt: off
KEPT_WHOLE = (
    "linear", "matmul", "einsum", "layer_norm", "group_norm", "instance_norm", "rms_norm",
    "batch_norm", "scaled_dot_product_attention", "gelu", "silu", "hardswish", "hardsigmoid",
    "hardtanh", "leaky_relu", "elu", "celu", "selu", "mish", "relu6", "softplus", "prelu",
    "glu", "log_sigmoid", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "grid_sampler", "grid_sampler_2d", "max_pool1d", "max_pool2d",
    "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d",
    "_pad_circular", "addmm", "baddbmm", "bmm", "mm", "addcmul", "addcdiv", "lerp", "split",
    "split_with_sizes", "chunk", "unbind", "stack", "unfold", "roll", "masked_fill",
    "index_select", "index_add", "scatter_add", "slice_scatter", "select_scatter", "logsumexp",
    "im2col", "col2im",
    "linalg_vector_norm", "std", "var", "norm", "triu", "tril", "cumsum", "cumprod",
    "nan_to_num", "logaddexp", "logaddexp2", "sinc", "frac", "xlogy", "rsub",
    "lstm", "gru", "rnn_tanh", "rnn_relu", "linspace", "logspace",
)
# fmt: on
"""Operators left as they are: TensorRT has them whole, or a converter needs fewer layers for the
whole than for the parts."""


@dataclass(frozen=True)
class State:
    """A mutated buffer: placeholder ``input`` holds it, graph output ``output`` replaces it."""

    slot: str
    input: str
    output: int


@dataclass(frozen=True)
class Captured:
    """A model as a functional graph.

    ``graph_module`` takes the tensor inputs and the state as placeholders and reads every
    parameter, buffer and constant by a ``get_attr`` of its full name. It answers the new
    state and the user's outputs that are tensors. ``inputs`` and ``outputs`` are the user's,
    flat: a placeholder's name or None, and a position among the graph's outputs,
    ``{"constant": ...}`` or ``{"size": SymInt}``. ``method`` is the one of the model's that it is.
    """

    graph_module: fx.GraphModule
    inputs: tuple[str | None, ...]
    outputs: tuple[int | dict[str, Any], ...]
    state: tuple[State, ...]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    in_spec: Any
    out_spec: Any
    ranges: Mapping[str, SizeRange] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    method: str = "forward"

    @property
    def changed(self) -> tuple[str, ...]:
        """The state slots that it changes; others it only reads."""
        results = returned(self.graph_module.graph)
        return tuple(s.slot for s in self.state if results[s.output].name != s.input)


def capture(
    module: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    ranges: Mapping[tuple[int, int], SizeRange] | None = None,
) -> Captured:
    """Exports a module and takes it apart into core ATen and what TensorRT has whole.

    ``ranges`` gives (flat input, axis) its (min, opt, max); axes it leaves out follow what export
    found.

    Raises:
        CaptureError: torch.export cannot trace the model; it names the user's line.
    """
    with _captures(module):
        exported = (
            module
            if isinstance(module, torch.export.ExportedProgram)
            else _exported(module, args, kwargs, dynamic_shapes)
        )
        exported = exported.run_decompositions(decompositions())
    return _unlift(exported, ranges or {})


def export(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> torch.export.ExportedProgram:
    """A module as a program that can be captured later, or saved.

    Raises:
        CaptureError: torch.export cannot trace the model; it names the user's line.
    """
    with _captures(module):
        return _exported(module, args, kwargs, dynamic_shapes)


@contextmanager
def _captures(module: torch.nn.Module | torch.export.ExportedProgram) -> Iterator[None]:
    torch.compiler.reset()  # a torch.cond that ran before would be traced with its sizes of then
    try:
        with (
            torch.no_grad(),
            recurrent_shapes(),
            batched_suppression(),
            fixed_fake_quantizers(module),
            stored_weights(),
            quiet_export(),
            cudnn_told(),
        ):
            yield
    except CaptureError:
        raise
    except Exception as error:
        raise _capture_error(error) from error


def _exported(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> torch.export.ExportedProgram:
    return torch.export.export(
        module, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False
    )


def returned(graph: fx.Graph) -> list[fx.Node]:
    """The nodes a captured graph answers, in order."""
    (values,) = graph.output_node().args
    assert isinstance(values, tuple | list)
    return [value for value in values if isinstance(value, fx.Node)]


def attribute(module: torch.nn.Module, path: str) -> torch.Tensor:
    """The parameter, buffer or constant of a full name, as ``get_attr`` nodes give it."""
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value


def constant_of(node: object) -> torch.Tensor | None:
    """The tensor that a ``get_attr`` node reads; None for any other node."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or is_graph(node):
        return None
    module = node.graph.owning_module
    assert module is not None
    return attribute(module, str(node.target))


def decompositions() -> Any:
    table = torch.export.default_decompositions()
    for name in KEPT_WHOLE:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet else ():
            table.pop(getattr(packet, overload), None)
    for name in ("quantize_affine", "dequantize_affine"):  # there where torchao is imported
        if packet := getattr(torch.ops.torchao, name, None):
            table.pop(packet.default, None)
    table[torch.ops.aten.as_strided.default] = as_strided
    table[torch.ops.aten.as_strided_scatter.default] = as_strided_scatter
    return table


def _unlift(
    exported: torch.export.ExportedProgram, ranges: Mapping[tuple[int, int], SizeRange]
) -> Captured:
    """Turns lifted parameters into attributes read by name; buffers that change stay inputs."""
    signature = exported.graph_signature
    graph = exported.graph_module.graph
    root = torch.nn.Module()
    mutated = {
        spec.target: i
        for i, spec in enumerate(signature.output_specs)
        if spec.kind is OutputKind.BUFFER_MUTATION
    }
    placeholders = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    inputs: list[str | None] = []
    state: list[State] = []
    parameters, buffers = [], []
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(name if isinstance(spec.arg, TensorArgument) else None)
            if not isinstance(spec.arg, TensorArgument) and name in placeholders:
                _drop_placeholder(graph, placeholders[name])
            continue
        node, target = placeholders[name], str(spec.target)
        value = _stored(exported, target)
        if spec.kind is InputKind.PARAMETER:
            parameters.append(target)
        elif spec.kind is InputKind.BUFFER and spec.persistent:
            buffers.append(target)
        if target in mutated:
            state.append(State(target, name, mutated[target]))
            continue
        _assign(root, target, value)
        with graph.inserting_before(node):
            attribute = graph.create_node("get_attr", target)
        attribute.meta = dict(node.meta)
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    outputs = _user_outputs(exported, graph)
    for node in graph.find_nodes(op="get_attr"):
        if is_graph(node):
            root.add_module(str(node.target), graph_of(node))
    module = fx.GraphModule(root, graph)
    module.meta["weights"] = frozenset((*parameters, *buffers))
    for slot in state:
        _assign(module, slot.slot, _stored(exported, slot.slot))
    unsupported = [s for s in signature.output_specs if s.kind is OutputKind.USER_INPUT_MUTATION]
    notes = tuple(
        f"input {s.target} is changed in place by the model; the bundle leaves it as it is"
        for s in unsupported
    )
    return Captured(
        module,
        tuple(inputs),
        outputs,
        tuple(state),
        tuple(parameters),
        tuple(buffers),
        exported.call_spec.in_spec,
        exported.call_spec.out_spec,
        _ranges(exported, inputs, placeholders, ranges),
        notes,
    )


def _user_outputs(
    exported: torch.export.ExportedProgram, graph: fx.Graph
) -> tuple[int | dict[str, Any], ...]:
    """Reduces the graph's outputs to tensors; answers where each of the user's outputs is."""
    output = graph.output_node()
    kept: list[fx.Node] = []
    outputs: list[int | dict[str, Any]] = []
    values: Any = output.args[0]
    for spec, value in zip(exported.graph_signature.output_specs, values, strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION:
            kept.append(value)
        elif spec.kind is not OutputKind.USER_OUTPUT:
            continue
        elif not isinstance(value, fx.Node):
            outputs.append({"constant": value})
        elif isinstance(value.meta["val"], torch.Tensor):
            outputs.append(len(kept))
            kept.append(value)
        else:
            outputs.append({"size": value.meta["val"]})
    output.args = (tuple(kept),)
    return tuple(outputs)


def _ranges(
    exported: torch.export.ExportedProgram,
    inputs: list[str | None],
    placeholders: Mapping[str, fx.Node],
    declared: Mapping[tuple[int, int], SizeRange],
) -> dict[str, SizeRange]:
    """Every size symbol's range: as declared, cut to what export allows."""
    allowed = {str(s): r for s, r in exported.range_constraints.items()}
    found: dict[str, SizeRange] = {}
    for position, name in enumerate(inputs):
        if name is None:
            continue
        for axis, size in enumerate(placeholders[name].meta["val"].shape):
            if not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
                continue
            symbol, limits = str(size.node.expr), allowed.get(str(size.node.expr))
            low = int(limits.lower) if limits is not None else 1
            high = _finite(limits.upper if limits is not None else None)
            hint = int(size.node.hint)
            wanted = declared.get((position, axis), SizeRange(max(low, 1), hint, high or hint))
            if symbol not in found:
                top = min(wanted.maximum, high) if high else wanted.maximum
                bottom = max(wanted.minimum, low)
                found[symbol] = SizeRange(bottom, min(max(wanted.optimum, bottom), top), top)
    return found


def _finite(bound: Any) -> int | None:
    try:
        value = int(bound)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    return value if value < 2**31 else None


def _stored(exported: torch.export.ExportedProgram, target: str) -> torch.Tensor:
    known: Mapping[str, Any] = exported.state_dict
    value: torch.Tensor = known[target] if target in known else exported.constants[target]
    return value


def _assign(root: torch.nn.Module, path: str, value: torch.Tensor) -> None:
    """Sets ``root.a.b.c = value`` with plain modules in between."""
    *parents, leaf = path.split(".")
    owner = root
    for part in parents:
        child = getattr(owner, part, None)
        if not isinstance(child, torch.nn.Module):
            child = torch.nn.Module()
            owner.add_module(part, child)
        owner = child
    owner.register_buffer(leaf, value.detach(), persistent=True)


def _drop_placeholder(graph: fx.Graph, node: fx.Node) -> None:
    if node.users:
        raise CaptureError(
            f"input {node.name} is a number that the model computes with",
            hint="pass it as a tensor, or bind it with functools.partial in the factory",
        )
    graph.erase_node(node)


def _capture_error(error: Exception) -> CaptureError:
    """One line: what torch.export said, and the user's line it happened at."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    place, code = user_frame(error, text)
    at = f" at {place}" if place else ""
    shown = f": {code}" if code else ""
    return CaptureError(
        f"cannot export the model{at}{shown} ({type(error).__name__}: {first[:300]})",
        hint=_hint(text),
    )


def _hint(text: str) -> str:
    if "PackedParams" in text:
        return "give the model as it was before torch.ao's convert: its fake quantizers come in"
    if "data-dependent" in text.lower() or "GuardOnDataDependent" in text:
        return "make the control flow independent of tensor values, or use torch.cond"
    if "Constraints violated" in text or "specialized" in text:
        return "declare that dimension as fixed, or make the model independent of its size"
    return "make the model exportable with torch.export.export, then build again"
