# SPDX-License-Identifier: Apache-2.0
"""Reads calibration data: a loader of the user's, files of tensors, or a folder of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from ..sources.sample_files import read_samples, sample_paths
from .request import Sample

_FORMS = (
    "write it as --calibrate data.py:loader, or name a folder of .npz, .safetensors or image files"
)


@dataclass(frozen=True)
class _Place:
    """Where a sample comes from: its number, and the file that holds it if there is one."""

    index: int
    file: Path | None = None

    def wrong(self, name: str, problem: str, hint: str = "") -> CalibrationError:
        """What is wrong with an input of the sample."""
        where = "" if self.file is None else f" in {self.file}"
        usual = "let the loader give what the model takes"
        if self.file is not None:
            usual = "correct the file, or take it away"
        return CalibrationError(
            f"calibration sample {self.index}{where}, input {name}: {problem}", hint=hint or usual
        )


class _SmallerBatchError(Exception):
    """A batch that would fit if it had more rows; ``problem`` is what to say of it."""

    def __init__(self, problem: CalibrationError) -> None:
        super().__init__(str(problem))
        self.problem = problem


def check_calibration_data(text: str) -> None:
    """Refuses what ``--calibrate`` cannot mean, before a model is captured for it.

    Raises:
        SourceError: there is no such file or folder, or the folder has nothing to read.
        ConfigError: a text of another form.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        if not _images(path) and not sample_paths(path):
            raise SourceError(
                f"folder {path} has no sample files",
                hint=f"put {', '.join(SAMPLE_SUFFIXES)} or image files in it",
            )
    elif path.suffix in SAMPLE_SUFFIXES:
        if not path.exists():
            raise SourceError(f"there is no file {path}", hint="check the path after --calibrate")
    elif ":" not in text and not path.exists():
        raise SourceError(f"there is no file or folder {path}", hint=_FORMS)
    else:
        origin_of(text, what="loader", flag="--calibrate", hint=_FORMS)


def calibration_data(
    text: str, captured: Captured, metadata: Mapping[str, Any], count: int
) -> list[Sample]:
    """At most ``count`` samples that ``--calibrate`` names, by the placeholders of a graph.

    ``data.py:loader`` and ``package.module:loader`` are iterables, or functions that answer one, of
    tensors, tuples, lists or dicts of them: what a DataLoader gives. Labels and whatever else comes
    after the model's inputs are left out. Batches are cut to the batch the model was captured with;
    a last batch that is smaller is left out where there are others.

    Raises:
        CalibrationError: no sample, none but of one number, or one that does not fit the model or
            has numbers that are not finite; it names the sample, its file if it has one, and the
            input.
        SourceError: the loader cannot be imported, or raises, with the user's line; no such file.
        ConfigError: a text of another form.
    """
    check_calibration_data(text)
    fitting = Fitting(captured)
    found = list(itertools.islice(_fitted(_items(text, fitting, metadata), fitting), count))
    if not found:
        raise CalibrationError(
            f"{text} gives no sample", hint="let it give at least one; a few hundred are usual"
        )
    fitting.check_not_constant(found)
    return [named_inputs(captured, tensors) for tensors in found]


def _fitted(items: Iterable[tuple[_Place, Any]], fitting: Fitting) -> Iterator[list[torch.Tensor]]:
    """The samples in the model's batches, but for a last one that is smaller behind others."""
    smaller: CalibrationError | None = None
    alone = True
    for place, item in items:
        if smaller is not None:
            raise smaller
        try:
            for tensors in fitting.cut(place, fitting.tensors(place, item)):
                yield tensors
                alone = False
        except _SmallerBatchError as last:
            smaller = last.problem
    if smaller is not None and alone:
        raise smaller


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


def _items(
    text: str, fitting: Fitting, metadata: Mapping[str, Any]
) -> Iterator[tuple[_Place, Any]]:
    path = Path(text).expanduser()
    if path.is_dir() and _images(path):
        yield from _placed(fitting.images(path, metadata))
    elif path.is_dir() or path.suffix in SAMPLE_SUFFIXES:
        yield from _of_files(sample_paths(path) if path.is_dir() else [path], fitting.names)
    else:
        yield from _placed(_loader(text))


def _placed(items: Iterable[Any]) -> Iterator[tuple[_Place, Any]]:
    for index, item in enumerate(items):
        yield _Place(index), item


def _of_files(paths: Iterable[Path], names: list[str]) -> Iterator[tuple[_Place, Any]]:
    index = 0
    for path in paths:
        for sample in read_samples([SampleFile(path)], names):
            yield _Place(index, path), sample
            index += 1


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
        for path in _images(folder):
            numbers = image_numbers(path, wanted, metadata.get("preprocess"))
            batch.append(torch.from_numpy(numbers).to(described.dtype))
            if not isinstance(size, int) or len(batch) == size:
                yield [torch.cat(batch)]
                batch = []

    def tensors(self, place: _Place, item: Any) -> list[torch.Tensor]:
        """The tensors of an item in the order of the model's inputs.

        Raises:
            CalibrationError: an input is missing, is no tensor, or has numbers that are not finite.
        """
        if isinstance(item, Mapping):
            missing = [name for name in self.names if name not in item]
            if missing:
                raise place.wrong(missing[0], f"it is missing, the sample has {_listed(item)}")
            values = [item[name] for name in self.names]
        else:
            given = list(item) if isinstance(item, list | tuple) else [item]
            if len(given) < len(self.names):
                missing_name = self.names[len(given)]
                raise place.wrong(missing_name, f"it is missing, the sample has {len(given)}")
            values = given[: len(self.names)]
        ready = []
        for name, value, described in zip(self.names, values, self.described, strict=True):
            ready.append(self._checked(place, name, value, described))
        return ready

    def _checked(
        self, place: _Place, name: str, value: Any, described: torch.Tensor
    ) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            try:
                value = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError) as error:
                what = type(value).__name__
                raise place.wrong(name, f"it is no tensor, it is a {what}") from error
        value = value.detach().cpu()
        if value.is_floating_point() != described.dtype.is_floating_point:
            raise place.wrong(name, f"wanted {_dtype(described)}, got {_dtype(value)}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise place.wrong(name, "it has numbers that are not finite")
        fitting: torch.Tensor = value.to(described.dtype)
        return fitting

    def cut(self, place: _Place, tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """A batch in the batches that the model takes; what is left over is left out.

        Raises:
            CalibrationError: another dimension.
            _SmallerBatchError: nothing is wrong but that the batch is too small.
        """
        batch, given = self._batches(tensors) or (0, 0)
        self._check(place, tensors, batch)
        if given < batch:
            got, want = _sizes(tensors[0].shape), _sizes(self.described[0].shape)
            raise _SmallerBatchError(
                place.wrong(
                    self.names[0],
                    f"wanted the shape {want}, got {got}",
                    f"give batches of {batch}, only the last of several may be smaller",
                )
            )
        if not batch:
            yield tensors
            return
        for piece in range(given // batch):
            yield [t[piece * batch : (piece + 1) * batch] for t in tensors]

    def check_not_constant(self, samples: Sequence[list[torch.Tensor]]) -> None:
        """Refuses samples that are one number in every input: ranges of them say nothing.

        Masks and other inputs may well be one number, where another input is not.

        Raises:
            CalibrationError: it names the first input of floating-point numbers, and its number.
        """
        told = ""
        for name, values in zip(self.names, zip(*samples, strict=True), strict=True):
            first = values[0].flatten()[:1]
            if not all(bool((value == first).all()) for value in values):
                return
            if not told and first.is_floating_point() and first.numel():
                told = f"every number of input {name} is {float(first):g}"
        if told:
            many = f"all {len(samples)} samples" if len(samples) > 1 else "the only sample"
            raise CalibrationError(
                f"{told} in {many}",
                hint="give data such as the model is to see; is it loaded and normalized as usual?",
            )

    def _batches(self, tensors: list[torch.Tensor]) -> tuple[int, int] | None:
        """The fixed batch that all inputs begin with, and that of those given; None where they have
        none in common."""
        if not all(t.dim() == d.dim() > 0 for t, d in zip(tensors, self.described, strict=True)):
            return None
        wanted = self.described[0].shape[0]
        given = {t.shape[0] for t in tensors}
        fixed = all(isinstance(d.shape[0], int) and d.shape[0] == wanted for d in self.described)
        if len(given) != 1 or not fixed:
            return None
        return wanted, given.pop()

    def _check(self, place: _Place, tensors: list[torch.Tensor], batch: int) -> None:
        """Refuses other shapes; where there is a ``batch``, that of the tensors may be another."""
        for name, value, described in zip(self.names, tensors, self.described, strict=True):
            want, got = described.shape, value.shape
            if not _fits(want, (batch, *got[1:]) if batch else got):
                problem = f"wanted the shape {_sizes(want)}, got {_sizes(got)}"
                raise place.wrong(name, problem, _missing_axis(want, got))


def _fits(want: Sequence[Any], got: Sequence[int]) -> bool:
    return len(want) == len(got) and all(
        not isinstance(size, int) or size == have for size, have in zip(want, got, strict=True)
    )


def _missing_axis(want: Sequence[Any], got: Sequence[int]) -> str:
    """What to do where one axis alone is missing; empty where it is not that."""
    if len(want) != len(got) + 1:
        return ""
    for axis, size in enumerate(want):
        if _fits([*want[:axis], *want[axis + 1 :]], got):
            name = f"axis {axis}{', the batch,' if axis == 0 else ''} is missing"
            if isinstance(size, int) and size > 1:
                return f"{name}: stack {size} of them along it"
            return f"{name}: add it with unsqueeze({axis})"
    return ""


def _sizes(shape: Sequence[Any]) -> str:
    return "x".join(str(size) if isinstance(size, int) else "any" for size in shape) or "scalar"


def _listed(item: Mapping[str, Any]) -> str:
    return ", ".join(map(str, item)) or "nothing"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
