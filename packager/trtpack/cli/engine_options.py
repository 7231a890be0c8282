# SPDX-License-Identifier: Apache-2.0
"""The flags of ``trtpack build`` that say how engines are built, in a section of its help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from trtpack_runtime.cli.gpu_option import gpu_option
from trtpack_runtime.cli.sections import SectionOption

from ..options import ENGINE_KINDS, ENGINE_WEIGHTS, HARDWARE_COMPATIBLE

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_SECTION: Mapping[str, Any] = {"cls": SectionOption, "section": "Engine options"}


def _option(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    return click.option(*names, **_SECTION, **settings)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    _option(
        "--engine",
        type=click.Choice(ENGINE_KINDS),
        help="The engine kind for every target.  [default: the target's]",
    ),
    _option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="SPEC",
        help="One more optimization profile within the dynamic sizes, see below; repeat for more.",
    ),
    gpu_option(**_SECTION),
    _option(
        "--optimization-level",
        type=click.IntRange(0, 5),
        help="TensorRT's builder optimization level.",
    ),
    _option(
        "--avg-timing-iterations",
        type=click.IntRange(1),
        metavar="COUNT",
        help="Runs of a tactic that TensorRT averages.",
    ),
    _option(
        "--workspace",
        metavar="SIZE",
        help="Most memory a TensorRT tactic may use, such as 4G.  [default: half of the target's, "
        "a quarter where the CPU shares it]",
    ),
    _option(
        "--engine-weights",
        type=click.Choice(ENGINE_WEIGHTS),
        default="inside",
        show_default=True,
        help="Fixed in the engine, in it but replaceable, or only in the bundle, once for all "
        "targets.",
    ),
    _option(
        "--version-compatible",
        is_flag=True,
        help="Engines that newer TensorRT releases run too; they hold machine code.",
    ),
    _option(
        "--hardware-compatible",
        type=click.Choice(HARDWARE_COMPATIBLE),
        is_flag=False,
        flag_value="ampere+",
        help="Engines that other GPUs run too: Ampere and later (also where no value is given), "
        "or of the same compute capability.",
    ),
    _option(
        "--sparse",
        is_flag=True,
        help="Let TensorRT use the 2:4 sparsity of weights; the report says which have it.",
    ),
    _option(
        "--dla-core",
        type=click.IntRange(0),
        metavar="N",
        help="Run on this DLA core what can run there, the rest on the GPU.",
    ),
    _option(
        "--debug-tensors",
        multiple=True,
        metavar="PATTERN",
        help="Keep tensors whose names match visible in the engine, such as 'layer1.*'; repeat "
        "for more.",
    ),
    _option(
        "--cuda-graphs",
        is_flag=True,
        help="Have the bundle's calls replayed as CUDA graphs, unless its caller says otherwise.",
    ),
    _option(
        "--threads",
        metavar="COUNT",
        type=click.IntRange(1),
        help="Threads of the CPU that AOTInductor compiles for.  [default: all that are there]",
    ),
    _option(
        "--freezing",
        is_flag=True,
        help="Let AOTInductor pack the weights for its kernels: faster, and fixed in the engine.",
    ),
    _option(
        "--max-autotune",
        is_flag=True,
        help="Let AOTInductor measure kernels and take the fastest; weights are fixed too.",
    ),
    _option(
        "--tactics",
        type=click.Path(),
        metavar="FILE",
        help="Begin with the tactics of a timing cache, its timing.lock.json, or a bundle.",
    ),
    _option(
        "--locked",
        is_flag=True,
        help="Use known tactics only: fail where one is missing, and prove that none changed.",
    ),
    _option(
        "--eager",
        is_flag=True,
        help="Let PyTorch run what stays with it between engines operator by operator; else it is "
        "compiled, here or on the device.",
    ),
    _option(
        "--defer",
        is_flag=True,
        help="Build no engine here that a device can build itself; leave it to the first run "
        "there, or to trtpack finish.",
    ),
    _option(
        "--no-cache",
        "cache",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Neither read nor write the user's cache of engines and tactics.",
    ),
)


def engine_options(command: Decorated) -> Decorated:
    """Adds the engine options to a command."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command
