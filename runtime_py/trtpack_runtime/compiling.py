# SPDX-License-Identifier: Apache-2.0
"""A segment that PyTorch runs, compiled by AOTInductor on the machine that runs it.

A bundle carries the segment's graph and, in the options of its engine, what its inputs look like.
It names no module to import and no program to call: what an untrusted bundle says is compiled as
its graph would be run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import dims
from .builders import Outcome, Site
from .engine_store import engine_key
from .engines.inductor import known_flags
from .errors import BundleError, EngineBuildError
from .manifest import Manifest, TensorSpec
from .mapping import FilePart
from .network import Profile, Tensor
from .tf32 import convolves_in_tf32

KIND = "inductor"
SINCE = (2, 7)
"""The first PyTorch whose loader of compiled segments takes the number of a GPU."""

_TEXT = re.compile(r"[\w .,:;>+\-*]*")


@dataclass(frozen=True)
class Source:
    """What a segment is compiled from: its stored graph, dtype and shape of its inputs, and the
    shapes that those may have."""

    graph: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    profile: Profile | None = None

    def options(self) -> dict[str, Any]:
        """All but the graph, as plain JSON for a bundle."""
        return {
            "inputs": [
                {"name": t.name, "dtype": t.dtype, "shape": [dims.to_json(d) for d in t.shape]}
                for t in self.inputs
            ],
            "profile": {
                name: [list(shape) for shape in shapes]
                for name, shapes in (self.profile.shapes if self.profile else {}).items()
            },
        }

    @classmethod
    def of(cls, graph: Mapping[str, Any], options: Mapping[str, Any]) -> Source:
        """The inverse of ``options``.

        Raises:
            BundleError: they are malformed.
        """
        try:
            inputs = tuple(map(_tensor, options["inputs"]))
            shapes = {str(k): (*map(_shape, v),) for k, v in options["profile"].items()}
            profile = {k: (low, opt, high) for k, (low, opt, high) in shapes.items()}
            if [t.name for t in inputs] != list(graph["inputs"]):
                raise ValueError("the inputs are not those of the graph")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"malformed options of a compiled segment: {type(error).__name__}: {error}",
                hint="build the bundle again",
            ) from error
        return cls(graph, inputs, Profile(profile) if profile else None)

    def content(self, digests: Mapping[str, str]) -> str:
        """The sha256 of what it computes; ``digests`` are those of stored tensors by name, others
        than it reads do not count."""
        read = set(constants_of(self.graph))
        return engine_key(
            {
                "graph": self.graph,
                "options": self.options(),
                "weights": {name: digest for name, digest in digests.items() if name in read},
            }
        )

    @property
    def operators(self) -> int:
        """How many nodes it has."""
        return len(self.graph["nodes"])


def taken_inputs(record: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """What a compiled segment takes, by its engine's record; none where an older packager wrote it.

    Raises:
        BundleError: it is malformed.
    """
    try:
        profile = record.get("profile", {})
        return tuple(
            TensorSpec(t.name, t.dtype, t.shape, *map(_shape, profile.get(t.name, ())))
            for t in map(_tensor, record.get("inputs", ()))
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"malformed record of a compiled segment: {type(error).__name__}: {error}",
            hint="build the bundle again",
        ) from error


def _tensor(value: Mapping[str, Any]) -> Tensor:
    shape = tuple(dims.from_json(size) for size in value["shape"])
    return Tensor(str(value["name"]), str(value["dtype"]), shape)


def _shape(value: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(int, value))


def cannot_compile(site: Site) -> str | None:
    """Why a machine cannot compile for a target, as a clause, or None."""
    facts, target = site.facts, site.target
    has = facts.get("torch")
    if not has:
        return "PyTorch is not installed"
    if _numbers(has) < SINCE:
        return f"PyTorch {has} cannot compile segments, {'.'.join(map(str, SINCE))} can"
    arch = target.get("arch")
    if arch and arch != facts["arch"]:
        return f"this machine is {facts['arch']}, not {arch}"
    if target.get("sm") is not None and (why := _not_on_gpu(site)):
        return why
    if not facts.get("compiler"):
        return "there is no C++ compiler"
    return None


def _not_on_gpu(site: Site) -> str | None:
    facts, target = site.facts, site.target
    gpus = facts.get("gpus") or ()
    if not gpus:
        return "; ".join(facts.get("problems", ())) or "there is no NVIDIA GPU"
    wanted = [str(sm) for sm in (target["sm"], *target.get("sm_also", ()))]
    if str(gpus[0]["sm"]) not in wanted:
        return f"{gpus[0]['name']} is SM {gpus[0]['sm']}, not {wanted[0]}"
    return None if facts.get("torch_cuda") else "PyTorch here cannot use it"


def parts(content: str, site: Site) -> dict[str, Any]:
    """Everything the compiled segment depends on, for ``engine_store.engine_key``."""
    facts = site.facts
    gpu: dict[str, Any] = {}
    if site.target.get("sm") is not None:
        gpu = {"gpu": facts["gpus"][0]["sm"], "cuda": facts.get("torch_cuda")}
        gpu["tf32"] = convolves_in_tf32()
    return {
        "kind": KIND,
        "content": content,
        "torch": facts["torch"],
        "compiler": (facts.get("compiler") or {}).get("version"),
        "emitter": facts["runtime"],
        "machine": [facts["os"], facts["arch"]],
        "cpu": known_flags(facts["cpu"]["flags"]),
        **gpu,
    }


def compile_segment(
    source: Source,
    weights: Sequence[Path | FilePart],
    output: Path,
    site: Site,
    *,
    imports: Sequence[str] = (),
    log: Callable[[str], None] | None = None,
) -> Outcome:
    """Compiles in a child process, for the target's GPU where it has one.

    Raises:
        EngineBuildError: no compiler, no CUDA toolkit, or compilation failed.
    """
    from .engines._inductor_build import build_in_child

    for text in _texts(source.graph):
        if not _TEXT.fullmatch(text):  # it would stand in the program's text
            raise EngineBuildError(
                f"cannot compile the text {text[:40]!r}", hint="PyTorch runs the segment"
            )
    record = build_in_child(
        source.graph,
        weights,
        source.inputs,
        output,
        profile=source.profile,
        imports=imports,
        log=log,
        device="cpu" if site.target.get("sm") is None else "cuda",
    )
    return Outcome(record)


def imported_modules(manifest: Manifest) -> list[str]:
    """The modules with a bundle's operators that this process has imported, as its user wanted."""
    named = [r.removeprefix("module:") for r in manifest.requires if r.startswith("module:")]
    return [name for name in named if name in sys.modules]


def by_reason(reasons: Mapping[str, str]) -> dict[str, str]:
    """Reason -> the segments it is of: ``forward_1``, ``forward_1 and 3 more``."""
    segments: dict[str, list[str]] = {}
    for segment, reason in reasons.items():
        segments.setdefault(reason, []).append(segment)
    return {
        reason: names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        for reason, names in segments.items()
    }


def constants_of(graph: object) -> list[str]:
    """The stored tensors that a graph reads, by name."""
    match graph:
        case {"constant": str(name), **rest} if not rest:
            return [name]
        case dict():
            return [name for part in graph.values() for name in constants_of(part)]
        case list():
            return [name for part in graph for name in constants_of(part)]
    return []


def _texts(graph: Mapping[str, Any]) -> Iterator[str]:
    """The text literals among the arguments of a graph's nodes, those of inner graphs too."""

    def within(value: Any) -> Iterator[str]:
        match value:
            case str():
                yield value
            case {"value": str()} | {"constant": str()}:
                return
            case {"graph": dict(inner)}:
                yield from _texts(inner)
            case dict():
                for part in value.values():
                    yield from within(part)
            case list():
                for part in value:
                    yield from within(part)

    for node in graph["nodes"]:
        yield from within(node["args"])
        yield from within(list(node["kwargs"].values()))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:2])
