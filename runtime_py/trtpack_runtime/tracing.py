# SPDX-License-Identifier: Apache-2.0
"""Engines inside ``torch.export``, ``torch.jit.trace`` and ``torch.compile``: one operator,
``trtpack::call``, which is taken only while a program is traced.

An operator cannot hold a Python object. It is given the bundle's path and digest and the part to be
run; what is loaded already is found by them, anything else is loaded at the first call. A process
that reads an exported or traced program has to import this module, which registers the operator.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .errors import BundleError

if TYPE_CHECKING:
    from .module import BundleModule

NAME = "trtpack::call"
_SCHEMA = (
    "call(Tensor[] inputs, Tensor[] states, str path, str digest, str variant, str part, "
    "str device) -> Tensor[]"
)
SEGMENT = "segment "
"""What a part that is a segment begins with; others are methods."""

_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
_attached: dict[tuple[str, str], weakref.WeakSet[BundleModule]] = {}
"""What is loaded, by identity and variant."""

_loaded: dict[tuple[str, str, str], BundleModule] = {}
"""What the operator loaded itself; nobody else keeps it."""


@dataclass(frozen=True)
class Origin:
    """What a traced program keeps of a loaded bundle: ``part`` is a method or a segment."""

    path: str
    digest: str
    variant: str
    part: str
    device: str


def is_recording() -> bool:
    """Whether what PyTorch runs now is noted as a program, of plain tensors too."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def is_traced(tensors: Sequence[Any]) -> bool:
    """Whether a call is part of a program that is traced, exported or compiled."""
    return is_recording() or are_traced(tensors)


def are_traced(tensors: Sequence[Any]) -> bool:
    """Whether tensors stand for values of a program that is traced."""
    return not _PLAIN.issuperset(map(type, tensors)) and any(
        isinstance(x, torch.Tensor) and type(x) not in _PLAIN for x in tensors
    )


def call(
    tensors: Sequence[torch.Tensor], origin: Origin, states: Sequence[torch.Tensor] = ()
) -> list[torch.Tensor]:
    """A part of a bundle as nodes of the program that is traced, which updates ``states``."""
    answer: list[torch.Tensor] = torch.ops.trtpack.call(
        [tensor.detach() for tensor in tensors],
        list(states),
        origin.path,
        origin.digest,
        origin.variant,
        origin.part,
        origin.device,
    )
    count = len(answer) - len(states)
    for state, value in zip(states, answer[count:], strict=True):
        state.copy_(value)
    return answer[:count]


def attach(module: BundleModule) -> None:
    """Lets programs that were traced from this bundle, or an equal copy of it, find it here.

    Loading a bundle does it; the module is not kept alive by it.
    """
    for modules in _attached.values():
        modules.discard(module)  # it may have had other weights
    key = module.identity, module.variant
    _attached.setdefault(key, weakref.WeakSet()).add(module)


def _found(path: str, digest: str, variant: str, device: str) -> BundleModule:
    module = _known(digest, variant, device)
    if module is None:
        module = _loaded[digest, variant, device] = _load(path, digest, variant, device)
    return module


def _known(digest: str, variant: str, device: str) -> BundleModule | None:
    """A module of this process that is loaded already."""
    modules = _attached.get((digest, variant), ())
    return next((module for module in list(modules) if str(module.device) == device), None)


def _load(path: str, digest: str, variant: str, device: str) -> BundleModule:
    from .bundle import open_bundle
    from .loading import load

    hint = "load the bundle from where it is now, and keep it, before the program is called"
    try:
        has = open_bundle(path).digest
    except BundleError as error:
        raise BundleError(
            f"the program calls an engine of {path}, which cannot be opened: {error.message}",
            hint=hint,
        ) from error
    if digest.startswith(f"{has}+"):
        raise BundleError(
            f"the program calls an engine of {path} with weights that were loaded into it later",
            hint="keep that module while the program is called, or give the weights to the bundle "
            "with: trtpack update-weights",
        )
    if has != digest:
        raise BundleError(
            f"the program calls an engine of another {path} than the one that is there",
            hint=hint,
            wants=digest,
            has=has,
        )
    return load(path, target=variant, device=device)


def _call(
    inputs: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    path: str,
    digest: str,
    variant: str,
    part: str,
    device: str,
) -> list[torch.Tensor]:
    """What the operator does: answers the outputs, then what the states become."""
    module = _found(path, digest, variant, device)
    if part.startswith(SEGMENT):
        outputs = module.engine(part.removeprefix(SEGMENT)).run(inputs)
    else:
        outputs = module.run_on(part, inputs, states)
    return _own(outputs, [*inputs, *states])


def _own(outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs, none in the memory of an input or of another: an operator promises that."""
    taken = {x.untyped_storage().data_ptr() for x in inputs}
    owned = []
    for output in outputs:
        memory = output.untyped_storage().data_ptr()
        owned.append(output.clone() if memory in taken else output)
        taken.add(memory)
    return owned


def _shapes(
    inputs: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    path: str,
    digest: str,
    variant: str,
    part: str,
    device: str,
) -> list[torch.Tensor]:
    """What the operator answers, without values; sizes may be symbols."""
    from .traced_shapes import method_outputs, segment_outputs

    module = _known(digest, variant, device)
    if module is not None:
        bundle = module.bundle
    else:
        from .bundle import open_bundle

        bundle = open_bundle(path)
    where = torch.device(device)
    if part.startswith(SEGMENT):
        return segment_outputs(bundle, variant, part.removeprefix(SEGMENT), inputs, where)
    outputs = method_outputs(bundle.manifest.methods[part], inputs, where)
    return [*outputs, *[torch.empty_like(state) for state in states]]


_library = torch.library.Library("trtpack", "FRAGMENT")
_library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
_library.impl("call", _call, "CompositeExplicitAutograd")
_register_fake = getattr(torch.library, "register_fake", None) or torch.library.impl_abstract
_register_fake(NAME, _shapes, lib=_library)
