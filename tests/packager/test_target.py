# SPDX-License-Identifier: Apache-2.0
"""The devices and stacks under targets/, and what a bad file of them says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from trtpack.target import all_targets, catalogue, find_target, read_catalogue
from trtpack_runtime.errors import ConfigError

TARGETS = Path(__file__).parents[2] / "targets"


@pytest.mark.parametrize(
    ("name", "key", "kind", "sm", "tensorrt", "arch"),
    [
        ("orin", "jetson-agx-orin-64gb@jetpack-6.2", "tensorrt", "8.7", (10, 3, 0, 30), "aarch64"),
        (
            "thor",
            "jetson-agx-thor-t5000@jetpack-7.2",
            "tensorrt",
            "11.0",
            (10, 16, 2, 10),
            "aarch64",
        ),
        ("rtx-4090", "rtx-4090@tensorrt-rtx-1.7", "tensorrt-rtx", "8.9", (1, 7, 1, 116), "x86_64"),
        ("rtx-4090@tensorrt-10.16", None, "tensorrt", "8.9", (10, 16, 1, 11), "x86_64"),
        ("orin@jetpack-6.0", None, "tensorrt", "8.7", (8, 6, 2, 3), "aarch64"),
        ("h100", "h100-sxm@tensorrt-10.16", "tensorrt", "9.0", (10, 16, 1, 11), "x86_64"),
        ("spark@tensorrt-rtx-1.7", None, "tensorrt-rtx", "12.1", (1, 7, 1, 116), "aarch64"),
        (
            "  RTX-5090 ",
            "rtx-5090@tensorrt-rtx-1.7",
            "tensorrt-rtx",
            "12.0",
            (1, 7, 1, 116),
            "x86_64",
        ),
    ],
)
def test_a_name_picks_device_and_stack(
    name: str, key: str | None, kind: str, sm: str, tensorrt: tuple[int, ...], arch: str
) -> None:
    target = find_target(name)
    assert (target.engine_kind, target.sm, target.tensorrt, target.arch) == (
        kind,
        sm,
        tensorrt,
        arch,
    )
    assert key is None or target.key == key
    assert target.name == name.strip().lower()


def test_an_alias_and_its_device_have_one_key() -> None:
    assert find_target("orin").key == find_target("jetson-agx-orin-64gb@jetpack-6.2").key


def test_the_cpu_target_is_compiled_for_this_machine() -> None:
    import platform

    cpu = find_target("cpu")
    assert (cpu.engine_kind, cpu.sm, cpu.tensorrt) == ("inductor", None, None)
    assert cpu.arch == platform.machine()


def test_a_stack_without_dla_leaves_none_to_use() -> None:
    assert find_target("orin").dla_cores == 2
    assert find_target("orin@jetpack-7.2").dla_cores == 0


@pytest.mark.parametrize(
    ("name", "release", "has"),
    [
        ("orin", "10.3", True),
        ("orin", "10.8", False),
        ("orin@jetpack-6.0", "10.0", False),
        ("thor", "10.14", True),
        ("rtx-4090", "11.0", True),  # TensorRT-RTX 1.7 has what 11.0 has
        ("rtx-4090", "11.1", False),
        ("cpu", "8.6", False),
    ],
)
def test_which_release_a_target_has_at_least(name: str, release: str, has: bool) -> None:
    assert find_target(name).tensorrt_at_least(release) is has


def test_thor_is_known_by_both_names_of_its_capability() -> None:
    thor = find_target("thor")
    assert (thor.sm, *thor.sm_also) == ("11.0", "10.1")


def test_what_a_manifest_says_is_plain_data() -> None:
    import json

    said = find_target("orin").describe()
    assert json.loads(json.dumps(said)) == said
    assert said["tensorrt"] == "10.3.0.30"
    assert said["sm"] == "8.7"


def test_every_device_of_the_fact_table_is_there() -> None:
    targets = all_targets()
    assert len(targets) == 31  # thirty devices and the CPU
    unsupported = {t.name for t in targets if t.unsupported}
    assert unsupported == {"jetson-agx-xavier-32gb", "jetson-xavier-nx"}


@pytest.mark.parametrize("target", all_targets(), ids=lambda t: t.name)
def test_every_stack_of_every_device_can_be_asked_for(target: object) -> None:
    from trtpack.target import Target

    assert isinstance(target, Target)
    for stack in catalogue().stacks_of(target):
        found = find_target(f"{target.name}@{stack}")
        assert found.stack == stack
        assert found.engine_kind != "tensorrt" or (found.tensorrt or ()) >= (8, 6)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("orinn", "unknown target 'orinn'", "did you mean orin?"),
        ("rtx4090", "unknown target 'rtx4090'", "did you mean rtx-4090?"),
        ("zzz", "unknown target 'zzz'", "trtpack targets"),
        ("", "unknown target ''", "trtpack targets"),
        ("orin@jetpack-6.3", "unknown stack 'jetpack-6.3'", "did you mean jetpack-6."),
        ("orin@", "unknown stack ''", "orin has: jetpack-6.2"),
        ("thor@jetpack-6.2", "cannot have JetPack 6.2", "jetpack-7.2"),
        ("orin@tensorrt-rtx-1.7", "cannot have TensorRT-RTX 1.7", "jetpack-6.2"),
        ("cpu@tensorrt-10.16", "cannot have TensorRT 10.16", "inductor"),
        ("xavier-nx", "cannot build for Jetson Xavier NX", "choose another target"),
    ],
)
def test_a_name_that_picks_nothing(name: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_target(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a part of targets/ to break."""
    shutil.copytree(TARGETS / "stacks", tmp_path / "targets/stacks")
    for name in ("sources", "rtx-4090", "h100-sxm", "gb200", "cpu", "jetson-xavier-nx"):
        shutil.copy(TARGETS / f"{name}.toml", tmp_path / "targets")
    return tmp_path / "targets"


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "reason"),
    [
        ("rtx-4090.toml", 'sm = "8.9"', "sm = 8.9", "sm", "wanted a compute capability"),
        ("rtx-4090.toml", 'family = "workstation"', "", "family", "missing"),
        ("rtx-4090.toml", "memory_gib = 24", "memory_gib = -24", "memory_gib", "positive"),
        ("rtx-4090.toml", "dla_cores = 0", "dla_cores = true", "dla_cores", "wanted a count"),
        ("rtx-4090.toml", "has_fp8 = true", 'has_fp8 = "yes"', "has_fp8", "true or false"),
        (
            "rtx-4090.toml",
            "has_fp8 = true",
            "has_fp8 = true\ncolour = 1",
            "sources.colour",
            "missing",
        ),
        ("rtx-4090.toml", 'sm = ["cc"]', "", "sources.sm", "missing"),
        ("rtx-4090.toml", 'sm = ["cc"]', "sm = []", "sources.sm", "missing"),
        ("rtx-4090.toml", 'sm = ["cc"]', 'sm = ["hearsay"]', "sources.sm", "not in sources.toml"),
        ("rtx-4090.toml", 'sm = ["cc"]', 'sm = ["cc"]\nx = ["cc"]', "sources.x", "no such fact"),
        ("rtx-4090.toml", '"tensorrt-10.16"', '"tensorrt-99"', "stacks", "stacks/tensorrt-99.toml"),
        (
            "rtx-4090.toml",
            '"tensorrt-10.16"',
            '"jetpack-6.2"',
            "stacks",
            "not jetpack-6.2: it is for jetson devices",
        ),
        (
            "rtx-4090.toml",
            '"tensorrt-10.16"',
            '"inductor"',
            "stacks",
            "not inductor: it is for cpu devices",
        ),
        ("h100-sxm.toml", '"tensorrt-10.16"', '"tensorrt-rtx-1.7"', "stacks", "it serves SM 7.5"),
        ("gb200.toml", '"tensorrt-10.13"', '"tensorrt-10.16"', "stacks", "it is for x86_64"),
        (
            "rtx-4090.toml",
            "family =",
            'aliases = ["cpu"]\nfamily =',
            "aliases",
            "already names cpu",
        ),
        ("h100-sxm.toml", '["x86_64", "aarch64"]', '["riscv"]', "arch", "riscv"),
        ("jetson-xavier-nx.toml", "unsupported =", "# unsupported =", "stacks", "does not say why"),
        ("rtx-4090.toml", "fp8_tflops = 330.3", "fp7_tflops = 1", "peak.fp7_tflops", "unknown key"),
        ("stacks/jetpack-6.2.toml", '"10.3.0.30"', '"ten"', "tensorrt", "numbers and dots"),
        ("stacks/jetpack-6.2.toml", '"10.3.0.30"', '"8.5.2"', "tensorrt", "8.6 or newer"),
        ("stacks/jetpack-6.2.toml", '"tensorrt"', '"onnx"', "kind", "wanted one of tensorrt"),
        ("stacks/jetpack-7.2.toml", "-base-ubuntu24.04", " latest", "image.base", "with its tag"),
        ("stacks/jetpack-7.2.toml", "key =", "# key =", "image.repository", "beside it: key"),
        ("stacks/jetpack-7.2.toml", "repository =", "# =", "image.debs", "beside it: repository"),
        (
            "stacks/jetpack-7.2.toml",
            '"image.base"',
            '"image.bass"',
            "sources.image.base",
            "missing",
        ),
        ("stacks/tensorrt-11.4.toml", "wheels =", "wheel =", "image.wheel", "did you mean wheels?"),
    ],
)
def test_a_malformed_file_is_named_with_its_key(
    folder: Path, file: str, old: str, new: str, key: str, reason: str
) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_catalogue(folder)
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: {key}: ", str(caught.value))
    assert reason in str(caught.value)
    assert f"trtpack targets check {path}" in (caught.value.hint or "")


def test_a_file_that_is_not_toml_is_named(folder: Path) -> None:
    (folder / "broken.toml").write_text("device = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml:1:10: Invalid value"):
        read_catalogue(folder)


def test_a_folder_without_targets(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text("")
    with pytest.raises(ConfigError, match="no targets in"):
        read_catalogue(tmp_path)


def test_adding_a_device_touches_one_file(folder: Path) -> None:
    text = (folder / "rtx-4090.toml").read_text().replace("GeForce RTX 4090", "GeForce RTX 4080")
    (folder / "rtx-4080.toml").write_text(text)
    assert read_catalogue(folder).find("rtx-4080").device == "GeForce RTX 4080"
