# SPDX-License-Identifier: Apache-2.0
"""What the image of one bundle is made of: a base for its target, and what that lacks.

The base images and what is installed on them are facts of ``targets/stacks``, each with its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from trtpack_runtime import program
from trtpack_runtime.bundle import Bundle, open_bundle
from trtpack_runtime.errors import BundleError
from trtpack_runtime.ledger import carries_code, trusted
from trtpack_runtime.manifest import Variant
from trtpack_runtime.resolve import missing_modules, unknown_variant

from ..errors import ConfigError
from ..target import Image, Stack, catalogue

_ON_TENSORRT = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Engine kind -> the Python module it needs."""

_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
_IMAGE = re.compile(r"\w[\w./:@-]*")
_RELEASE = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True)
class Recipe:
    """One bundle with one of its variants on one base image."""

    bundle: Path
    name: str
    digest: str
    variant: str
    target: str  # its key: "jetson-agx-orin-64gb@jetpack-6.2"
    platform: str  # "linux/arm64"
    image: Image
    own_base: bool  # the base is the user's
    module: str | None  # of TensorRT; None where no GPU's engines are run
    torch: str | None  # what pip installs, None where the variant runs without
    gpu: bool
    jetson: bool
    code: bool  # the variant has machine code for the CPU
    trust: bool  # it is to be loaded
    imports: tuple[str, ...]  # modules that register its operators

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of ``trtpack run`` behind the bundle."""
        imports = (word for name in self.imports for word in ("--import", name))
        return ("--target", self.variant, *(("--trust",) if self.trust else ()), *imports)


def recipe_for(
    path: Path, *, variant: str | None = None, base: str | None = None, trust: bool = False
) -> Recipe:
    """The image for ``variant`` of a bundle, its only one where none is named.

    ``base`` takes the place of the base image that is known for the target; ``trust`` lets the
    image load machine code that another machine built, as it does what this one built.

    Raises:
        BundleError: the file is no sound bundle.
        ConfigError: no such variant, or several to choose from; no base image is known, or it
            lacks what is needed.
    """
    if base is not None and not _IMAGE.fullmatch(base):
        raise ConfigError(
            f"{base!r} is no image", hint="give --base as NAME:TAG or NAME@sha256:..."
        )
    bundle = open_bundle(path)
    name = _chosen(bundle, variant)
    chosen = bundle.manifest.variants[name]
    target = chosen.target
    kind, key = str(target["kind"]), " ".join(str(target.get("key", name)).split())
    stack = catalogue().stacks.get(str(target.get("stack", "")))
    image = _image(stack, kind, key, base)
    imports = tuple(missing_modules(bundle.manifest, ()))
    if imports and base is None:
        raise ConfigError(
            f"the bundle uses operators of the module {imports[0]!r}, which no image has by itself",
            hint="make an image that has the module and give it with --base",
        )
    code = [e.member for e in chosen.engines.values() if e.member and carries_code(e)]
    return Recipe(
        bundle=path,
        name=bundle.manifest.name,
        digest=bundle.digest,
        variant=name,
        target=key,
        platform=_platform(str(target.get("arch", "x86_64"))),
        image=image,
        own_base=base is not None,
        module=_ON_TENSORRT.get(kind),
        torch=_torch(bundle, chosen, image, own_base=base is not None),
        gpu=target.get("sm") is not None,
        jetson=stack is not None and "jetson" in stack.families,
        code=bool(code),
        trust=bool(code) and (trust or all(trusted(bundle.entries[m].sha256) for m in code)),
        imports=imports,
    )


def _chosen(bundle: Bundle, variant: str | None) -> str:
    names = list(bundle.manifest.variants)
    if variant is not None:
        if variant not in names:
            raise unknown_variant(variant, names)
        return variant
    if len(names) != 1:
        told = ", ".join(names) or "none"
        raise ConfigError(
            f"an image is for one variant, and {bundle.path} has {told}",
            hint=f"add --target {names[0]}" if names else "build the bundle for a target",
        )
    return names[0]


def _image(stack: Stack | None, kind: str, key: str, base: str | None) -> Image:
    """The image of a stack; what it installs of TensorRT is left out where that is not run."""
    image = stack.image if stack is not None else None
    if image is None:
        if base is None:
            title = stack.title if stack is not None else key
            raise ConfigError(
                f"no base image is known for {title}",
                hint="give one that has Python and the target's TensorRT with --base",
            )
        return Image(base)
    if kind not in _ON_TENSORRT:
        image = replace(image, wheels=(), debs=(), repository=None, key=None)
    return image if base is None else replace(image, base=base)


def _torch(bundle: Bundle, variant: Variant, image: Image, *, own_base: bool) -> str | None:
    """The requirement that pip is given for PyTorch; None where no segment needs it.

    What AOTInductor compiled needs the very release; else it is that of the stack, or this
    machine's.
    """
    if not any(_needs_torch(bundle, variant)):
        return None
    compiled = sorted(
        {str(e.record["torch"]) for e in variant.engines.values() if "torch" in e.record}
    )
    if compiled:
        return f"torch=={_release(compiled[0])}"
    wanted = image.torch
    if wanted is None and own_base and image.torch_index is None:
        return None  # the user's base brings its own
    if wanted is None and image.torch_index is None:
        raise ConfigError(
            "the bundle runs segments in PyTorch, and no PyTorch is known for this target's images",
            hint="give an image that has Python, TensorRT and PyTorch with --base",
        )
    wanted = wanted or f"torch=={_release(metadata.version('torch'))}"
    _check_torch(bundle, wanted)
    return wanted


def _check_torch(bundle: Bundle, wanted: str) -> None:
    has = wanted.rpartition("==")[2]
    for requirement in bundle.manifest.requires:
        needs = requirement.removeprefix("torch>=")
        if needs != requirement and _version(has) < _version(needs):
            raise ConfigError(
                f"the bundle needs PyTorch {needs}, this target's images have {has}",
                hint="give an image that has it with --base",
            )


def _needs_torch(bundle: Bundle, variant: Variant) -> Iterator[bool]:
    for member in variant.programs.values():
        for segment in program.from_json(bundle.json(member)).segments:
            engine = variant.engines.get(segment.name)
            yield engine is None or engine.kind not in _ON_TENSORRT


def _platform(arch: str) -> str:
    if arch not in _PLATFORMS:
        raise ConfigError(
            f"no image is known for {arch}", hint=f"choose a variant for {' or '.join(_PLATFORMS)}"
        )
    return _PLATFORMS[arch]


def _release(version: str) -> str:
    """``2.13.0`` of ``2.13.0+cpu``; a bundle's word is not taken for anything else."""
    release = _RELEASE.match(version)
    if release is None:
        raise BundleError(
            f"{version!r} is no release of PyTorch", hint="build the bundle again", has=version
        )
    return release[0]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
