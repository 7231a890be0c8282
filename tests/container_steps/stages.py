# SPDX-License-Identifier: Apache-2.0
"""Reads a Dockerfile: its stages, each with its steps in order, and what an image keeps."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

STEPS = ("RUN", "COPY", "ADD")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLE = re.compile(r"\\(.)|\$\{(\w+)\}|\$(\w+)")


class DockerfileError(Exception):
    """A Dockerfile that has something these steps do not know."""


@dataclass
class Step:
    """One instruction that changes the file system, with what holds where it stands."""

    kind: str
    value: str
    user: str
    folder: str
    environment: dict[str, str]


@dataclass
class Stage:
    """``base`` is an image or the name of a stage before; the rest is at the stage's end."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)
    user: str = ""
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


def read_stages(path: Path, arguments: Mapping[str, str]) -> list[Stage]:
    """The stages in their order; ``arguments`` are those of ``--build-arg``.

    Raises:
        DockerfileError: an instruction that is not known here.
    """
    parser = DockerfileParser(fileobj=io.BytesIO(path.read_bytes()))
    before: dict[str, str] = {}  # the ARGs before the first FROM
    own: dict[str, str] = {}
    stages: list[Stage] = []
    for line in parser.structure:
        kind, value = line["instruction"], line["value"]
        if kind == "COMMENT":
            continue
        if kind == "ARG":
            name, _, default = value.partition("=")
            known = before if not stages else own
            known[name] = arguments.get(name, default.strip('"') or before.get(name, ""))
        elif kind == "FROM":
            base, _, name = substituted(value, before).partition(" AS ")
            stages.append(_begun(base, name or str(len(stages)), stages))
            own = {}
        else:
            _take(stages[-1], kind, value, own)
    unknown = arguments.keys() - {*before, *_names(parser)}
    if unknown:
        raise DockerfileError(f"{path} has no ARG {', '.join(sorted(unknown))}")
    return stages


def substituted(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its variables replaced; one that has no value by nothing."""

    def value(match: re.Match[str]) -> str:
        return match[1] if match[1] else values.get(match[2] or match[3], "")

    return _VARIABLE.sub(value, text)


def _names(parser: DockerfileParser) -> set[str]:
    lines = (line for line in parser.structure if line["instruction"] == "ARG")
    return {line["value"].partition("=")[0] for line in lines}


def _begun(base: str, name: str, stages: list[Stage]) -> Stage:
    """A stage that begins where its base has ended."""
    for stage in stages:
        if stage.name == base:
            kept = {"environment": dict(stage.environment), "labels": dict(stage.labels)}
            return Stage(
                name, base, user=stage.user, folder=stage.folder, entrypoint=stage.entrypoint,
                command=stage.command, health=stage.health, **kept,
            )  # fmt: skip
    return Stage(name, base)


def _take(stage: Stage, kind: str, value: str, arguments: Mapping[str, str]) -> None:
    known = {"PATH": PATH, **arguments, **stage.environment}
    if kind in STEPS:
        text = value if kind == "RUN" else substituted(value, known)
        stage.steps.append(Step(kind, text, stage.user, stage.folder, known))
    elif kind in ("ENV", "LABEL"):
        pairs = (word.partition("=") for word in shlex.split(substituted(value, known)))
        kept = stage.environment if kind == "ENV" else stage.labels
        kept.update({name: text for name, _, text in pairs})
    elif kind == "USER":
        stage.user = substituted(value, known)
    elif kind == "WORKDIR":
        stage.folder = substituted(value, known)
        stage.steps.append(Step("WORKDIR", stage.folder, stage.user, stage.folder, known))
    elif kind == "ENTRYPOINT":
        stage.entrypoint, stage.command = _words(value), ()
    elif kind == "CMD":
        stage.command = _words(value)
    elif kind == "HEALTHCHECK":
        stage.health = _words(value.partition("CMD ")[2])
    else:
        raise DockerfileError(f"{kind} is not known here")


def _words(value: str) -> tuple[str, ...]:
    return tuple(json.loads(value)) if value.startswith("[") else ("/bin/sh", "-c", value)
