# SPDX-License-Identifier: Apache-2.0
"""Reads ``--input``: the shape, type, range of values, or file of one model input; ``--profile``.

```
input  = [NAME "="] (tensor | file)
tensor = [dim {"x" dim}] [":" dtype ["[" LOW "," HIGH "]"]]     HIGH is not included
dim    = SIZE | MIN "/" OPT "/" MAX | "[" NAME "=" MIN "/" OPT "/" MAX "]"
file   = "@" PATH | PATH ".safetensors" | PATH ".npz" | PATH ".npy"
profile = NAME "=" dims {";" NAME "=" dims}                     dims: a tensor's, without a type
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .errors import ConfigError
from .options import DynamicDim, InputArgument, InputSpec, ProfileSpec, SampleFile, SizeRange
from .spelling import nearest

INPUT_DTYPES = [
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
]
SAMPLE_SUFFIXES = (".safetensors", ".npz", ".npy")

_PROFILE = "write it as 'x=8/16/32x3x224x224', inputs between semicolons: 'ids=1x16;mask=1x16'"
_GRAMMAR = "write it as 1x3x224x224:float16, ids=1x128:int64[0,30522] or x=1/4/8x3x224x224"
_NAME = re.compile(r"[A-Za-z_][\w.]*(?==)")
_DIM_NAME = re.compile(r"[A-Za-z_]\w*")
_SIZE = re.compile(r"\d+")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_FILE = re.compile(r"\.[A-Za-z]\w*$|^[./~]")
_WORD = re.compile(r"\w+")


class InputSyntaxError(ConfigError):
    """An ``--input`` or other ``flag`` that breaks the grammar, at the character ``position``."""

    def __init__(
        self,
        text: str,
        position: int,
        problem: str,
        *,
        hint: str = _GRAMMAR,
        flag: str = "--input",
    ) -> None:
        super().__init__(f"bad {flag}, {problem}\n  {text}\n  {' ' * position}^", hint=hint)
        self.text, self.position, self.problem = text, position, problem


def parse_input(text: str) -> InputArgument:
    """One ``--input`` argument.

    Raises:
        InputSyntaxError: with a caret under the character that is wrong.
    """
    scan = _Scanner(text)
    name = scan.name()
    rest = text[scan.at :]
    if rest.startswith("@") or rest.endswith(SAMPLE_SUFFIXES):
        path = rest.removeprefix("@")
        if not path:
            raise scan.wrong("a file name is missing", at=len(text))
        return SampleFile(Path(path), name)
    if not rest:
        raise scan.wrong("a shape is missing")
    shape = scan.shape()
    dtype, low, high = scan.dtype()
    scan.end()
    return InputSpec(name, shape, dtype, low, high)


def parse_inputs(texts: Iterable[str]) -> tuple[InputArgument, ...]:
    """All ``--input`` arguments, in order.

    Raises:
        InputSyntaxError: one of them is malformed.
        ConfigError: two of them name the same input, or one dimension name has two ranges.
    """
    found = tuple(parse_input(text) for text in texts)
    check_inputs(spec for spec in found if isinstance(spec, InputSpec))
    return found


def check_inputs(specs: Iterable[InputSpec]) -> None:
    """Refuses inputs that cannot be together.

    Raises:
        ConfigError: two of them name the same input, or one dimension name has two ranges.
    """
    tensors = tuple(specs)
    names = [spec.name for spec in tensors if spec.name]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"input {name} is given twice", hint=f"keep one --input {name}=...")
    ranges: dict[str, SizeRange] = {}
    for spec in tensors:
        for dim in spec.shape:
            if isinstance(dim, DynamicDim) and dim.name:
                known = ranges.setdefault(dim.name, dim.range)
                if known != dim.range:
                    raise ConfigError(
                        f"dimension {dim.name} has two ranges, {known} and {dim.range}",
                        hint="give dimensions of one name the same range",
                    )


def parse_profile(text: str) -> ProfileSpec:
    """One ``--profile`` argument: the shapes of the inputs whose sizes it narrows.

    Raises:
        ConfigError: a malformed shape, an input without a name or given twice, or more than shapes.
    """
    found: list[InputSpec] = []
    for part in text.split(";"):
        try:
            spec = parse_input(part.strip())
        except InputSyntaxError as error:
            raise InputSyntaxError(
                error.text, error.position, error.problem, hint=_PROFILE, flag="--profile"
            ) from error
        if not isinstance(spec, InputSpec) or spec.dtype is not None:
            raise ConfigError(f"bad --profile {text!r}: it has shapes only", hint=_PROFILE)
        if spec.name is None:
            raise ConfigError(f"bad --profile {text!r}: {part!r} names no input", hint=_PROFILE)
        if any(spec.name == other.name for other in found):
            raise ConfigError(
                f"bad --profile {text!r}: {spec.name} is there twice",
                hint="write each input once, a further --profile for further shapes",
            )
        found.append(spec)
    return tuple(found)


def parse_size(text: str) -> int:
    """The bytes of ``512M`` or ``4GiB``, both in steps of 1024.

    Raises:
        ConfigError: not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMG]?)(i?)B?", text)
    if match is None:
        raise ConfigError(f"bad size {text!r}", hint="write it as 512M or 4G")
    step = 1024 if match[3] or match[2] else 1
    return int(float(match[1]) * step ** " kMG".index(match[2] or " "))


class _Scanner:
    """A position in the text of one argument, and what may stand there."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def wrong(self, problem: str, *, at: int | None = None, hint: str = _GRAMMAR) -> ConfigError:
        return InputSyntaxError(self.text, self.at if at is None else at, problem, hint=hint)

    def take(self, literal: str) -> bool:
        if not self.text.startswith(literal, self.at):
            return False
        self.at += len(literal)
        return True

    def match(self, pattern: re.Pattern[str], wanted: str) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise self.wrong(f"expected {wanted}{self._got()}", hint=self._hint())
        self.at = found.end()
        return found.group()

    def name(self) -> str | None:
        found = _NAME.match(self.text)
        if found is None:
            return None
        self.at = found.end() + 1
        return found.group()

    def shape(self) -> tuple[int | DynamicDim, ...]:
        if self.text.startswith(":", self.at):
            return ()
        dims = [self.dim()]
        while self.take("x"):
            dims.append(self.dim())
        return tuple(dims)

    def dim(self) -> int | DynamicDim:
        if self.take("["):
            name = self.match(_DIM_NAME, "the dimension's name")
            if not self.take("="):
                raise self.wrong(f"expected '=' after the dimension's name{self._got()}")
            start = self.at
            sizes = self.range()
            if isinstance(sizes, int):
                raise self.wrong("a named dimension needs min/opt/max", at=start)
            if not self.take("]"):
                raise self.wrong(f"expected ']'{self._got()}")
            return DynamicDim(sizes, name)
        sizes = self.range()
        return sizes if isinstance(sizes, int) else DynamicDim(sizes)

    def range(self) -> int | SizeRange:
        start = self.at
        sizes = [self.size()]
        while self.take("/"):
            sizes.append(self.size())
        if len(sizes) == 1:
            return sizes[0]
        if len(sizes) != 3:
            raise self.wrong("a dynamic dimension needs three sizes, min/opt/max", at=start)
        if sizes != sorted(sizes):
            raise self.wrong("sizes must rise: min <= opt <= max", at=start)
        if sizes[0] == sizes[2]:
            return sizes[0]
        return SizeRange(*sizes)

    def size(self) -> int:
        start = self.at
        size = int(self.match(_SIZE, "a size"))
        if size < 1:
            raise self.wrong("a size must be at least 1", at=start)
        return size

    def dtype(self) -> tuple[str | None, float | None, float | None]:
        if not self.take(":"):
            return None, None, None
        start = self.at
        dtype = self.match(_WORD, "a type, such as float32")
        if dtype not in INPUT_DTYPES:
            near = nearest(dtype, INPUT_DTYPES)
            meant = f"did you mean {near}? " if near else ""
            raise self.wrong(
                f"unknown type {dtype!r}", at=start, hint=f"{meant}types: {', '.join(INPUT_DTYPES)}"
            )
        if not self.take("["):
            return dtype, None, None
        if dtype == "bool":
            raise self.wrong("bool has no range", at=self.at - 1)
        low = self.bound(dtype)
        if not self.take(","):
            raise self.wrong(f"expected ','{self._got()}")
        start = self.at
        high = self.bound(dtype)
        if high <= low:
            raise self.wrong(f"the range is empty, {high:g} is not above {low:g}", at=start)
        if not (self.take("]") or self.take(")")):
            raise self.wrong(f"expected ']'{self._got()}")
        return dtype, low, high

    def bound(self, dtype: str) -> float:
        start = self.at
        value = float(self.match(_NUMBER, "a number"))
        if "float" not in dtype and value != int(value):
            raise self.wrong(f"{dtype} needs whole numbers", at=start)
        return value

    def end(self) -> None:
        if self.at < len(self.text):
            raise self.wrong(f"unexpected {self.text[self.at]!r}", hint=self._hint())

    def _hint(self) -> str:
        if _FILE.search(self.text):
            return f"give samples as {', '.join(SAMPLE_SUFFIXES)}, or a folder of them as @FOLDER"
        return _GRAMMAR

    def _got(self) -> str:
        return f", got {self.text[self.at]!r}" if self.at < len(self.text) else ", got the end"
