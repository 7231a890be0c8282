# SPDX-License-Identifier: Apache-2.0
"""Target files of the user's own: what they say, and the exact place of every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.packager.machines import without_gpu
from trtpack.cli.build import _targets
from trtpack.cli.targets import targets
from trtpack.errors import ConfigError
from trtpack.target import catalogue, find_target
from trtpack.toml_places import Document

GIB = 1 << 30
ROBOT = """\
like = "orin"
device = "our robot's Orin"
memory_gib = 32

[stack]
like = "jetpack-6.2"
title = "JetPack 6.2 with a newer TensorRT"
tensorrt = "10.7.0.23"
"""
WHOLE = """\
device = "GeForce RTX 4080"
family = "workstation"
sm = "8.9"
arch = ["x86_64"]
memory_gib = 16
has_fp8 = true
has_fp4 = false
rtx_capability = "SM89"
stacks = ["tensorrt-rtx-1.7", "tensorrt-10.16"]

[sources]
sm = ["https://developer.nvidia.com/cuda-gpus"]
"""


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    path = tmp_path / "robot.toml"
    path.write_text(ROBOT)
    return path


def test_a_file_says_how_a_device_differs(robot: Path) -> None:
    own, orin = find_target(f" {robot} "), find_target("orin")
    assert (own.name, own.device, own.memory_bytes) == ("robot", "our robot's Orin", 32 * GIB)
    assert (own.key, own.tensorrt) == ("robot@robot-stack", (10, 7, 0, 23))
    assert (own.sm, own.arch, own.dla_cores, own.os) == (
        orin.sm,
        orin.arch,
        orin.dla_cores,
        orin.os,
    )


def test_a_file_says_all(tmp_path: Path) -> None:
    path = tmp_path / "rtx-4080.toml"
    path.write_text(WHOLE)
    assert find_target(str(path)).key == "rtx-4080@tensorrt-rtx-1.7"
    assert find_target(f"{path}@tensorrt-10.16").tensorrt == (10, 16, 1, 11)
    with pytest.raises(ConfigError, match=r"the file has no stack 'jetpack-6\.2'"):
        find_target(f"{path}@jetpack-6.2")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            WHOLE.replace('sm = "8.9"', "sm = 8.9").replace("has_fp8 = true", "  has_fp9 = true"),
            [
                '3:6: sm: wanted a compute capability such as "8.7", got 8.9',
                "1:1: has_fp8: missing, wanted true or false",
                "6:3: has_fp9: unknown key, did you mean has_fp8?",
            ],
        ),
        (WHOLE.replace("= 16", "= -1"), ["5:14: memory_gib: wanted a positive number, got -1"]),
        (
            WHOLE.replace('"tensorrt-10.16"', '"jetpack-6.2"'),
            ["9:31: stacks: not jetpack-6.2: it is for jetson devices, this is one of workstation"],
        ),
        (
            WHOLE.replace('"tensorrt-10.16"', "7"),
            ["9:31: stacks: wanted a list of texts, got 7 in it"],
        ),
        (WHOLE.replace('"x86_64"', '"riscv"'), ["4:8: arch: wanted x86_64 or aarch64"]),
        (WHOLE.replace("sm = [", "smm = ["), ["12:1: sources.smm: the file states no such fact"]),
        (ROBOT.replace('"orin"', '"orinn"'), ["1:8: like: unknown: 'orinn', did you mean orin?"]),
        (ROBOT.replace('"10.7.0.23"', '"8.5"'), ["8:12: stack.tensorrt: wanted 8.6 or newer"]),
        (
            ROBOT.replace("[stack]", 'stacks = ["jetpack-6.1"]\n[stack]'),
            ["5:1: stacks: not beside a [stack] of its own"],
        ),
        ('like = "thor"\nstacks = ["jetpack-6.2"]', ["2:11: stacks: not jetpack-6.2: it is for"]),
        ('like = "thor"\nsm = "8.7"', ["stacks: not jetpack-7.1: TensorRT 10.13.3 does not serve"]),
        ("like = ", ["1:8: Invalid value"]),
        ("a = 1\na = 2\n", ["2:6: Cannot overwrite a value"]),
        ('device = "x\n', ["1:12: Illegal character"]),
    ],
)
def test_every_mistake_has_its_place(tmp_path: Path, text: str, problems: list[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    result = CliRunner().invoke(targets, ["check", str(path)])
    assert isinstance(result.exception, ConfigError)
    told = result.output.splitlines()
    for problem in problems:
        assert any(
            line.startswith(f"{path}:{problem}") or (problem in line and not problem[0].isdigit())
            for line in told
        ), told
    assert f"{len(told)} mistake" in str(result.exception)


def test_a_right_file_is_told_to_be(robot: Path) -> None:
    result = CliRunner().invoke(targets, ["check", str(robot)], catch_exceptions=False)
    assert result.output.startswith(f"{robot}: our robot's Orin, with robot-stack;")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orin.toml", "orin is the name of a device that comes with trtpack"),
        ("no.toml", "cannot read"),
    ],
)
def test_a_file_that_cannot_be_one(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "orin.toml").write_text(ROBOT)
    with pytest.raises(ConfigError, match=message):
        find_target(str(tmp_path / name))


def test_a_file_is_built_for_beside_others(robot: Path, tmp_path: Path) -> None:
    whole = tmp_path / "rtx-4080.toml"
    whole.write_text(WHOLE)
    names = (f" {robot}", str(whole), f"{whole}@tensorrt-10.16", "orin")
    assert _targets(names, None) == tuple(name.strip() for name in names)
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(robot, tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"robot\.toml are one target"):
        _targets((str(robot), str(copy)), None)
    copy.write_text('like = "orin"\n')
    with pytest.raises(ConfigError, match="two targets are called robot"):
        _targets((str(robot), str(copy)), None)


def test_show_says_where_facts_were_read(robot: Path) -> None:
    for name, source in (("orin", "https://developer.nvidia.com/cuda-gpus"), (str(robot), "nixos")):
        shown = CliRunner().invoke(targets, ["show", name, "--sources"], catch_exceptions=False)
        assert source in shown.output
        assert "2026-" in shown.output
    plain = CliRunner().invoke(targets, ["show", "orin", "--sources", "--json"])
    rows = {row["fact"].strip(): row for row in json.loads(plain.output)["sources"]}
    assert rows["dla_cores"]["source"].startswith("https://github.com/NVIDIA/Deep-Learning-Accel")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtpack_runtime.device.facts", without_gpu)
    assert find_target("auto") == find_target("cpu")
    with pytest.raises(ConfigError, match="auto has no stack"):
        find_target("auto@jetpack-6.2")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.packager.machines import facts

    monkeypatch.setattr("trtpack_runtime.device.facts", facts)
    assert find_target("AUTO") == find_target("native")


@pytest.mark.parametrize(
    ("key", "of_key", "place"),
    [
        (("b", "c", 2, "d"), False, "3:23"),
        (("t", "q.r", "s"), False, "5:5"),
        (("m", 1, "n"), False, "10:5"),
        (("m", 1, "n"), True, "10:1"),
        (("m", 0, "o", "none"), False, "8:7"),  # what holds it
        ((), False, "1:1"),
    ],
)
def test_the_places_of_keys_and_values(key: Any, of_key: bool, place: str) -> None:
    text = "# c\na = 1\n"
    text += "b.c = [1, \"x]\", { d = 2026-11-21, e = [] }] # z\n[t.\"q.r\"]\ns = '''\n]'''\n"
    text += "[[m]]\n  o = { p = true }\n[[m]]\nn = 2\n"
    assert Document(Path("f"), text).at(key, of_key=of_key) == f"f:{place}"


def test_every_file_of_trtpack_has_places() -> None:
    for path in catalogue().folder.rglob("*.toml"):
        document = Document.read(path)
        for key in document.content:
            assert (key,) in document.places
