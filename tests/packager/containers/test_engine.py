# SPDX-License-Identifier: Apache-2.0
"""Building and trying an image through the SDK, on a double of the engine's HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.packager.containers.bundles import write
from tests.packager.containers.engine_double import CONTAINER, FAILED, IMAGE, Engine, running
from trtpack.cli.docker import docker
from trtpack.containers import recipe_for
from trtpack.containers.engine import BuildSettings, Smoked, build, connect, tag_for
from trtpack.errors import CompileError, ConfigError
from trtpack.report import Progress, Step
from trtpack_runtime.errors import BundleError, DeviceError, SmokeFailure


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with running(tmp_path) as double:
        monkeypatch.setenv("DOCKER_HOST", double.address)
        yield double


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write(tmp_path / "b.tar", "cpu", "orin", "rtx-4090", name="My Net/2")


def call(*words: object) -> Result:
    return CliRunner().invoke(docker, [str(word) for word in words])


class Heard(Progress):
    """What a step said, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[float, float | None, str]] = []

    def changed(self, step: Step) -> None:
        self.said.append((step.done, step.total, step.text))


def test_an_image_is_built_of_the_context(engine: Engine, bundle: Path) -> None:
    done = call("build", bundle, "--target", "cpu", "--pull", "--build-arg", "BASE=debian:x")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"my-net-2:cpu  {IMAGE}"
    asked = {name: engine.query[name] for name in ("t", "platform", "pull", "buildargs")}
    assert asked == {
        "t": "my-net-2:cpu",
        "platform": "linux/amd64",
        "pull": "True",
        "buildargs": '{"BASE": "debian:x"}',
    }
    assert engine.context["bundle.tar"] & 0o777 == 0o644
    assert {"Dockerfile", "bundle.tar", "wheels"} <= engine.context.keys()
    assert any(name.startswith("wheels/trtpack_runtime-") for name in engine.context)


def test_the_engines_progress_is_shown(engine: Engine, bundle: Path) -> None:
    heard = Heard()
    recipe = recipe_for(bundle, variant="cpu")
    with heard.step("build it") as step:
        lines: list[str] = []
        assert build(connect(), recipe, BuildSettings("a:b"), step, lines.append) == IMAGE
    assert lines == [
        "  1/14 ARG BASE=debian:bookworm-slim",
        "  2/14 FROM ${BASE} AS base",
        "  3/14 RUN apt-get update",
    ]
    assert (1, 14, "FROM ${BASE} AS base") in heard.said
    assert (1, 14, "61320b01ae5e Downloading 50 %") in heard.said
    assert (2, 14, "RUN apt-get update") in heard.said


def test_a_build_that_fails_shows_the_last_lines(engine: Engine, bundle: Path) -> None:
    engine.build = FAILED
    done = call("build", bundle, "--target", "cpu")
    assert isinstance(done.exception, CompileError)
    said = done.exception.message
    assert "cannot build the image my-net-2:cpu: The command '/bin/sh -c apt-get' returned" in said
    assert said.splitlines()[-1] == "  E: Unable to locate package python3-venv"
    assert "Downloading" not in said


def test_newer_engines_leave_out_the_old_field(engine: Engine, bundle: Path) -> None:
    engine.build = [{"errorDetail": {"message": "no such image"}}]
    with pytest.raises(CompileError, match="no such image"), Progress().step("build it") as step:
        build(connect(), recipe_for(bundle, variant="cpu"), BuildSettings("a:b"), step, print)


def test_an_answer_that_ends_early_is_no_image(engine: Engine, bundle: Path) -> None:
    engine.build = engine.build[:4]
    assert "answer ended early" in str(call("build", bundle, "--target", "cpu").exception)


def test_nothing_stays_of_the_context(
    engine: Engine, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    call("build", bundle, "--target", "cpu")
    engine.build = FAILED
    call("build", bundle, "--target", "cpu")
    assert engine.asked.count("POST /build") == 2
    assert not list((tmp_path / "temporary").iterdir())


def test_the_smoke_test_runs_in_a_container_that_is_dropped(engine: Engine, bundle: Path) -> None:
    done = call("smoke", bundle, "--target", "cpu")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("smoke test: passed\noutputs are right\n")
    assert (engine.created["Image"], engine.created["Cmd"]) == ("my-net-2:cpu", ["--no-bench"])
    assert engine.asked[-1] == f"DELETE /containers/{CONTAINER}"
    assert "DeviceRequests" not in (engine.created["HostConfig"] or {})


@pytest.mark.parametrize(
    ("target", "given"),
    [
        ("orin", {"Runtime": "nvidia"}),
        (
            "rtx-4090",
            {
                "DeviceRequests": [
                    {
                        "Driver": "",
                        "Count": -1,
                        "DeviceIDs": [],
                        "Capabilities": [["gpu"]],
                        "Options": {},
                    }
                ]
            },
        ),
    ],
)
def test_the_container_is_given_the_gpu(
    engine: Engine, bundle: Path, target: str, given: dict[str, Any]
) -> None:
    assert call("smoke", bundle, "--target", target, "--quiet").exit_code == 0
    assert given.items() <= engine.created["HostConfig"].items()


@pytest.mark.parametrize(
    ("code", "error"), [(7, SmokeFailure), (6, DeviceError), (5, BundleError), (139, SmokeFailure)]
)
def test_its_exit_code_is_that_of_the_run(
    engine: Engine, bundle: Path, code: int, error: type[Exception]
) -> None:
    engine.code = code
    engine.log = [(1, "smoke test: failed\n"), (2, "error: output y is"), (2, " wrong\nhint: x\n")]
    done = call("smoke", bundle, "--target", "cpu")
    assert type(done.exception) is error
    assert "the smoke test in my-net-2:cpu failed: output y is wrong" in str(done.exception)
    assert engine.asked[-1].startswith("DELETE")


def test_where_pytorch_stands_in_the_code_is_8(engine: Engine, bundle: Path) -> None:
    engine.code = 8
    assert call("smoke", bundle, "--target", "cpu").exit_code == 8
    assert "trtpack run ended with 139" in str(Smoked(139, ()).failure("a:b"))


def test_an_engine_without_gpus_is_told_and_the_container_dropped(
    engine: Engine, bundle: Path
) -> None:
    engine.start_error = 'could not select device driver "" with capabilities: [[gpu]]'
    done = call("smoke", bundle, "--target", "rtx-4090")
    assert isinstance(done.exception, DeviceError)
    assert "cannot run my-net-2:rtx-4090: could not select device driver" in str(done.exception)
    assert "NVIDIA Container Toolkit" in done.exception.hint
    assert engine.asked[-1].startswith("DELETE")


@pytest.mark.parametrize("address", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_where_no_engine_answers_that_is_said(
    address: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    for verb in ("build", "smoke"):
        done = call(verb, bundle, "--target", "cpu")
        assert isinstance(done.exception, DeviceError)
        assert f"no Docker engine answers at {address}: " in done.exception.message
        assert len(done.exception.message) < 100
        assert "trtpack docker context writes the build context" in done.exception.hint
        assert not done.stdout


def test_without_the_sdk_its_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    done = call("build", bundle, "--target", "cpu")
    assert isinstance(done.exception, ConfigError)
    assert "pip install 'trtpack[docker]'" in done.exception.hint


def test_a_build_argument_is_a_pair(bundle: Path) -> None:
    done = call("build", bundle, "--target", "cpu", "--build-arg", "BASE")
    assert "'BASE' is no NAME=VALUE" in str(done.exception)


def test_a_tag_has_an_images_letters(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", "orin@jetpack-7.2", name="_Ünet")
    assert tag_for(recipe_for(path)) == "net:orin-jetpack-7.2"


def test_a_step_may_be_silent_for_long(engine: Engine) -> None:
    assert connect().api.timeout is None
