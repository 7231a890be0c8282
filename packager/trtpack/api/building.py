# SPDX-License-Identifier: Apache-2.0
"""``trtpack.build`` and ``trtpack.compile``."""

from __future__ import annotations

import dataclasses
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import Options
from ..report import Progress
from ..target import AUTO
from .arguments import called_with
from .bundle import Bundle, check_load, write_report
from .settings import check_files, settled
from .users_module import as_it_was

if TYPE_CHECKING:
    from trtpack_runtime.module import BundleModule

    from ..sources import Model

_UNSAID = Path("bundle.tar")
"""Where ``trtpack build`` writes if nothing is said."""


def build(
    model: Model,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: str | Sequence[str] | None = None,
    options: Options | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Bundle:
    """Builds one bundle for every target, as ``trtpack build`` does.

    Args:
        model: a module, which stays as it was, ``(module, args)``, ``(module, args, kwargs)``, an
            exported program, or what stands for MODEL on the command line, such as
            ``"torchvision:resnet18"``.
        inputs: what the model is called with, by position, or a mapping by name: tensors and
            whatever holds them, or ``trtpack.Input`` for shapes that vary. None: what ``model`` or
            the options give.
        kwargs: further arguments, by name.
        dynamic_shapes: as for ``torch.export``, where the inputs are tensors.
        target: the devices to build for, as after ``-t``; in the place of ``options.targets``.
        options: how to build, as ``Options`` or as a mapping of its fields.
        progress: told of every step.
        settings: further fields of ``Options``, and names of Torch-TensorRT that mean the same.

    Raises:
        TrtpackError: any stage failed; an existing file at the output path stays as it was.
    """
    from ..pipeline import build as build_bundle

    called, arguments = called_with(model, inputs, kwargs, dynamic_shapes)
    chosen = settled(options, settings, target=target, inputs=arguments)
    check_files(chosen)
    with as_it_was(called):
        report = build_bundle(called, chosen, progress)
    if chosen.report is not None:
        write_report(report, chosen.report)
    return Bundle(chosen.output, report)


def compile(
    model: Model,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: str | None = None,
    options: Options | Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> BundleModule:
    """Builds a model for this machine and loads what was built, in one step.

    The bundle is written to the option ``output`` where that is given, else it is a temporary file
    that goes with the module: a program that is exported from the module and saved needs the bundle
    to stay.

    Args:
        target: the device; ``auto``, this machine's GPU or else its CPU, where nothing is given.
        load: what ``trtpack_runtime.load`` is told, such as ``{"cuda_graphs": "auto"}``.

    The others are those of ``build``.

    Raises:
        TrtpackError: any stage failed, or what was built does not load here.
    """
    check_load(load or {})
    called, arguments = called_with(model, inputs, kwargs, dynamic_shapes)
    chosen = settled(options, settings, target=target, inputs=arguments, otherwise=AUTO)
    if chosen.output != _UNSAID:
        return build(called, options=chosen, progress=progress).load(**(load or {}))
    folder = tempfile.TemporaryDirectory(prefix="trtpack-compiled-", ignore_cleanup_errors=True)
    try:
        there = dataclasses.replace(chosen, output=Path(folder.name) / _UNSAID)
        module = build(called, options=there, progress=progress).load(**(load or {}))
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(module, folder.cleanup)
    return module
