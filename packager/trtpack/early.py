# SPDX-License-Identifier: Apache-2.0
"""Has TensorRT come up in a child while PyTorch starts and the model is captured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trtpack_runtime import builders
from trtpack_runtime.builders import Site
from trtpack_runtime.device import facts
from trtpack_runtime.engines._processes import give_up_early, start_early
from trtpack_runtime.errors import TrtpackError

from .engine_options import kind_for
from .options import Options
from .target import Target, find_target

_EARLY_BYTES = 8 << 30
"""Free memory from which on TensorRT comes up beside the model; release 8 takes 3 GB (measured)."""


@contextmanager
def early_start(options: Options, elsewhere: Collection[str] = ()) -> Iterator[None]:
    """Within, TensorRT waits in a child for its first network, if this machine is to build one.

    ``elsewhere`` are the targets that another machine builds for. Raises nothing: what is wrong
    with the options is told by the build.
    """
    try:
        if not options.dry_run and not options.defer and _builds(options, elsewhere):
            start_early("tensorrt")
        yield
    finally:
        give_up_early()


def _builds(options: Options, elsewhere: Collection[str]) -> bool:
    """Whether an engine of TensorRT is built here, where there is room for both."""
    try:
        targets = [find_target(name, options.engine) for name in options.targets]
    except TrtpackError:
        return False
    ours = [t for t in targets if t.name not in elsewhere and kind_for(options, t) == "tensorrt"]
    if not ours:
        return False
    here = facts()
    if (here["memory"].get("available_bytes") or 0) < _EARLY_BYTES:
        return False
    return any(_can_build(target, here) for target in ours)


def _can_build(target: Target, here: Mapping[str, Any]) -> bool:
    builder, site = builders.BUILDERS["tensorrt"], Site(here, target.describe())
    return target.unsupported is None and builder.cannot_build(site) is None
