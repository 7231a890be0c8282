# SPDX-License-Identifier: Apache-2.0
"""The choice of a variant is a function of the manifest and a machine's facts."""

from __future__ import annotations

from typing import Any

import pytest

from trtpack_runtime.engines import Verdict, engine
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.manifest import EngineRef, Manifest, Variant
from trtpack_runtime.resolve import OwnEngine, check_requirements, choose, resolve

RECORD = {"torch": "2.6.0", "os": "linux", "arch": "x86_64", "cpu_flags": ["avx2"]}
INDUCTOR = EngineRef("inductor", "engines/cpu/s.pt2", RECORD)
DEFERRED = EngineRef("tensorrt", deferred="left to the device")


def manifest(*requires: str) -> Manifest:
    return Manifest(
        name="m",
        producer="trtpack 0.1.0",
        methods={},
        requires=("format:1", *requires),
        variants={
            "orin": Variant({"name": "orin", "kind": "tensorrt", "sm": "8.7"}, {}, {"s": DEFERRED}),
            "cpu": Variant({"name": "cpu", "kind": "inductor", "sm": None}, {}, {"s": INDUCTOR}),
            "plain": Variant({"name": "plain", "kind": "reference", "sm": None}, {}, {}),
        },
    )


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "torch": "2.6.0+cpu",
        "os": "linux",
        "arch": "x86_64",
        "cpu": {"flags": ["avx2", "fma"]},
        "gpus": [],
    } | changes


def verdicts(here: dict[str, Any], untrusted: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    found = resolve(manifest(), here, untrusted)
    return {c.variant: (c.verdict.fit, c.verdict.reason) for c in found}


def test_an_engine_that_fits_exactly_comes_first() -> None:
    assert list(verdicts(facts())) == ["cpu", "plain", "orin"]
    assert verdicts(facts())["cpu"] == ("exact", "built for PyTorch 2.6.0 on x86_64")


@pytest.mark.parametrize(
    ("changes", "variant", "verdict"),
    [
        ({}, "orin", ("impossible", "needs an NVIDIA GPU of SM 8.7, this machine has none")),
        (
            {"gpus": [{"sm": "8.9"}]},
            "orin",
            ("impossible", "needs an NVIDIA GPU of SM 8.7, this machine has SM 8.9"),
        ),
        (
            {"gpus": [{"sm": "8.7"}]},
            "orin",
            ("rebuild", "left to the device"),
        ),
        (
            {"torch": "2.5.1"},
            "cpu",
            ("rebuild", "built for PyTorch 2.6.0, this machine has 2.5.1"),
        ),
        ({"torch": None}, "plain", ("impossible", "PyTorch is not installed")),
    ],
)
def test_reasons_are_told(changes: Any, variant: str, verdict: tuple[str, str]) -> None:
    assert verdicts(facts(**changes))[variant] == verdict


def test_pytorchs_kernels_for_the_gpu_outrank_those_of_the_cpu() -> None:
    gpu = EngineRef("inductor", "engines/gpu/s.pt2", {**RECORD, "gpu": {"sm": "9.0"}})
    variants = {
        "cpu": Variant({"name": "cpu", "kind": "inductor", "sm": None}, {}, {"s": INDUCTOR}),
        "native": Variant({"name": "native", "kind": "inductor", "sm": "9.0"}, {}, {"s": gpu}),
    }
    made = Manifest("m", "trtpack 0.1.0", {}, variants, ("format:1",))
    order = [c.variant for c in resolve(made, facts(gpus=[{"sm": "9.0"}]))]
    assert order == ["native", "cpu"]
    assert [c.variant for c in resolve(made, facts())] == ["cpu", "native"]


def test_machine_code_needs_trust() -> None:
    fit, reason = verdicts(facts(), ("engines/cpu/s.pt2",))["cpu"]
    assert fit == "impossible"
    assert "--trust" in reason
    candidates = resolve(manifest(), facts(), ("engines/cpu/s.pt2",))
    assert choose(manifest(), candidates, facts()).variant == "plain"
    with pytest.raises(BundleError, match="did not build") as caught:
        choose(manifest(), candidates, facts(), target="cpu", strict=True)
    assert "--trust" in caught.value.hint


def test_without_a_fit_the_most_portable_variant_runs_degraded() -> None:
    only = manifest()
    del only.variants["plain"]  # type: ignore[attr-defined]  # a dict in tests
    here = facts(torch="2.5.1")
    candidates = resolve(only, here)
    choice = choose(only, candidates, here)
    assert (choice.variant, choice.degraded) == ("cpu", True)
    assert choice.explain().startswith("cpu: runs its portable form in PyTorch")
    with pytest.raises(BundleError, match=r"cpu: built for .*; orin: needs an NVIDIA GPU"):
        choose(only, candidates, here, strict=True)
    nothing = facts(torch=None)
    with pytest.raises(BundleError, match="PyTorch is not installed"):
        choose(only, resolve(only, nothing), nothing)


def test_an_unknown_engine_kind_is_a_reason_not_a_crash() -> None:
    with pytest.raises(BundleError, match="no engine kind 'warp'"):
        engine("warp")
    other = manifest()
    other.variants["new"] = Variant(  # type: ignore[index]  # a dict in tests
        {"name": "new", "kind": "warp"}, {}, {"s": EngineRef("warp", "engines/new/s.bin")}
    )
    found = {c.variant: c.verdict for c in resolve(other, facts())}
    assert found["new"].fit == "impossible"
    assert "no engine kind 'warp'" in found["new"].reason


def test_a_record_without_what_is_compared_does_not_fit() -> None:
    other = manifest()
    other.variants["cpu"] = Variant(  # type: ignore[index]  # a dict in tests
        {"name": "cpu", "kind": "inductor"}, {}, {"s": EngineRef("inductor", "engines/cpu/s.pt2")}
    )
    found = {c.variant: c.verdict for c in resolve(other, facts())}
    assert found["cpu"].reason == "its compatibility record lacks 'os'"


def test_an_unknown_target_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        choose(manifest(), resolve(manifest(), facts()), facts(), target="plane")
    assert caught.value.hint == "did you mean plain?"


def test_requirements_are_compared() -> None:
    check_requirements(manifest("torch>=2.6"), facts())
    check_requirements(manifest("torch>=2.3", "module:ops"), facts(), {"ops"})
    with pytest.raises(BundleError, match=r"needs PyTorch 2\.10 or newer, this machine has 2\.6"):
        check_requirements(manifest("torch>=2.10"), facts())
    with pytest.raises(BundleError, match="module 'ops'"):
        check_requirements(manifest("module:ops"), facts())


def with_engine(record: dict[str, Any] | None = None) -> Manifest:
    """The manifest whose ``orin`` has an engine, of which ``record`` is told."""
    engine_ref = EngineRef("tensorrt", "engines/orin/s.plan", record or {})
    target = {"name": "orin", "kind": "tensorrt", "sm": "8.7"}
    other = manifest()
    other.variants["orin"] = Variant(target, {}, {"s": engine_ref})  # type: ignore[index]  # a dict in tests
    return other


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Verdict]:
    """What TensorRT's check answers, in place of the real one."""
    verdicts: list[Verdict] = []
    monkeypatch.setattr(engine("tensorrt"), "check", lambda record, facts: verdicts[-1])
    return verdicts


@pytest.mark.parametrize(
    ("own", "first", "fit", "reason"),
    [
        (None, "cpu", "exact", "built for PyTorch 2.6.0 on x86_64"),
        (OwnEngine("rebuild", "no TensorRT"), "cpu", "exact", "built for PyTorch 2.6.0 on x86_64"),
        (OwnEngine("builds", "builds here", 3.0), "orin", "builds", "builds here"),
        (OwnEngine("exact", "from the store"), "orin", "exact", "from the store"),
    ],
)
def test_engines_of_this_machine_outrank_the_cpu(
    own: OwnEngine | None, first: str, fit: str, reason: str
) -> None:
    here = facts(gpus=[{"sm": "8.7"}])
    found = resolve(manifest(), here, (), {} if own is None else {("orin", "s"): own})
    assert (found[0].variant, found[0].verdict.fit) == (first, fit)
    assert found[0].verdict.reason == reason
    assert found[0].runs
    assert choose(manifest(), found, here, strict=True).variant == first


def test_an_engine_that_works_outranks_the_cpu_and_one_to_build(judged: list[Verdict]) -> None:
    judged.append(Verdict("works", "not tuned here"))
    other = with_engine()
    own = {("orin", "s"): OwnEngine("builds", "builds here")}
    found = resolve(other, facts(), (), own)
    assert (found[0].variant, found[0].verdict.fit) == ("orin", "works")
    assert found[0].own == frozenset()
    stored = resolve(other, facts(), (), {("orin", "s"): OwnEngine("exact", "from the store")})
    assert stored[0].verdict.fit == "exact"
    assert stored[0].own == {"s"}


def test_a_version_compatible_plan_needs_trust(judged: list[Verdict]) -> None:
    judged.append(Verdict("works", "built to be compatible"))
    record = {"options": {"version_compatible": True}}
    other = with_engine(record)
    member = "engines/orin/s.plan"
    refused = {c.variant: c for c in resolve(other, facts(), (member,))}["orin"]
    assert refused.verdict.fit == "impossible"
    assert "--trust" in refused.verdict.reason
    assert resolve(other, facts(), ())[0].variant == "orin"
    own = {("orin", "s"): OwnEngine("builds", "builds here")}
    assert resolve(other, facts(), (member,), own)[0].verdict.fit == "builds"
    plain = with_engine({"options": {"version_compatible": False}})
    assert resolve(plain, facts(), (member,))[0].verdict.fit == "works"
    odd = with_engine({"options": "none"})
    assert resolve(odd, facts(), (member,))[0].verdict.fit == "works"
