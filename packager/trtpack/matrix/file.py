# SPDX-License-Identifier: Apache-2.0
"""Reads ``matrix.toml``: models, targets, what each is built with, and what is left out.

```toml
[build]                                  # options of trtpack build, for every cell
samples = 2

[run]                                    # and of trtpack run
tolerate = "10%"

[ci]
build-runner = ["ubuntu-24.04"]          # the labels of machines that build

[models.resnet18]
model = "torchvision:resnet18"
build = { liven = true, dtype = "float16" }
needs = ["memory>=2"]                    # fp8, fp4, dla, tensorrt>=X, memory>=GIB
files = ["config/*.yaml"]                # whatever else it is made of

[targets.orin]
target = "orin@jetpack-6.2"              # where it is not the table's own name
runner = ["self-hosted", "jetson-orin"]  # the labels of machines that test; built only without

[[exclude]]
model = "resnet*"
target = "cpu"
reason = "too slow to be of use"

[[include]]                              # a further cell, with options of its own
name = "resnet18-dla"
model = "resnet18"
target = "orin"
build = { dla-core = 0 }

[[expect-failure]]
cell = "bert-t4"
reason = "FP16 overflows"
strict = true                            # fail where it passes, so that this entry goes
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError
from ..options import Options
from ..spelling import nearest
from ..target import AUTO, NATIVE, Target, check_need, find_target
from ..target.files import Table
from ..target.possible import ImpossibleTarget
from ..toml_places import Key

Settings = Mapping[str, Any]
"""Options by name, without the dashes: ``{"dtype": "float16", "liven": True}``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Flags(Protocol):
    """The options of ``trtpack build`` and ``trtpack run``, which the command line knows."""

    def names(self, verb: str) -> Iterable[str]:
        """Those that a matrix may set."""

    def words(self, verb: str, settings: Settings) -> list[str]:
        """The settings as on a command line. Raises ConfigError for one that it cannot take."""

    def options(self, model: str, target: str, settings: Settings) -> Options:
        """What ``trtpack build`` would be told. Raises ConfigError."""


@dataclass(frozen=True)
class Model:
    """A row: its name in the file, its MODEL argument, and what it needs."""

    name: str
    model: str
    build: Settings
    run: Settings
    needs: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A target of the matrix; ``impossible`` says why there is none of that name."""

    name: str
    asked: str
    target: Target | None
    impossible: str | None
    build: Settings
    run: Settings
    runner: tuple[str, ...]
    build_runner: tuple[str, ...]


@dataclass(frozen=True)
class Include:
    """A further cell."""

    name: str
    model: str
    target: str
    build: Settings
    run: Settings


@dataclass(frozen=True)
class Rule:
    """Which cells it is about, by patterns; why; and where it stands in the file."""

    cell: str
    model: str
    target: str
    reason: str
    strict: bool
    place: str


@dataclass(frozen=True)
class Matrix:
    """What a file says."""

    path: Path
    build: Settings
    run: Settings
    gitlab_template: str
    models: tuple[Model, ...]
    columns: tuple[Column, ...]
    includes: tuple[Include, ...]
    excludes: tuple[Rule, ...]
    expected: tuple[Rule, ...]


def read_matrix(path: Path, flags: Flags) -> Matrix:
    """The matrix at ``path``.

    Errors: FileError with the line and column of everything that is wrong.
    """
    table = Table.read(path)
    reader = _Reader(table, flags)
    ci = table.part("ci")
    runners = ci.texts("build-runner", ["ubuntu-24.04"])
    template = ci.text_or_none("gitlab-template") or "scripts/ci/trtpack-cells.gitlab-ci.yml"
    ci.leftover()
    build, run = reader.settings(table, "build"), reader.settings(table, "run")
    models = tuple(reader.model(part) for part in reader.tables("models"))
    columns = tuple(reader.column(part, runners) for part in reader.tables("targets"))
    names = [model.name for model in models], [column.name for column in columns]
    includes = tuple(reader.include(part, names) for part in reader.rows("include"))
    rows = reader.rows
    matrix = Matrix(
        path=path,
        build=build,
        run=run,
        gitlab_template=template,
        models=models,
        columns=columns,
        includes=includes,
        excludes=tuple(reader.rule(part) for part in rows("exclude")),
        expected=tuple(reader.rule(part) for part in rows("expect-failure")),
    )
    table.leftover()
    if table.problems:
        table.refuse(f"correct {path}")
    return matrix


class _Reader:
    def __init__(self, table: Table, flags: Flags) -> None:
        self.table, self.flags = table, flags
        self.cells = set[str]()

    def tables(self, name: str) -> list[Table]:
        """The tables within ``[name]``; notes where there is none, and a name that cannot be."""
        whole = self.table.part(name)
        if not whole.content:
            self.table.wrong(name, f"missing, wanted a table [{name}.NAME] for each")
        for key in whole.content:
            if not _NAME.fullmatch(key):
                whole.wrong(key, "wanted a name of letters, digits, dots and dashes", of_key=True)
        return [whole.part(key) for key in tuple(whole.content)]

    def rows(self, name: str) -> list[Table]:
        """Each ``[[name]]``."""
        rows = self.table.take(
            name,
            lambda v: isinstance(v, list) and all(isinstance(row, dict) for row in v),
            f"tables [[{name}]]",
            [],
        )
        problems = self.table.problems
        return [
            Table(self.table.document, row, (name, index), problems)
            for index, row in enumerate(rows)
        ]

    def settings(self, table: Table, verb: str) -> Settings:
        """The options of ``build`` or ``run``; notes each that the command would not take."""
        part = table.part(verb)
        names = sorted(self.flags.names(verb))
        for key, value in part.content.items():
            if key not in names:
                near = nearest(key, names)
                did = f", did you mean {near}?" if near else ""
                part.wrong(key, f"trtpack {verb} has no such option{did}", of_key=True)
                continue
            try:
                self.flags.words(verb, {key: value})
            except ConfigError as error:
                part.wrong(key, error.message.splitlines()[0])
        return dict(part.content)

    def model(self, table: Table) -> Model:
        made = Model(
            name=str(table.key[-1]),
            model=table.text("model"),
            build=self.settings(table, "build"),
            run=self.settings(table, "run"),
            needs=table.texts("needs", ()),
            files=table.texts("files", ()),
        )
        for index, need in enumerate(made.needs):
            if wrong := check_need(need):
                table.wrong(("needs", index), wrong)
        table.leftover()
        return made

    def column(self, table: Table, build_runner: tuple[str, ...]) -> Column:
        name = str(table.key[-1])
        asked = table.text_or_none("target") or name
        target, impossible = self._target(table, asked)
        made = Column(
            name=name,
            asked=asked,
            target=target,
            impossible=impossible,
            build=self.settings(table, "build"),
            run=self.settings(table, "run"),
            runner=table.texts("runner", ()),
            build_runner=table.texts("build-runner", build_runner),
        )
        table.leftover()
        return made

    def _target(self, table: Table, asked: str) -> tuple[Target | None, str | None]:
        at: Key = ("target",)
        if asked.lower() in (NATIVE, AUTO):
            table.wrong(at, f"a matrix names its devices; {asked} is whichever machine runs it")
            return None, None
        try:
            return find_target(asked), None
        except ImpossibleTarget as error:
            return None, error.message
        except ConfigError as error:
            table.wrong(at, f"{error.message}; {error.hint}" if error.hint else error.message)
            return None, None

    def include(self, table: Table, names: tuple[Sequence[str], Sequence[str]]) -> Include:
        made = Include(
            name=table.text("name"),
            model=self._one_of(table, "model", names[0]),
            target=self._one_of(table, "target", names[1]),
            build=self.settings(table, "build"),
            run=self.settings(table, "run"),
        )
        taken = {f"{model}-{target}" for model in names[0] for target in names[1]} | self.cells
        if made.name and not _NAME.fullmatch(made.name):
            table.wrong("name", "wanted a name of letters, digits, dots and dashes")
        elif made.name in taken:
            table.wrong("name", f"there is a cell {made.name} already")
        self.cells.add(made.name)
        table.leftover()
        return made

    def _one_of(self, table: Table, key: str, names: Sequence[str]) -> str:
        name = table.text(key)
        if name and name not in names:
            near = nearest(name, names)
            table.wrong(
                key, f"there is no {key} {name!r}" + (f", did you mean {near}?" if near else "")
            )
        return name

    def rule(self, table: Table) -> Rule:
        patterns = {key: table.text_or_none(key) for key in ("cell", "model", "target")}
        if not any(patterns.values()):
            table.wrong((), "says of no cell, model or target that it is meant", of_key=True)
        made = Rule(
            **{key: value or "*" for key, value in patterns.items()},
            reason=table.text("reason"),
            strict=table.flag("strict", False),
            place=self.table.document.at(table.key),
        )
        table.leftover()
        return made
