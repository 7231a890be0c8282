# SPDX-License-Identifier: Apache-2.0
"""What holds for every manifest on every machine: which variant is chosen, and that it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtpack_runtime import resolve as resolving
from trtpack_runtime.engines import FITS, Verdict, tensorrt
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.errors import BundleError
from trtpack_runtime.facts_file import facts_from
from trtpack_runtime.manifest import EngineRef, Manifest, Variant
from trtpack_runtime.resolve import Candidate, Choice, OwnEngine, choose, resolve

GPU_KINDS = ("tensorrt", "tensorrt-rtx")
RUNS = ("exact", "works", "builds")
H200 = {"name": "NVIDIA H200", "sm": "9.0", "multiprocessors": 132, "memory_bytes": 1 << 37}
ADA = {"name": "NVIDIA GeForce RTX 4090", "sm": "8.9", "multiprocessors": 128}
ORIN = {"name": "Orin", "sm": "8.7", "multiprocessors": 16}
VERSIONS = ("8.6.2", "10.3.0", "10.3.0.30", "10.16.1", "11.1.0")

records = st.fixed_dictionaries(
    {
        "torch": st.sampled_from(["2.6.0", "2.8.0"]),
        "os": st.sampled_from(["linux", "windows"]),
        "arch": st.sampled_from(["x86_64", "aarch64"]),
        "cpu_flags": st.lists(st.sampled_from(["avx2", "avx512f", "sve"]), unique=True),
        "tensorrt": st.sampled_from(VERSIONS),
        "tensorrt_rtx": st.sampled_from(["1.6", "1.7"]),
        "compute_capabilities": st.lists(st.sampled_from(["SM89", "SM120"])),
        "sm": st.sampled_from(["8.7", "8.9", "9.0"]),
        "device": st.sampled_from([gpu["name"] for gpu in (H200, ADA, ORIN)]),
        "sm_count": st.sampled_from([None, 16, 132]),
        "jetson": st.sampled_from([None, "p3701-0005"]),
        "options": st.builds(
            lambda compatible: replace(BuildOptions(), version_compatible=compatible).to_json(),
            st.booleans(),
        ),
    },
)


@st.composite
def variants(draw: st.DrawFn, name: str) -> Variant:
    kind = draw(st.sampled_from(["tensorrt", "tensorrt-rtx", "inductor", "reference"]))
    sm = draw(st.sampled_from([None, "8.7", "9.0"]))
    engines: dict[str, EngineRef] = {}
    for segment in draw(st.lists(st.sampled_from("ab"), unique=True)):
        whole = draw(records)
        if draw(st.booleans()):
            whole.pop(draw(st.sampled_from(sorted(whole))))  # a record that lacks something
        deferred = draw(st.booleans())
        engines[segment] = (
            EngineRef(kind, deferred="left to the device")
            if deferred
            else EngineRef(kind, f"engines/{name}/{segment}", whole)
        )
    return Variant({"name": name, "kind": kind, "sm": sm}, {}, engines)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(st.sampled_from(["orin", "h200", "cpu", "plain"]), unique=True))
    found = {name: draw(variants(name)) for name in names}
    return Manifest(name="m", producer="t", methods={}, variants=found)


machines = st.fixed_dictionaries(
    {
        "torch": st.sampled_from([None, "2.6.0", "2.6.1+cu126", "2.8.0"]),
        "os": st.sampled_from(["linux", "windows"]),
        "arch": st.sampled_from(["x86_64", "aarch64"]),
        "cpu": st.fixed_dictionaries({"flags": st.just(["avx2", "avx512f"])}),
        "tensorrt": st.sampled_from([None, *VERSIONS]),
        "tensorrt_rtx": st.sampled_from([None, "1.7"]),
        "gpus": st.sampled_from([[], [H200], [ADA], [ORIN], [ADA, H200]]),
        "driver": st.sampled_from([None, {"version": "1", "cuda": "11.4"}, {"cuda": "13.0"}]),
        "jetson": st.sampled_from([None, {"module": "p3701-0005"}, {"module": None}]),
        "problems": st.just([]),
    }
)
owns = st.dictionaries(
    st.tuples(st.sampled_from(["orin", "h200", "cpu"]), st.sampled_from("ab")),
    st.builds(
        OwnEngine,
        st.sampled_from(["exact", "builds", "rebuild"]),
        st.just("of this machine"),
        st.sampled_from([None, 3.0]),
    ),
)


def chosen(manifest: Manifest, found: list[Candidate], here: Mapping[str, Any]) -> Choice | None:
    try:
        return choose(manifest, found, here)
    except BundleError:
        return None


def on_gpu(target: Mapping[str, Any]) -> bool:
    return target["kind"] in GPU_KINDS or target["sm"] is not None


@settings(max_examples=40)
@given(manifests(), machines, owns)
def test_every_variant_and_engine_has_one_verdict_with_a_reason(
    manifest: Manifest, here: Any, own: Any
) -> None:
    found = resolve(manifest, here, (), own)
    assert sorted(c.variant for c in found) == sorted(manifest.variants)
    for candidate in found:
        engines = manifest.variants[candidate.variant].engines
        assert candidate.engines.keys() == engines.keys()
        fits = [verdict.fit for verdict in candidate.engines.values()]
        if fits:  # a variant is as good as its worst engine
            assert candidate.verdict.fit == max(fits, key=FITS.index)
        for verdict in (candidate.verdict, *candidate.engines.values()):
            assert verdict.fit in FITS
            assert verdict.reason
            assert "\n" not in verdict.reason


@settings(max_examples=40)
@given(manifests(), machines, owns)
def test_the_order(manifest: Manifest, here: Any, own: Any) -> None:
    found = resolve(manifest, here, (), own)
    places = [
        (
            candidate.verdict.fit not in RUNS,
            candidate.runs and not on_gpu(manifest.variants[candidate.variant].target),
            FITS.index(candidate.verdict.fit),
        )
        for candidate in found
    ]
    assert places == sorted(places)


@settings(max_examples=40)
@given(manifests(), machines, owns)
def test_the_chosen_one_is_no_worse_than_any_and_each_is_explained(
    manifest: Manifest, here: Any, own: Any
) -> None:
    found = resolve(manifest, here, (), own)
    choice = chosen(manifest, found, here)
    if choice is None:
        assert not here["torch"] or not found
        assert not any(candidate.runs for candidate in found)
        return
    assert choice.degraded == (not any(candidate.runs for candidate in found))
    if not choice.degraded:
        assert choice.chosen is found[0]
    lines = choice.explain().splitlines()
    assert [line.removeprefix("not ").partition(":")[0] for line in lines] == [
        choice.variant,
        *(c.variant for c in found if c is not choice.chosen),
    ]


@settings(max_examples=40)
@given(manifests(), machines, owns, st.randoms(use_true_random=False))
def test_the_order_of_variants_does_not_matter(
    manifest: Manifest, here: Any, own: Any, random: Any
) -> None:
    items = list(manifest.variants.items())
    random.shuffle(items)
    shuffled = replace(manifest, variants=dict(items))
    first, second = (resolve(m, here, (), own) for m in (manifest, shuffled))
    assert first == second
    assert chosen(manifest, first, here) == chosen(shuffled, second, here)


@settings(max_examples=40)
@given(manifests(), machines, st.sampled_from(["torch", "tensorrt", "tensorrt_rtx"]))
def test_less_software_never_makes_an_engine_fit_better(
    manifest: Manifest, here: Any, lost: str
) -> None:
    assert_no_better(manifest, here, {**here, lost: None})


@settings(max_examples=40)
@given(manifests(), machines)
def test_less_hardware_never_makes_an_engine_fit_better(manifest: Manifest, here: Any) -> None:
    assert_no_better(manifest, here, {**here, "gpus": []})
    assert_no_better(manifest, here, {**here, "cpu": {"flags": ["avx2"]}})
    nameless = [{**gpu, "multiprocessors": None} for gpu in here["gpus"]]
    assert_no_better(manifest, here, {**here, "gpus": nameless})


def assert_no_better(manifest: Manifest, more: Any, less: Any) -> None:
    if more["gpus"] and more["tensorrt"]:  # engines of this machine, and of one nearly like it
        record = tensorrt.record_of(more["tensorrt"], BuildOptions(), more)
        records = {"mine": record, "theirs": {**record, "sm_count": 1}}
        engines = {s: EngineRef("tensorrt", f"engines/here/{s}", r) for s, r in records.items()}
        here = Variant({"name": "here", "kind": "tensorrt"}, {}, engines)
        manifest = replace(manifest, variants={**manifest.variants, "here": here})
    before = {c.variant: c for c in resolve(manifest, more)}
    for candidate in resolve(manifest, less):
        for segment, verdict in candidate.engines.items():
            was = before[candidate.variant].engines[segment]
            assert FITS.index(verdict.fit) >= FITS.index(was.fit), (segment, was, verdict)


@settings(max_examples=40)
@given(manifests(), machines)
def test_a_file_of_facts_decides_as_the_machine_does(manifest: Manifest, here: Any) -> None:
    newer = json.loads(json.dumps({**here, "schema": "trtpack.facts/1", "of_tomorrow": [1]}))
    assert resolve(manifest, facts_from(newer)) == resolve(manifest, here)


class Judge:
    """An engine kind whose records say what they are good for."""

    @staticmethod
    def check(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Verdict:
        return Verdict(record["fit"], f"is {record['fit']}")


@pytest.mark.parametrize("cpu", FITS)
@pytest.mark.parametrize("gpu", FITS)
def test_the_table(gpu: Any, cpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's variant that runs, or builds here, comes before the CPU's; then whatever runs; then
    the portable form of the most portable; without PyTorch, or strictly, nothing."""
    monkeypatch.setattr(resolving.engines, "engine", lambda kind: Judge)
    both = {
        "orin": Variant({"kind": "tensorrt"}, {}, {"s": EngineRef("tensorrt", "a", {"fit": gpu})}),
        "cpu": Variant({"kind": "inductor"}, {}, {"s": EngineRef("inductor", "b", {"fit": cpu})}),
    }
    manifest = Manifest(name="m", producer="t", methods={}, variants=both)
    here = {"torch": "2.6.0", "gpus": [], "problems": []}
    found = resolve(manifest, here)
    choice = choose(manifest, found, here)
    if gpu in RUNS:
        assert (choice.variant, choice.degraded) == ("orin", False)
    else:
        assert (choice.variant, choice.degraded) == ("cpu", cpu not in RUNS)
    for strict, torch in ((True, "2.6.0"), (False, None)):
        machine = {**here, "torch": torch}
        if gpu in RUNS or cpu in RUNS:
            assert choose(manifest, found, machine, strict=strict) == choice
        else:
            with pytest.raises(BundleError, match="no variant fits this machine"):
                choose(manifest, found, machine, strict=strict)
