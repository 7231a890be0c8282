# SPDX-License-Identifier: Apache-2.0
"""The steps of a bundle's Dockerfile, read, and run in a root of debootstrap's making."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import trtpack
from tests.aarch64.root import MachineError
from tests.container_steps import roots
from tests.container_steps.roots import check_machine, suite_of
from tests.container_steps.stages import DockerfileError, read_stages, substituted
from trtpack.containers import recipe_for, write_context
from trtpack.target import catalogue

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/container_steps"
TEXT = """\
# a comment
ARG BASE=debian:bookworm-slim
ARG UNUSED

FROM ${BASE} AS first
USER 7
ENV A=1 PATH="/opt/a:${PATH}"
RUN one \\
    && two "$A"
WORKDIR /here

FROM first AS second
ARG NAME=world
LABEL a.b="c d" \\
    e=$NAME
COPY --from=first /x ./y
HEALTHCHECK --interval=5m \\
    CMD ["probe", "it"]
ENTRYPOINT ["run", "this"]
CMD ["--help"]
"""


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(TEXT)
    return tmp_path / "Dockerfile"


def test_stages_are_read_in_order_each_from_where_its_base_ends(dockerfile: Path) -> None:
    first, second = read_stages(dockerfile, {})
    assert (first.base, second.base) == ("debian:bookworm-slim", "first")
    assert [(step.kind, step.user) for step in first.steps] == [("RUN", "7"), ("WORKDIR", "7")]
    assert first.steps[0].value.split() == ["one", "&&", "two", '"$A"']
    assert first.steps[0].environment["A"] == "1"
    assert second.environment["PATH"].startswith("/opt/a:/usr/local/sbin:")
    assert (second.user, second.folder, second.labels) == (
        "7",
        "/here",
        {"a.b": "c d", "e": "world"},
    )
    assert (second.health, second.entrypoint) == (("probe", "it"), ("run", "this"))
    assert second.command == ("--help",)
    assert second.steps[0].folder == "/here"


def test_arguments_take_the_place_of_defaults(dockerfile: Path) -> None:
    first, second = read_stages(dockerfile, {"BASE": "debian@sha256:1", "NAME": "me"})
    assert (first.base, second.labels["e"]) == ("debian@sha256:1", "me")
    with pytest.raises(DockerfileError, match="no ARG NOBODY"):
        read_stages(dockerfile, {"NOBODY": "1"})


def test_what_is_not_known_is_refused(dockerfile: Path) -> None:
    dockerfile.write_text(TEXT + "ONBUILD RUN x\n")
    with pytest.raises(DockerfileError, match="ONBUILD is not known"):
        read_stages(dockerfile, {})


def test_variables_are_replaced_as_docker_does() -> None:
    assert substituted(r"$A-${B}-$C-\$A", {"A": "1", "B": "2"}) == "1-2--$A"


def test_only_debians_images_are_what_debootstrap_makes() -> None:
    assert suite_of("debian:bookworm-slim") == "bookworm"
    assert suite_of("debian:trixie@sha256:0") == "trixie"
    with pytest.raises(MachineError, match=r"l4t-tensorrt:r10\.3\.0-runtime is not made by"):
        suite_of("nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime")


@pytest.mark.parametrize(
    ("user", "tools", "problem"),
    [(1000, roots.TOOLS, "needs root"), (0, ("mount",), "debootstrap, unshare, chroot missing")],
)
def test_what_the_machine_lacks_is_said(
    user: int, tools: tuple[str, ...], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots.os, "geteuid", lambda: user)
    monkeypatch.setattr(roots.shutil, "which", lambda tool: tool if tool in tools else None)
    with pytest.raises(MachineError, match=problem):
        check_machine()


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_stage_that_is_not_there_is_told(tmp_path: Path, dockerfile: Path) -> None:
    try:
        check_machine()
    except MachineError as error:
        pytest.skip(str(error))
    done = script(tmp_path, "--target", "third")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no stage third, only first, second" in done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the roots are, on a machine that can make them."""
    try:
        check_machine()
    except MachineError as error:
        pytest.skip(str(error))
    made = tmp_path_factory.mktemp("roots")
    yield made
    shutil.rmtree(made)


def index_argument() -> list[str]:
    """The index of this machine's own pip where PyTorch's cannot be reached."""
    image = catalogue().stacks["inductor"].image
    assert image is not None
    assert image.torch_index is not None
    try:
        with urllib.request.urlopen(f"{image.torch_index}/torch/", timeout=10):
            return []
    except (urllib.error.URLError, TimeoutError):
        return ["--build-arg", "TORCH_INDEX=https://pypi.org/simple"]


@pytest.mark.rootfs
def test_the_image_of_a_bundle_for_the_cpu_is_built_and_proves_itself(
    folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))
    options = trtpack.Options(targets=("cpu",), output=tmp_path / "b.tar")
    trtpack.build((layers.eval(), (torch.randn(2, 8),)), options=options)
    recipe = recipe_for(tmp_path / "b.tar")
    assert recipe.trust
    write_context(recipe, tmp_path / "context")
    done = script(tmp_path / "context", "--folder", folder, *index_argument())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FROM debian:bookworm-slim: debootstrap's bookworm, no image was pulled" in done.stdout
    assert "user 10001:10001" in done.stdout
    assert "HEALTHCHECK ended with 0" in done.stdout
    assert "1 segment in AOTInductor" in done.stdout
    assert "smoke test: passed" in done.stdout
    assert "ENTRYPOINT ended with 0" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["bookworm"]


@pytest.mark.rootfs
def test_the_host_image_for_the_cpu_builds_and_runs_a_bundle(folder: Path) -> None:
    which = ("--file", "docker/host.Dockerfile", "--target", "cpu")
    done = script(ROOT, *which, "--folder", folder, *index_argument())
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "user 10001:10001" in done.stdout
    assert "HEALTHCHECK ended with 0" in done.stdout
    assert "Build, on the host:" in done.stdout


@pytest.mark.rootfs
def test_a_step_that_fails_ends_it_with_its_last_lines(folder: Path, tmp_path: Path) -> None:
    text = "FROM debian:bookworm-slim\nUSER 7:7\nRUN id -u && echo no >&2 && exit 3\n"
    (tmp_path / "Dockerfile").write_text(text)
    done = script(tmp_path, "--folder", folder)
    assert done.returncode == 1
    assert "error: RUN ended with 3: 7 | no" in done.stderr
