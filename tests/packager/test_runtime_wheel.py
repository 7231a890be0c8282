# SPDX-License-Identifier: Apache-2.0
"""The wheels in a bundle: the same bytes each time, installed and run without a network."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.runtime.bundles import PROGRAM, manifest_json
from trtpack import runtime_wheel
from trtpack.errors import ConfigError
from trtpack.options import InputSpec, Options
from trtpack.pipeline import build
from trtpack.runtime_wheel import runtime_members, wheel
from trtpack_runtime import __version__, contents, layers
from trtpack_runtime.archive_writer import Member
from trtpack_runtime.bundle import open_bundle, write_bundle
from trtpack_runtime.errors import InternalError
from trtpack_runtime.manifest import Manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without engines that carries the runtime."""
    path = tmp_path_factory.mktemp("carrying") / "bundle.tar"
    members = [Member("programs/forward/cpu.json", PROGRAM), *runtime_members()]
    write_bundle(path, empty(), members)
    return path


def empty() -> Manifest:
    value = manifest_json(methods={}, state=[], variants={})
    value["weights"] = {"members": [], "parameters": {}, "buffers": {}}
    return Manifest.from_json(value)


def unpacked(bundle: Path, folder: Path) -> list[Path]:
    """As ``tar xf bundle.tar runtime`` does; the wheels."""
    (folder / "runtime").mkdir(parents=True, exist_ok=True)
    with tarfile.open(bundle) as archive:
        for member in archive:
            if member.name.startswith("runtime/"):
                content = archive.extractfile(member)
                assert content is not None
                (folder / member.name).write_bytes(content.read())
    return sorted((folder / "runtime").iterdir())


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def test_the_same_bytes_each_time() -> None:
    assert runtime_members() == runtime_members()


def test_a_wheel_holds_the_code_and_what_pip_reads(bundle: Path, tmp_path: Path) -> None:
    click, ours = unpacked(bundle, tmp_path)
    assert click.name.startswith("click-")
    assert ours.name == f"trtpack_runtime-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(ours) as archive:
        names = archive.namelist()
        record = archive.read(names[-1]).decode().splitlines()
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    about = f"trtpack_runtime-{__version__}.dist-info"
    assert names[-1] == f"{about}/RECORD"
    assert {line.partition(",")[0] for line in record} == set(names)
    assert {f"{about}/METADATA", f"{about}/entry_points.txt", f"{about}/WHEEL"} <= set(names)
    assert "trtpack_runtime/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


def test_a_bundle_with_wheels_is_sound_and_only_there(bundle: Path, tmp_path: Path) -> None:
    open_bundle(bundle, verify="full")
    whl = runtime_members()[0].source
    assert isinstance(whl, bytes)
    for name in ("networks/x.whl", "runtime/x.json"):
        assert contents.refused(name, whl[:9], whl[-1:]) == "is a zip archive"
        with pytest.raises(InternalError, match="is a zip archive"):
            write_bundle(tmp_path / "x.tar", empty(), [Member(name, whl)])


def test_the_runtime_runs_from_the_wheels_themselves(bundle: Path, tmp_path: Path) -> None:
    """Where there is not even pip: Python imports from wheels that have no compiled code."""
    wheels = unpacked(bundle, tmp_path)
    path = os.pathsep.join(map(str, wheels))

    done = subprocess.run(
        # -S: nothing that is installed here
        [sys.executable, "-S", "-m", "trtpack_runtime", "--debug", "verify", bundle],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**clean(), "PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sound" in done.stdout


def test_the_wheels_commands_say_what_the_installed_ones_say(bundle: Path, tmp_path: Path) -> None:
    """Their help is their docstrings, and is all there."""
    path = os.pathsep.join(map(str, unpacked(bundle, tmp_path)))
    for command in ("run", "resolve", "doctor"):
        told = [
            subprocess.run(
                [sys.executable, *first, "-m", "trtpack_runtime", command, "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={**clean(), **more},
            ).stdout
            for first, more in (([], {}), (["-S"], {"PYTHONPATH": path}))
        ]
        assert told[0] == told[1]


def test_a_wheel_has_the_data_that_its_code_reads(bundle: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, unpacked(bundle, tmp_path)))
    code = "from trtpack_runtime.layers import proofs; print(len(proofs()))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**clean(), "PYTHONPATH": path},
    )
    assert int(done.stdout) == len(layers.proofs()) > 0


@pytest.mark.slow
def test_pip_installs_them_without_a_network(bundle: Path, tmp_path: Path) -> None:
    """numpy, the one thing that is not carried, is made up: devices have it."""
    wheels = unpacked(bundle, tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    about = "numpy-2.0.dist-info"
    with zipfile.ZipFile(wheels[0].parent / "numpy-2.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 2.0\n")
        archive.writestr(f"{about}/WHEEL", runtime_wheel._WHEEL)
        archive.writestr(f"{about}/RECORD", "")
    scripts = tmp_path / "venv/bin"
    subprocess.run(
        [
            *(scripts / "python", "-m", "pip", "-qq", "--disable-pip-version-check", "install"),
            *("--no-index", "--find-links", wheels[0].parent, "trtpack-runtime"),
        ],
        check=True,
        env=clean(),
    )
    done = subprocess.run(
        [scripts / "trtpack", "verify", bundle], capture_output=True, text=True, env=clean()
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_build_puts_them_in(tmp_path: Path) -> None:
    options = Options(targets=("cpu",), output=tmp_path / "b.tar", engine="reference")
    inputs = (InputSpec(None, (1, 3)),)
    build(torch.nn.Linear(3, 2), replace(options, inputs=inputs, with_runtime=True))
    names = list(open_bundle(options.output, verify="full").entries)
    assert names[-2:] == [member.name for member in runtime_members()]


def test_what_is_not_plain_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is not installed here"):
        wheel("no-such-thing", "no_such_thing")
    with pytest.raises(ConfigError, match="it has compiled code"):
        wheel("numpy", "numpy")


def test_a_wheel_is_a_zip(bundle: Path) -> None:
    for member in runtime_members():
        assert isinstance(member.source, bytes)
        assert zipfile.ZipFile(io.BytesIO(member.source)).testzip() is None
