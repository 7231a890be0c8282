# SPDX-License-Identifier: Apache-2.0
"""How commands load a bundle to call one method of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtpack_runtime.cli.building import BuildLine

if TYPE_CHECKING:
    from trtpack_runtime.module import BundleModule

method_flag = click.option(
    "--method", default="forward", show_default=True, help="The method to call."
)


def loaded(
    bundle: Path,
    *,
    device: str | None,
    target: str | None,
    trust: bool,
    no_build: bool,
    imports: Sequence[str],
    quiet: bool,
    cuda_graphs: bool | None = None,
) -> BundleModule:
    """Loads a bundle as ``loading.load`` does and shows what is built, unless ``quiet``.

    Without a warning where PyTorch runs what engines should: the command has to tell that.
    """
    from trtpack_runtime.loading import DegradedWarning, load

    with warnings.catch_warnings(), BuildLine(quiet=quiet) as line:
        warnings.simplefilter("ignore", DegradedWarning)
        return load(
            bundle,
            device=device,
            target=target,
            trust=trust,
            imports=imports,
            build=not no_build,
            cuda_graphs=cuda_graphs,
            on_progress=line,
        )
