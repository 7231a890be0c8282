# SPDX-License-Identifier: Apache-2.0
"""The kinds of engine a device can build itself: what each needs, depends on and is built with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from .engine_store import tensorrt_parts
from .mapping import FilePart
from .network import Network

OnEvent = Callable[[Mapping[str, Any]], None]
"""Told ``{"phase", "parent", "step", "steps"}`` as TensorRT goes."""


@dataclass(frozen=True)
class Site:
    """A machine by its ``facts`` (``device.facts``) and the ``target`` to build for, as a bundle
    describes it."""

    facts: Mapping[str, Any]
    target: Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """One engine to build: of ``network`` with the options of the bundle.

    ``on_log`` is told each of TensorRT's log lines when the build is over, VERBOSE ones too where
    ``verbose``.
    """

    name: str
    network: Network
    weights: Sequence[Path | FilePart]
    options: Mapping[str, Any]
    tactics: bytes | None = None
    on_log: Callable[[str], None] | None = None
    verbose: bool = False


@dataclass(frozen=True)
class Outcome:
    """A built engine's compatibility record, and what its tactic search left: a timing cache and
    its readable entries; None where this TensorRT tells none.

    ``refused_tactics`` says what is wrong with the timing cache it was to begin with, where
    TensorRT did not take that; ``gpu`` is what ``gpu_watch.GpuWatch`` saw meanwhile.
    """

    record: Mapping[str, Any]
    tactics: bytes | None = None
    entries: tuple[Mapping[str, Any], ...] | None = None
    refused_tactics: str | None = None
    gpu: Mapping[str, int] = field(default_factory=dict)


class Builder(Protocol):
    """A kind of engine that can be built where a bundle is, not only where it was made."""

    def cannot_build(self, site: Site) -> str | None:
        """Why a machine cannot build engines for a bundle's target, as a clause, or None."""

    def cannot_run(self, site: Site) -> str | None:
        """Why an engine built there would not run there, or None."""

    def parts(self, content: str, options: Mapping[str, Any], site: Site) -> dict[str, Any]:
        """Everything the engine depends on, for ``engine_store.engine_key``."""

    def build(self, work: Work, plan: Path, site: Site, on_event: OnEvent | None) -> Outcome:
        """Builds ``plan`` in a child process; raises as ``engines.tensorrt.build``."""


class _TensorRT:
    """TensorRT proper: builds for the GPU of the machine, with that GPU."""

    def cannot_build(self, site: Site) -> str | None:
        from .engines import tensorrt

        return tensorrt.can_build(site.facts, site.target)

    def cannot_run(self, site: Site) -> str | None:
        return self.cannot_build(site)

    def parts(self, content: str, options: Mapping[str, Any], site: Site) -> dict[str, Any]:
        return tensorrt_parts(content, _whole(options), site.facts)

    def build(self, work: Work, plan: Path, site: Site, on_event: OnEvent | None) -> Outcome:
        from .engines import tensorrt
        from .engines._options import BuildOptions

        built = tensorrt.build(
            work.network,
            work.weights,
            plan,
            options=BuildOptions.from_json(work.options),
            facts=site.facts,
            tactics=work.tactics,
            on_progress=on_event,
            on_log=work.on_log,
            verbose=work.verbose,
            name=work.name,
        )
        return Outcome(built.record, built.tactics, built.entries, built.refused_tactics, built.gpu)


class _TensorRTRTX:
    """TensorRT-RTX: builds on any machine that has it, for the capability of the target."""

    def cannot_build(self, site: Site) -> str | None:
        if not site.facts.get("tensorrt_rtx"):
            return "TensorRT-RTX is not installed"
        if _capability(site.target) is None:
            return f"TensorRT-RTX does not build for SM {site.target.get('sm')}"
        return None

    def cannot_run(self, site: Site) -> str | None:
        if reason := self.cannot_build(site):
            return reason
        gpus = site.facts.get("gpus") or ()
        if not gpus:
            return "; ".join(site.facts.get("problems", ())) or "there is no NVIDIA GPU"
        if gpus[0]["sm"] not in _capabilities(site.target):
            return f"{gpus[0]['name']} has SM {gpus[0]['sm']}, wants {site.target.get('sm')}"
        return None

    def parts(self, content: str, options: Mapping[str, Any], site: Site) -> dict[str, Any]:
        return {
            "kind": "tensorrt-rtx",
            "content": content,
            "options": _whole(options),
            "capability": _capability(site.target),
            "builder": site.facts["tensorrt_rtx"],
            "emitter": site.facts["runtime"],
            "machine": [site.facts["os"], site.facts["arch"]],
        }

    def build(self, work: Work, plan: Path, site: Site, on_event: OnEvent | None) -> Outcome:
        from .engines import tensorrt_rtx
        from .engines._options import BuildOptions

        options = BuildOptions.from_json(work.options)
        if not options.compute_capabilities:
            options = replace(options, compute_capabilities=(_capability(site.target) or "",))
        return Outcome(
            tensorrt_rtx.build_with(
                work.network,
                work.weights,
                plan,
                options=options,
                on_progress=on_event,
                on_log=work.on_log,
                verbose=work.verbose,
                name=work.name,
            )
        )


def _whole(options: Mapping[str, Any]) -> dict[str, Any]:
    """Build options with what is absent as by default, so that equal ones are one key."""
    from .engines._options import BuildOptions

    return BuildOptions.from_json(options).to_json()


def _capabilities(target: Mapping[str, Any]) -> list[str]:
    """The compute capabilities of a target that TensorRT-RTX has a name for."""
    from .engines.tensorrt_rtx import CAPABILITIES

    wanted = map(str, (target.get("sm"), *target.get("sm_also", ())))
    return [sm for sm in wanted if sm in CAPABILITIES]


def _capability(target: Mapping[str, Any]) -> str | None:
    from .engines.tensorrt_rtx import CAPABILITIES

    return next((CAPABILITIES[sm] for sm in _capabilities(target)), None)


BUILDERS: Mapping[str, Builder] = {"tensorrt": _TensorRT(), "tensorrt-rtx": _TensorRTRTX()}
"""Engine kind -> how a device builds it."""
