# SPDX-License-Identifier: Apache-2.0
"""Bundles as they were written before each key of the format: every runtime opens and runs them.

The files are never written anew; ``tests/fixtures/make_bundle.py`` makes the next one.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.bundles import manifest_json
from tests.runtime.machines import install
from trtpack_runtime import device
from trtpack_runtime.bundle import open_bundle
from trtpack_runtime.errors import BundleError
from trtpack_runtime.manifest import Limits, Manifest
from trtpack_runtime.own_engines import own_engines
from trtpack_runtime.resolve import resolve

FOLDER = Path(__file__).parents[1] / "fixtures" / "bundles"
DIGESTS = {
    "1-first": "6ddbc2c4e40a3db6485c4ab6f82e98403d40522846fcce44dc08514f3d67266d",
    "1-limits-borders": "6796b2ee3e95962be8fbccbda0310fad38bc5904035da5427e5dce76b4abd45c",
    "1-methods": "0679ad0c60ada44446a9f03134bd1b6e2f1c79ad6181f6d4f0a033754647c932",
}
"""What each was when it was added."""
METHODS = "1-methods"


@pytest.fixture(params=sorted(DIGESTS.keys() - {METHODS}))
def path(request: pytest.FixtureRequest) -> Path:
    return FOLDER / f"{request.param}.tar"


def test_none_is_missing_and_none_was_written_anew() -> None:
    found = {path.stem: open_bundle(path).digest for path in FOLDER.glob("*.tar")}
    assert found == DIGESTS


def test_an_older_bundle_is_sound_and_told(path: Path) -> None:
    bundle = open_bundle(path, verify="full")
    manifest = bundle.manifest
    assert manifest.requires == ("format:1",)
    assert [s.name for s in manifest.state] == ["calls"]
    method = manifest.methods["forward"]
    assert [tensor.name for tensor in method.outputs] == ["scores", "rank"]
    assert len(method.golden) == 2
    has = path.stem != "1-first"
    assert (method.limits != Limits(), any(method.borders)) == (has, has)


@pytest.mark.parametrize(
    ("machine", "fit"),
    [("orin-jetpack-6.2", "builds"), ("orin-jetpack-6.0", "rebuild"), ("desktop", "impossible")],
)
def test_an_older_bundle_is_judged(
    machine: str, fit: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine, tmp_path, monkeypatch)
    here, bundle = device.look(tmp_path).to_json(), open_bundle(path)
    (candidate,) = resolve(bundle.manifest, here, (), own_engines(bundle, here, None))
    assert candidate.verdict.fit == fit, candidate.verdict


def test_an_older_bundle_runs(path: Path) -> None:
    torch = pytest.importorskip("torch")
    from trtpack_runtime import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no engine of its fits this machine
        module = load(path, device="cpu")
    report = module.smoke()
    assert report.passed, report
    x = torch.rand(2, 3, 8, 8)
    first, second = module(x)["scores"], module(x)["scores"]
    module.reset()
    again = module(x)
    assert not torch.equal(first, second)  # the buffer counts calls
    assert torch.equal(first, again["scores"])
    assert again["rank"].dtype is torch.int64


def test_an_older_bundles_methods_are_proved_from_the_first_state() -> None:
    torch = pytest.importorskip("torch")
    from trtpack_runtime import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no engine of its fits this machine
        module = load(FOLDER / f"{METHODS}.tar", device="cpu")
    assert module.bundle.manifest.requires == ("format:1",)
    report = module.smoke()
    assert report.passed, report
    assert {c.sample for c in report.comparisons} == {"ask-0", "ask-1", "tell-0", "tell-1"}
    module.tell(torch.ones(2, 4))
    assert torch.equal(module.ask(torch.ones(1)), module.states["total"])


@pytest.mark.parametrize(
    ("changes", "wants"),
    [
        ({"schema": "trtpack.bundle/2"}, "trtpack.bundle/2"),
        ({"requires": ["format:1", "format:2"]}, "format:2"),
        ({"requires": ["format:1", "sparse-weights"]}, "sparse-weights"),
    ],
)
def test_a_newer_bundle_is_refused_in_words(changes: Any, wants: str) -> None:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(manifest_json(**changes))
    assert caught.value.wants == wants
    assert caught.value.hint == "update trtpack-runtime on this device"


def test_keys_of_a_newer_writer_are_ignored() -> None:
    newer = manifest_json(of_tomorrow={"a": 1})
    newer["methods"]["forward"]["of_tomorrow"] = [1]
    newer["variants"]["cpu"]["of_tomorrow"] = None
    newer["variants"]["cpu"]["engines"]["forward_0"]["of_tomorrow"] = "x"
    read = Manifest.from_json(json.loads(json.dumps(newer)))
    assert read == Manifest.from_json(manifest_json())
