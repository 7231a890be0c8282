# SPDX-License-Identifier: Apache-2.0
"""The build context: whole or not there, clean for hadolint, for every target."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.container_steps.stages import Stage, read_stages
from tests.packager.containers.bundles import write
from trtpack.cli.docker import docker
from trtpack.containers import context as writing
from trtpack.containers import dockerfile, recipe_for, write_context
from trtpack.errors import ConfigError
from trtpack.target import catalogue
from trtpack_runtime.bundle import open_bundle

HADOLINT = Path(sys.executable).with_name("hadolint")
TARGETS = [
    f"{device.id}@{stack}"
    for device in catalogue().devices.values()
    for stack in device.stacks
    if catalogue().stacks[stack].image is not None
]
SOME = ["cpu", "orin", "thor@jetpack-7.2", "rtx-4090"]


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [HADOLINT, "--no-color", *files]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def stages(recipe_or_folder: Path) -> list[Stage]:
    return read_stages(recipe_or_folder / "Dockerfile", {})


@pytest.mark.parametrize(
    "targets", [SOME, pytest.param(TARGETS, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_hadolint_has_nothing_to_say(targets: list[str], tmp_path: Path) -> None:
    files: list[Path] = []

    def add(text: str) -> None:
        files.append(tmp_path / f"{len(files)}.Dockerfile")
        files[-1].write_text(text)

    for index, target in enumerate(targets):
        plain = write(tmp_path / f"{index}.tar", target)
        add(dockerfile(recipe_for(plain, trust=True)))
        mixed = write(tmp_path / f"{index}.torch.tar", target, torch_segment=True)
        add(dockerfile(recipe_for(mixed, base="registry.example/own:1")))
        if not target.endswith("@jetpack-6.0"):  # no PyTorch is known for its images
            add(dockerfile(recipe_for(mixed)))
    done = lint(*files)
    assert (done.returncode, done.stdout) == (0, "")
    assert len(files) == 3 * len(targets) - sum(t.endswith("@jetpack-6.0") for t in targets)


def test_hadolint_would_say_it(tmp_path: Path) -> None:
    text = dockerfile(recipe_for(write(tmp_path / "b.tar", "cpu")))
    (tmp_path / "Dockerfile").write_text(text.replace("USER 10001:10001", "USER root"))
    assert "DL3002" in lint(tmp_path / "Dockerfile").stdout


@pytest.fixture
def context(tmp_path: Path) -> Path:
    write_context(recipe_for(write(tmp_path / "b.tar", "cpu"), trust=True), tmp_path / "context")
    return tmp_path / "context"


def test_it_has_all_that_the_dockerfile_copies_and_no_more(context: Path) -> None:
    files = {path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file()}
    wheels = {name for name in files if name.startswith("wheels/")}
    assert files - wheels == {".dockerignore", "Dockerfile", "bundle.tar"}
    assert sorted(name.split("/")[1].split("-")[0] for name in wheels) == [
        "click",
        "trtpack_runtime",
    ]
    for name in wheels:
        assert zipfile.ZipFile(context / name).testzip() is None
    ignored = (context / ".dockerignore").read_text().splitlines()
    assert ignored[1:] == ["*", "!bundle.tar", "!wheels"]
    open_bundle(context / "bundle.tar", verify="full")
    assert {path.stat().st_mode & 0o777 for path in context.rglob("*")} == {0o755, 0o644}


def test_the_image_is_what_was_asked_for(context: Path) -> None:
    *_, final = stages(context)
    run = ["trtpack", "run", "/bundle/bundle.tar", "--target", "cpu", "--trust"]
    assert list(final.entrypoint) == run
    assert list(final.health) == [*run, "--no-bench", "--quiet"]
    assert final.user == "10001:10001"
    assert final.environment["PATH"].startswith("/opt/trtpack/bin:/usr")
    assert final.labels["trtpack.variant"] == "cpu"
    assert final.labels["trtpack.bundle.digest"] == open_bundle(context / "bundle.tar").digest
    built = [step.value for step in final.steps if step.kind == "COPY"]
    assert built == ["--from=install /opt/trtpack /opt/trtpack", "bundle.tar /bundle/bundle.tar"]


def test_the_runtime_is_compiled_as_the_image_is_built(context: Path) -> None:
    _, install, _ = stages(context)
    compiled = 'python -c "from trtpack_runtime.packed_modules import compile_all; compile_all()"'
    assert install.steps[-1].value.index("/wheels/*.whl") < install.steps[-1].value.index(compiled)


def test_the_base_can_be_pinned_by_its_digest(context: Path) -> None:
    pinned = "debian@sha256:" + "0" * 64
    first, install, final = read_stages(context / "Dockerfile", {"BASE": pinned})
    assert (first.base, install.base, final.base) == (pinned, "base", "base")


def test_apt_gets_the_repository_with_its_key(tmp_path: Path) -> None:
    text = dockerfile(recipe_for(write(tmp_path / "b.tar", "thor@jetpack-7.2")))
    assert "ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc" in text
    assert "signed-by=/etc/apt/keyrings/trtpack.asc] https://repo.download.nvidia.com" in text
    assert "python3-libnvinfer=10.16.2.10-1+cuda13.2" in text
    assert "--system-site-packages" in text
    assert "find_spec('tensorrt')" in text


def test_a_name_is_only_ever_text(tmp_path: Path) -> None:
    name = 'a "quoted" $HOME\nRUN rm'
    write_context(recipe_for(write(tmp_path / "b.tar", "cpu", name=name)), tmp_path / "context")
    *_, final = stages(tmp_path / "context")
    assert "RUN rm" not in (tmp_path / "context/Dockerfile").read_text().splitlines()
    assert json.dumps(final.labels["org.opencontainers.image.title"]).count("HOME") == 1


def test_a_context_of_ours_is_replaced(context: Path, tmp_path: Path) -> None:
    (context / "left").write_text("over")
    write_context(recipe_for(write(tmp_path / "o.tar", "orin")), context)
    assert "l4t-tensorrt" in (context / "Dockerfile").read_text()
    assert not (context / "left").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "context", "o.tar"]


def test_other_files_are_never_lost(tmp_path: Path) -> None:
    recipe = recipe_for(write(tmp_path / "b.tar", "cpu"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(ConfigError, match="mine holds other files"):
        write_context(recipe, tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"b\.tar is no folder"):
        write_context(recipe, tmp_path / "b.tar")
    with pytest.raises(ConfigError, match="there is no folder"):
        write_context(recipe, tmp_path / "none/context")
    assert (tmp_path / "mine/Dockerfile").read_text() == "FROM scratch\n"


def test_a_folder_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(write(tmp_path / "b.tar", "cpu"))
    monkeypatch.setattr(writing.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ConfigError, match="is not writable"):
        write_context(recipe, tmp_path / "context")


def test_a_disk_that_fills_leaves_nothing(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (context / "Dockerfile").read_bytes()

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.shutil, "copyfile", full)
    with pytest.raises(ConfigError, match=r"cannot write .*context: no space left") as error:
        write_context(recipe_for(context / "bundle.tar"), context)
    assert "free space" in error.value.hint
    assert sorted(path.name for path in context.parent.iterdir()) == ["b.tar", "context"]
    assert (context / "Dockerfile").read_bytes() == before


def test_the_command_takes_a_bundle_or_a_verb(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", "cpu", "orin")
    for words in ([], ["context"]):
        folder = tmp_path / f"context{len(words)}"
        done = CliRunner().invoke(
            docker, [*words, str(path), "-o", str(folder), "--target", "orin"]
        )
        assert done.exit_code == 0, done.output
        assert f"docker build --platform linux/arm64 -t NAME {folder}" in done.output
        assert "docker run --rm --runtime nvidia NAME" in done.output
        assert (folder / "Dockerfile").is_file()
    asked = CliRunner().invoke(docker, ["-o", str(tmp_path / "c"), str(path), "--target", "orin"])
    assert asked.exit_code == 0
    assert "BUNDLE" in CliRunner().invoke(docker, []).output


def test_the_command_says_what_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path = write(tmp_path / "b.tar", "cpu")
    told = CliRunner().invoke(docker, [str(path), "-o", str(tmp_path / "a")]).output
    assert "machine code in the bundle was built elsewhere" in told
    told = CliRunner().invoke(docker, [str(path), "-o", str(tmp_path / "a"), "--trust"]).output
    assert "it loads the machine code in the bundle" in told
    assert "segments run in PyTorch: it has torch==2.13.0" in told
