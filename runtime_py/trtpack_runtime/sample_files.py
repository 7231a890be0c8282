# SPDX-License-Identifier: Apache-2.0
"""Files that a run takes its inputs from and writes its outputs to; without torch.

What a file holds becomes a tensor or an array by the functions that are given.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .atomic import cannot_write, replaced
from .dtypes import DTYPES
from .errors import ConfigError, InputMismatchError
from .manifest import Method

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

T = TypeVar("T")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
PREPROCESS_KEYS = frozenset(
    {"resize", "crop", "mean", "std", "channels", "scale", "layout", "interpolation"}
)


@dataclass(frozen=True)
class Wanted:
    """An input of the method: name, TensorRT's name of its type, shape (None where it varies)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def wanted_inputs(method: Method) -> list[Wanted]:
    """The inputs of a method as the manifest describes them."""
    return [
        Wanted(s.name, s.dtype, tuple(d if isinstance(d, int) else None for d in s.shape))
        for s in method.inputs
    ]


def inputs_of_files(
    arguments: Sequence[str],
    wanted: Sequence[Wanted],
    metadata: Mapping[str, Any],
    tensors_of: Callable[[Path], dict[str, T]],
    image_as: Callable[[Array, Wanted], T],
) -> dict[str, T]:
    """What ``--input [NAME=]FILE`` arguments give, by input name.

    A file with several tensors gives each to the input of its name; a file with one tensor, or an
    image, goes to NAME, which may be left out where the method has one input.

    Args:
        arguments: as on the command line.
        wanted: the method's inputs.
        metadata: the bundle's, for images.
        tensors_of: reads a file of tensors.
        image_as: makes an input of an image's numbers.

    Raises:
        ConfigError: no such file, an unknown kind, or an input that does not exist.
    """
    found: dict[str, T] = {}
    names = [w.name for w in wanted]
    for argument in arguments:
        name, path = _split(argument, names)
        if not path.is_file():
            raise ConfigError(f"there is no input file {path}", hint="check the path after --input")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            target = _only(name, wanted, path)
            numbers = image_numbers(path, target, metadata.get("preprocess"))
            tensors = {target.name: image_as(numbers, target)}
        else:
            tensors = tensors_of(path)
            if name is not None or (len(tensors) == 1 and not set(tensors) <= set(names)):
                target = _only(name, wanted, path)
                tensors = {target.name: _one(tensors, target.name, path)}
        unknown = sorted(set(tensors) - set(names))
        if unknown:
            raise InputMismatchError(
                f"{path} holds {unknown[0]!r}, the inputs are {', '.join(names)}",
                hint="name its tensors after the inputs, or give --input NAME=FILE",
            )
        if twice := sorted(set(tensors) & set(found)):
            raise ConfigError(
                f"input {twice[0]!r} is given twice", hint="leave one --input of it out"
            )
        found.update(tensors)
    return found


def arrays_of(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` or ``.npy`` file by name.

    Raises:
        ConfigError: another kind of file, or a broken one.
    """
    if path.suffix not in (".npz", ".npy"):
        raise ConfigError(
            f"cannot read inputs from {path}", hint="give a .safetensors, .npz, .npy or image file"
        )
    import numpy

    try:
        loaded = numpy.load(path, allow_pickle=False)
        if isinstance(loaded, numpy.ndarray):
            return {path.stem: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"cannot read {path}: {str(error).splitlines()[0]}",
            hint="write it with numpy.savez, numbers only",
        ) from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays by name to an ``.npz`` file, atomically; ConfigError if the disk refuses."""
    import numpy

    try:
        # numpy.savez takes some names for its own arguments, others in each release
        with replaced(path) as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    numpy.lib.format.write_array(member, numpy.asarray(array), allow_pickle=False)
    except OSError as error:
        raise cannot_write(path, error) from error


def check_output_path(path: Path) -> None:
    """ConfigError if outputs cannot be written to a file of this kind."""
    if path.suffix not in (".safetensors", ".npz"):
        raise ConfigError(
            f"cannot write outputs to {path}", hint="choose a name ending in .safetensors or .npz"
        )


def image_numbers(path: Path, wanted: Wanted, preprocess: Mapping[str, Any] | None) -> Array:
    """An image as the bundle's preprocessing makes numbers of it, float32, batch of one.

    ``preprocess`` (the bundle's ``metadata.preprocess``) may give: ``resize`` (shorter side, or
    [height, width]), ``crop`` (centre), ``interpolation``, ``channels`` (RGB, BGR or L), ``scale``
    (1/255 unless given), ``mean``, ``std``, ``layout`` (NCHW or NHWC).

    Raises:
        ConfigError: no preprocessing in the bundle, no Pillow, or no such image.
    """
    import numpy

    if preprocess is None:
        raise ConfigError(
            f"cannot turn {path} into input {wanted.name!r}: the bundle says no preprocessing",
            hint="build it with --meta and a preprocess entry, or give a .safetensors or .npz file",
        )
    unknown = sorted(set(preprocess) - PREPROCESS_KEYS)
    if unknown:
        raise ConfigError(
            f"the bundle's preprocessing has the unknown step {unknown[0]!r}",
            hint="update trtpack-runtime on this device, or give a .safetensors or .npz file",
        )
    channels = preprocess.get("channels", "RGB")
    pixels = _opened(path, "L" if channels == "L" else "RGB", preprocess)
    if channels == "BGR":
        pixels = pixels[..., ::-1]
    integer = DTYPES[wanted.dtype].kind == "int"
    values: numpy.ndarray[Any, Any] = pixels.astype(numpy.float32)
    values = values * numpy.float32(preprocess.get("scale", 1 if integer else 1 / 255))
    values = values - numpy.asarray(preprocess.get("mean", 0), numpy.float32)
    values = values / numpy.asarray(preprocess.get("std", 1), numpy.float32)
    if preprocess.get("layout", "NCHW") == "NCHW":
        values = values.transpose(2, 0, 1)
    return numpy.ascontiguousarray(values)[None]


def _opened(path: Path, mode: str, preprocess: Mapping[str, Any]) -> Array:
    """The resized and cropped pixels as uint8 [height, width, channels]."""
    import numpy

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ConfigError(
            f"cannot read {path} without Pillow",
            hint="install pillow, or give a .safetensors or .npz file",
        ) from error
    name = str(preprocess.get("interpolation", "bilinear")).upper()
    if name not in Image.Resampling.__members__:
        raise ConfigError(
            f"the bundle's preprocessing has the unknown interpolation {name.lower()!r}",
            hint="update trtpack-runtime on this device",
        )
    try:
        with Image.open(path) as opened:
            image = opened.convert(mode)
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(f"cannot read the image {path}", hint="check the file") from error
    if "resize" in preprocess:
        width, height = _resized(image.size, preprocess["resize"])
        image = image.resize((width, height), Image.Resampling[name])
    if "crop" in preprocess:
        height, width = _pair(preprocess["crop"])
        left, top = _margin(image.width, width), _margin(image.height, height)
        image = image.crop((left, top, left + width, top + height))
    pixels = numpy.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _margin(has: int, wants: int) -> int:
    """What a centre crop leaves out before it, or (negative) fills in, as in torchvision."""
    return round((has - wants) / 2) if has >= wants else -((wants - has) // 2)


def _resized(size: tuple[int, int], wanted: Any) -> tuple[int, int]:
    """(width, height) after resizing; one number is for the shorter side, as in torchvision."""
    if not isinstance(wanted, int):
        height, width = _pair(wanted)
        return width, height
    width, height = size
    if width <= height:
        return wanted, int(wanted * height / width)
    return int(wanted * width / height), wanted


def _pair(value: Any) -> tuple[int, int]:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _split(argument: str, names: Sequence[str]) -> tuple[str | None, Path]:
    name, equals, rest = argument.partition("=")
    if not equals or Path(argument).is_file():
        return None, Path(argument)
    if name not in names:
        raise InputMismatchError(
            f"there is no input {name!r}, the inputs are {', '.join(names)}",
            hint="use one of these names before the '='",
        )
    return name, Path(rest)


def _only(name: str | None, wanted: Sequence[Wanted], path: Path) -> Wanted:
    if name is None and len(wanted) != 1:
        names = ", ".join(w.name for w in wanted)
        raise InputMismatchError(
            f"{path} may be any of the inputs {names}", hint=f"write --input NAME={path}"
        )
    return wanted[0] if name is None else next(w for w in wanted if w.name == name)


def _one(tensors: Mapping[str, T], name: str, path: Path) -> T:
    if name in tensors:
        return tensors[name]
    if len(tensors) != 1:
        raise InputMismatchError(
            f"{path} holds {len(tensors)} tensors, none is called {name!r}",
            hint="name the tensor after the input",
        )
    return next(iter(tensors.values()))
