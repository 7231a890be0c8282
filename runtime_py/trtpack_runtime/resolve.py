# SPDX-License-Identifier: Apache-2.0
"""Chooses the variant of a bundle for a machine, and says why the others do not fit.

A pure function over the manifest and the machine's facts (``device.facts()``), so a host
can ask for a device it has only the facts of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import engines
from .bundle import Bundle
from .durations import about
from .engines import FITS, Fit, Verdict
from .errors import BundleError, ConfigError, InternalError
from .ledger import carries_code, code_members, trusted
from .manifest import EngineRef, Manifest, Variant
from .spelling import nearest

_PREFERENCE = ("tensorrt", "tensorrt-rtx", "inductor", "reference")
"""Engine kinds from fastest to most portable; decides between variants that fit equally well."""

_ON_GPU = ("tensorrt", "tensorrt-rtx")
"""Kinds that are preferred, even where they have to be built first, to those of the CPU."""


@dataclass(frozen=True)
class OwnEngine:
    """What a machine has or can do itself in place of an engine of the bundle.

    ``exact``: it built one before; ``builds``: it can, in about ``seconds`` where that is known;
    ``rebuild``: it cannot, and ``reason`` says why.
    """

    fit: Fit
    reason: str
    seconds: float | None = None


Own = Mapping[tuple[str, str], OwnEngine]
"""A machine's own engines by variant and segment."""


@dataclass(frozen=True)
class Candidate:
    """A variant's verdict: that of its worst engine. ``engines`` has the verdict of each, and
    ``own`` the segments whose engine is this machine's own, built or to be built. An engine that
    does not fit counts for nothing where it is ``optional``: PyTorch runs the segment."""

    variant: str
    verdict: Verdict
    engines: Mapping[str, Verdict]
    own: frozenset[str] = field(default=frozenset())
    optional: frozenset[str] = field(default=frozenset())

    @property
    def runs(self) -> bool:
        """Whether its engines run here, perhaps after some are built."""
        return self.verdict.usable or self.verdict.fit == "builds"

    def judged(self, verdicts: Mapping[str, Verdict]) -> Candidate:
        """The same with other verdicts of some segments."""
        found = {**self.engines, **verdicts}
        return replace(self, engines=found, verdict=_worst(found, self.optional))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "variant": self.variant,
            "fit": self.verdict.fit,
            "reason": self.verdict.reason,
            "engines": {k: {"fit": v.fit, "reason": v.reason} for k, v in self.engines.items()},
        }


@dataclass(frozen=True)
class Choice:
    """The variant to load. ``degraded``: engines that do not fit are replaced by PyTorch."""

    chosen: Candidate
    degraded: bool
    candidates: tuple[Candidate, ...]

    @property
    def variant(self) -> str:
        """The chosen variant's name."""
        return self.chosen.variant

    def explain(self) -> str:
        """Why this variant and none of the others, a line each."""
        if self.degraded:
            first = (
                f"{self.variant}: runs its portable form in PyTorch, slower than its engines; "
                f"{self.chosen.verdict.reason}"
            )
        else:
            first = f"{self.variant}: {self.chosen.verdict.reason}"
        others = [c for c in self.candidates if c is not self.chosen]
        return "\n".join([first, *(f"not {c.variant}: {self._against(c)}" for c in others)])

    def _against(self, other: Candidate) -> str:
        if other.runs and not self.degraded:
            return f"would fit too ({other.verdict.reason})"
        return other.verdict.reason


def resolve(
    manifest: Manifest,
    facts: Mapping[str, Any],
    untrusted: Collection[str] = (),
    own: Own | None = None,
) -> list[Candidate]:
    """Every variant with its verdict, best first.

    ``untrusted`` are the members with machine code that may not be loaded; ``own`` what the machine
    has built or can build itself (``finish.own_engines``).
    """
    candidates = [
        _candidate(name, variant, facts, untrusted, own or {})
        for name, variant in manifest.variants.items()
    ]
    return sorted(candidates, key=lambda c: _rank(c, manifest.variants[c.variant]))


def choose(
    manifest: Manifest,
    candidates: Sequence[Candidate],
    facts: Mapping[str, Any],
    *,
    target: str | None = None,
    strict: bool = False,
) -> Choice:
    """The best variant, or ``target``; where its engines do not fit, its portable form.

    Raises:
        ConfigError: the bundle has no variant ``target``.
        BundleError: no variant fits and ``strict`` forbids the portable form, or there is no
            PyTorch to run it.
    """
    if target is not None and target not in manifest.variants:
        raise unknown_variant(target, list(manifest.variants))
    wanted = [c for c in candidates if target in (None, c.variant)]
    if wanted and wanted[0].runs:
        return Choice(wanted[0], False, tuple(candidates))
    if strict or not facts.get("torch") or not wanted:
        raise _none_fits(wanted, strict=strict)
    portable = min(wanted, key=lambda c: _portability(manifest.variants[c.variant]))
    return Choice(portable, True, tuple(candidates))


def check_requirements(
    manifest: Manifest, facts: Mapping[str, Any], imported: Collection[str] = ()
) -> None:
    """Compares ``requires`` with the machine and the modules that are imported.

    Raises:
        BundleError: PyTorch is too old, or a module that registers operators is not imported.
    """
    for name in missing_modules(manifest, imported):
        raise BundleError(
            f"the bundle uses operators of the module {name!r}, which is not imported",
            hint=f"add --import {name}, or imports=[{name!r}] in Python",
            wants=name,
        )
    for requirement in manifest.requires:
        if requirement.startswith("torch>="):
            wants, has = requirement.removeprefix("torch>="), facts.get("torch")
            if has and _version(has) < _version(wants):
                raise BundleError(
                    f"the bundle needs PyTorch {wants} or newer, this machine has {has}",
                    hint="update PyTorch on this device",
                    wants=wants,
                    has=has,
                )


def missing_modules(manifest: Manifest, imported: Collection[str]) -> list[str]:
    """The modules that register the bundle's operators and are not imported."""
    named = [r.removeprefix("module:") for r in manifest.requires if r.startswith("module:")]
    return [name for name in named if name not in imported]


def untrusted_members(bundle: Bundle) -> list[str]:
    """The members with machine code that this machine did not build, after its ledger."""
    members = code_members(bundle.manifest)
    return [name for name in members if not trusted(bundle.entries[name].sha256)]


def _candidate(
    name: str,
    variant: Variant,
    facts: Mapping[str, Any],
    untrusted: Collection[str],
    own: Own,
) -> Candidate:
    verdicts, taken, seconds = {}, [], []
    for segment, engine in variant.engines.items():
        verdict = verdict_of(engine, variant.target, facts, untrusted)
        mine = own.get((name, segment))
        if mine is not None and FITS.index(mine.fit) <= FITS.index(verdict.fit):
            verdict = Verdict(mine.fit, mine.reason)
            if mine.fit != "rebuild":
                taken.append(segment)
            if mine.fit == "builds":
                seconds.append(mine.seconds)
        verdicts[segment] = verdict
    optional = frozenset(filter(variant.is_optional, verdicts))
    if not _counting(verdicts, optional):
        verdict = engines.engine("reference").check({}, facts)
        return Candidate(name, verdict, verdicts, frozenset(taken), optional)
    worst = _worst(verdicts, optional)
    if worst.fit == "builds" and len(seconds) > 1:
        known = [s for s in seconds if s is not None]
        time = f" ({about(sum(known))})" if len(known) == len(seconds) else ""
        worst = Verdict("builds", f"{len(seconds)} engines build here at the first run{time}")
    return Candidate(name, worst, verdicts, frozenset(taken), optional)


def _worst(verdicts: Mapping[str, Verdict], optional: Collection[str]) -> Verdict:
    counting = _counting(verdicts, optional) or list(verdicts.values())
    return max(counting, key=lambda v: FITS.index(v.fit))


def _counting(verdicts: Mapping[str, Verdict], optional: Collection[str]) -> list[Verdict]:
    """The verdicts of the engines that the variant runs on, or cannot do without."""
    return [
        v for name, v in verdicts.items() if name not in optional or v.usable or v.fit == "builds"
    ]


def verdict_of(
    engine: EngineRef,
    target: Mapping[str, Any],
    facts: Mapping[str, Any],
    untrusted: Collection[str] = (),
) -> Verdict:
    """What the bundle's own engine is good for on a machine."""
    if engine.member is None:
        return _deferred(engine, target, facts)
    try:
        verdict = engines.engine(engine.kind).check(engine.record, facts)
    except BundleError as error:
        return Verdict("impossible", error.message)
    except KeyError as error:
        return Verdict("impossible", f"its compatibility record lacks {error}")
    if verdict.usable and carries_code(engine) and engine.member in untrusted:
        return Verdict(
            "impossible", "it holds machine code that this machine did not build; --trust loads it"
        )
    return verdict


def _deferred(engine: EngineRef, target: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
    """An engine that only the device itself can build."""
    wanted = [sm for sm in (target.get("sm"), *target.get("sm_also", ())) if sm]
    has = [gpu["sm"] for gpu in facts.get("gpus", ())]
    if wanted and not set(map(str, wanted)) & set(map(str, has)):
        found = "; ".join(facts.get("problems", ())) or "this machine has none"
        if has:
            found = f"this machine has SM {', '.join(map(str, has))}"
        return Verdict("impossible", f"needs an NVIDIA GPU of SM {wanted[0]}, {found}")
    return Verdict("rebuild", engine.deferred or "it has no engine yet")


def _rank(candidate: Candidate, variant: Variant) -> tuple[bool, bool, int, int, str]:
    return (
        not candidate.runs,
        candidate.runs and not _on_gpu(variant),
        FITS.index(candidate.verdict.fit),
        _speed(variant),
        candidate.variant,
    )


def _on_gpu(variant: Variant) -> bool:
    return variant.target["kind"] in _ON_GPU or variant.target.get("sm") is not None


def _speed(variant: Variant) -> int:
    kind = variant.target["kind"]
    return _PREFERENCE.index(kind) if kind in _PREFERENCE else len(_PREFERENCE)


def _portability(variant: Variant) -> int:
    return -_speed(variant)


def _none_fits(candidates: Sequence[Candidate], *, strict: bool) -> BundleError:
    if not candidates:
        return BundleError("the bundle has no variant", hint="build the bundle again")
    reasons = "; ".join(f"{c.variant}: {c.verdict.reason}" for c in candidates)
    hint = "build for this machine, trtpack doctor shows what it is"
    if any("--trust" in c.verdict.reason for c in candidates):
        hint = "add --trust if you trust who built it"
    elif strict:
        hint += ", or leave out --strict to run it in PyTorch"
    return BundleError(f"no variant fits this machine: {reasons}", hint=hint)


def unknown_variant(target: str, names: Sequence[str]) -> ConfigError:
    """What to tell a user who asks for a variant that is not there."""
    near = nearest(target, names)
    hint = f"did you mean {near}?" if near else "choose one of them"
    return ConfigError(
        f"the bundle has no variant {target!r}, it has {', '.join(names)}", hint=hint
    )


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.partition("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    if not numbers:
        raise InternalError(f"{text!r} is no version")
    return tuple(numbers)
