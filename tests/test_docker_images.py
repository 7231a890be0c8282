# SPDX-License-Identifier: Apache-2.0
"""The images of ``docker/``: clean for hadolint, and the bake file names only what is there.

``hcl2`` leaves the quotes around text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.container_steps.stages import read_stages
from trtpack.target import catalogue

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
STACKS = {
    "runtime-cpu": ("inductor",),
    "runtime-jetpack-6-0": ("jetpack-6.0",),
    "runtime-jetpack-6": ("jetpack-6.1", "jetpack-6.2", "jetpack-6.2.1", "jetpack-6.2.2"),
    "runtime-jetpack-7": ("jetpack-7.0", "jetpack-7.1"),
    "runtime-jetpack-7-2": ("jetpack-7.2",),
    "runtime-datacenter": ("tensorrt-10.16",),
    "runtime-datacenter-11": ("tensorrt-11.4",),
    "runtime-rtx": ("tensorrt-rtx-1.7",),
}
"""Each image, and the stacks whose facts it has."""


def plain(value: Any) -> Any:
    """What was parsed, without quotes."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items() if k != "__is_block__"}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.strip('"') if isinstance(value, str) else value


@cache
def blocks(kind: str) -> dict[str, dict[str, Any]]:
    with (DOCKER / "bake.hcl").open() as file:
        parsed = plain(hcl2.load(file))
    return {name: body for block in parsed[kind] for name, body in block.items()}


def inherited(name: str) -> dict[str, Any]:
    """A target with what it inherits."""
    target = blocks("target")[name]
    found: dict[str, Any] = {}
    for base in target.get("inherits", ()):
        found |= inherited(base)
    return {**found, **target, "args": {**found.get("args", {}), **target.get("args", {})}}


IMAGES = [name for name in blocks("target") if not name.startswith("_")]


def test_hadolint_has_nothing_to_say() -> None:
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", *DOCKERFILES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_group_names_targets_and_every_image_is_in_one() -> None:
    groups, targets = blocks("group"), blocks("target")
    named = {name for group in groups.values() for name in group["targets"]}
    assert named <= {*targets, *groups}
    assert set(IMAGES) == named - groups.keys()
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in (*targets, *groups))


@pytest.mark.parametrize("name", IMAGES)
def test_a_target_refers_to_what_is_there(name: str) -> None:
    target = inherited(name)
    file = ROOT / target["context"] / target["dockerfile"]
    assert file in DOCKERFILES
    stages = read_stages(file, target["args"])  # refuses an argument that no ARG takes
    assert target["target"] in [stage.name for stage in stages]
    assert set(target["platforms"]) <= {"linux/amd64", "linux/arm64"}
    variables = {f"${{{name}}}" for name in blocks("variable")}
    assert all(set(re.findall(r"\$\{\w+\}", tag)) <= variables for tag in target["tags"])


def test_tags_differ_and_have_the_release_of_the_packages() -> None:
    tags = [tag for name in IMAGES for tag in inherited(name)["tags"]]
    assert len(set(tags)) == len(IMAGES)
    version = f'version = "{blocks("variable")["VERSION"]["default"]}"'
    assert version in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(("name", "stack"), [(n, s) for n, all_ in STACKS.items() for s in all_])
def test_an_image_has_what_its_stacks_facts_say(name: str, stack: str) -> None:
    image = catalogue().stacks[stack].image
    assert image is not None
    told = inherited(name)["args"]
    assert told["BASE"] == image.base
    assert told.get("PACKAGES", "").split() == list(image.wheels)
    assert told.get("DEBS", "").split() == list(image.debs)
    assert (told.get("REPOSITORY"), told.get("KEY")) == (image.repository, image.key)
    assert told.get("TORCH_INDEX", image.torch_index) == image.torch_index


def test_no_runtime_image_is_left_out() -> None:
    assert set(STACKS) == {name for name in IMAGES if name.startswith("runtime-")}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_not_root_and_checks_its_health(name: str) -> None:
    target = inherited(name)
    stages = read_stages(ROOT / target["dockerfile"], target["args"])
    (final,) = [stage for stage in stages if stage.name == target["target"]]
    assert final.user == "10001:10001"
    assert final.health
    assert final.entrypoint == ("trtpack",)
    assert any(step.value.startswith("--from=") for step in final.steps)
    assert final.base != target["args"].get("BASE"), "what installs is left behind"


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_is_copied_is_in_the_context(file: Path) -> None:
    listed = file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
    assert listed[0] == "*"
    allowed = {line.removeprefix("!") for line in listed if line.startswith("!")}
    assert all((ROOT / name).exists() for name in allowed)
    copied = [
        word
        for stage in read_stages(file, {})
        for step in stage.steps
        if step.kind == "COPY" and "--from=" not in step.value
        for word in step.value.split()[:-1]
    ]
    assert copied
    assert {word.partition("/")[0] for word in copied} <= allowed


def test_the_host_images_check_can_be_run() -> None:
    assert os.access(DOCKER / "smoke", os.X_OK)
    assert "smoke_model.py:make" in (DOCKER / "smoke").read_text()
