# SPDX-License-Identifier: Apache-2.0
"""``trtpack.trace``: a model as ``torch.export`` sees it, with the shapes it is to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .arguments import called_with
from .users_module import as_it_was

if TYPE_CHECKING:
    from ..sources import Model


def trace(
    model: Model,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    seed: int = 0,
) -> torch.export.ExportedProgram:
    """Captures a model as an exported program, which ``build`` and ``compile`` take as a model.

    It knows the least and the largest of every dynamic size; say the usual ones again with the
    inputs of a build. The arguments are those of ``build``.

    Raises:
        SourceError: the model raises, with the user's line.
        CaptureError: torch.export cannot trace the model; it names the user's line.
    """
    from ..capture import export
    from ..sources import load_source

    called, arguments = called_with(model, inputs, kwargs, dynamic_shapes)
    with as_it_was(called):
        source = load_source(called, inputs=arguments, seed=seed)
        source.run((source.args, source.kwargs))
        if source.exported is not None:
            return source.exported
        return export(source.module, source.args, source.kwargs, source.dynamic_shapes)
