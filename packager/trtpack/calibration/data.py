# SPDX-License-Identifier: Apache-2.0
"""Reads calibration data: a loader of the user's, files of tensors, or a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime.dtypes import by_torch
from trtpack_runtime.sample_files import IMAGE_SUFFIXES, Wanted, image_numbers

from ..capture import Captured
from ..errors import CalibrationError, ConfigError, SourceError
from ..inputs import SAMPLE_SUFFIXES
from ..options import SampleFile
from ..precision.running import named_inputs
from ..sources.factory import named_object, origin_of, raised
from ..sources.sample_files import read_samples
from .request import Sample

_FORMS = (
    "write it as --calibrate data.py:loader, or name a folder of .npz, .safetensors or image files"
)


def check_calibration_data(text: str) -> None:
    """Refuses what ``--calibrate`` cannot mean, before a model is captured for it.

    Raises:
        SourceError: there is no such file.
        ConfigError: a text of another form.
    """
    path = Path(text).expanduser()
    if path.suffix in SAMPLE_SUFFIXES and not path.exists():
        raise SourceError(f"there is no file {path}", hint="check the path after --calibrate")
    if not path.is_dir() and path.suffix not in SAMPLE_SUFFIXES:
        origin_of(text, what="loader", flag="--calibrate", hint=_FORMS)


def calibration_data(
    text: str, captured: Captured, metadata: Mapping[str, Any], count: int
) -> list[Sample]:
    """At most ``count`` samples that ``--calibrate`` names, by the placeholders of a graph.

    ``data.py:loader`` and ``package.module:loader`` are iterables, or functions that answer one, of
    tensors, tuples, lists or dicts of them: what a DataLoader gives. Labels and whatever else comes
    after the model's inputs are left out. Batches are cut to the batch the model was captured with.

    Raises:
        CalibrationError: no sample, or one that does not fit the model or has numbers that are not
            finite; it names the sample and the input.
        SourceError: the loader cannot be imported, or raises, with the user's line.
        ConfigError: no such file, or a text of another form.
    """
    fitting = Fitting(captured)
    found: list[Sample] = []
    for index, item in enumerate(_items(text, fitting, metadata)):
        for tensors in fitting.cut(index, fitting.tensors(index, item)):
            found.append(named_inputs(captured, tensors))
            if len(found) == count:
                return found
    if not found:
        raise CalibrationError(
            f"{text} gives no sample", hint="let it give at least one; a few hundred are usual"
        )
    return found


def _items(text: str, fitting: Fitting, metadata: Mapping[str, Any]) -> Iterator[Any]:
    path = Path(text).expanduser()
    if path.is_dir() and any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()):
        yield from fitting.images(path, metadata)
    elif path.is_dir() or path.suffix in SAMPLE_SUFFIXES:
        yield from read_samples([SampleFile(path)], fitting.names)
    else:
        yield from _loader(text)


def _loader(text: str) -> Iterator[Any]:
    loader = named_object(text, what="loader", flag="--calibrate", hint=_FORMS)
    if callable(loader) and not isinstance(loader, Iterable):
        loader = _guarded(loader, f"calling {text}")
    try:
        items = iter(loader)
    except TypeError as error:
        raise SourceError(
            f"{text} is no iterable, it is a {type(loader).__name__}",
            hint="let it be a DataLoader, a list, or a function that answers one",
        ) from error
    end = object()
    while (item := _guarded(lambda: next(items, end), f"reading {text}")) is not end:
        yield item


def _guarded(call: Callable[[], Any], doing: str) -> Any:
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise raised(error, doing, hint="correct the line") from error


class Fitting:
    """Makes what a loader gives into the flat tensors of a call."""

    def __init__(self, captured: Captured) -> None:
        self.names = [name for name in captured.inputs if name is not None]
        nodes = {n.name: n for n in captured.graph_module.graph.find_nodes(op="placeholder")}
        self.described: list[torch.Tensor] = [nodes[name].meta["val"] for name in self.names]

    def images(self, folder: Path, metadata: Mapping[str, Any]) -> Iterator[list[torch.Tensor]]:
        """The images of a folder in the order of names, prepared as ``trtpack run`` does, in the
        batches that the model takes; what is left over is left out.

        Raises:
            ConfigError: a model of several inputs, no preprocessing in its metadata, or a file that
                cannot be read as an image.
        """
        if len(self.names) != 1:
            raise ConfigError(
                f"{folder} has images, and the model takes {len(self.names)} inputs",
                hint="give a loader instead: --calibrate data.py:loader",
            )
        (name,), (described,) = self.names, self.described
        wanted = Wanted(name, by_torch(described.dtype).name, ())
        size = described.shape[0] if described.dim() else 1
        batch: list[torch.Tensor] = []
        for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            numbers = image_numbers(path, wanted, metadata.get("preprocess"))
            batch.append(torch.from_numpy(numbers).to(described.dtype))
            if not isinstance(size, int) or len(batch) == size:
                yield [torch.cat(batch)]
                batch = []

    def tensors(self, index: int, item: Any) -> list[torch.Tensor]:
        """The tensors of an item in the order of the model's inputs.

        Raises:
            CalibrationError: an input is missing, is no tensor, or has numbers that are not finite.
        """
        if isinstance(item, Mapping):
            missing = [name for name in self.names if name not in item]
            if missing:
                raise _wrong(index, missing[0], f"it is missing, the sample has {_listed(item)}")
            values = [item[name] for name in self.names]
        else:
            given = list(item) if isinstance(item, list | tuple) else [item]
            if len(given) < len(self.names):
                missing_name = self.names[len(given)]
                raise _wrong(index, missing_name, f"it is missing, the sample has {len(given)}")
            values = given[: len(self.names)]
        ready = []
        for name, value, described in zip(self.names, values, self.described, strict=True):
            ready.append(self._checked(index, name, value, described))
        return ready

    def _checked(self, index: int, name: str, value: Any, described: torch.Tensor) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            try:
                value = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError) as error:
                what = type(value).__name__
                raise _wrong(index, name, f"it is no tensor, it is a {what}") from error
        value = value.detach().cpu()
        if value.is_floating_point() != described.dtype.is_floating_point:
            raise _wrong(index, name, f"wanted {_dtype(described)}, got {_dtype(value)}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise _wrong(index, name, "it has numbers that are not finite")
        fitting: torch.Tensor = value.to(described.dtype)
        return fitting

    def cut(self, index: int, tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """A batch in the batches that the model takes; what is left over is left out.

        Raises:
            CalibrationError: another dimension, or a batch that is too small.
        """
        batch = self._batch(tensors)
        if batch is None:
            self._check(index, tensors)
            yield tensors
            return
        pieces = min(t.shape[0] for t in tensors) // batch
        self._check(index, [t[:batch] for t in tensors])
        for piece in range(pieces):
            yield [t[piece * batch : (piece + 1) * batch] for t in tensors]

    def _batch(self, tensors: list[torch.Tensor]) -> int | None:
        """The fixed batch that all inputs begin with where those given have another one."""
        if not all(t.dim() for t in (*self.described, *tensors)):
            return None
        wanted = [d.shape[0] for d in self.described]
        given = {t.shape[0] for t in tensors}
        size = wanted[0]
        if len(given) != 1 or not isinstance(size, int) or any(d != size for d in wanted):
            return None
        return size if max(given) > size else None

    def _check(self, index: int, tensors: list[torch.Tensor]) -> None:
        for name, value, described in zip(self.names, tensors, self.described, strict=True):
            want = list(described.shape)
            fits = len(want) == value.dim() and all(
                not isinstance(size, int) or size == have
                for size, have in zip(want, value.shape, strict=True)
            )
            if not fits:
                text = "x".join(str(s) if isinstance(s, int) else "any" for s in want) or "scalar"
                got = "x".join(map(str, value.shape)) or "scalar"
                raise _wrong(index, name, f"wanted the shape {text}, got {got}")


def _wrong(index: int, name: str, problem: str) -> CalibrationError:
    return CalibrationError(
        f"calibration sample {index}, input {name}: {problem}",
        hint="let the loader give what the model takes",
    )


def _listed(item: Mapping[str, Any]) -> str:
    return ", ".join(map(str, item)) or "nothing"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
