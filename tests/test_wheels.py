# SPDX-License-Identifier: Apache-2.0
"""All distributions build and hold what they should; the runtime works with nothing beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import trtpack_tools
from tests.runtime.bundles import write_tiny
from trtpack_runtime.cli.group import ELSEWHERE

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each distribution's wheel, built from its own source archive as ``python -m build`` does."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT / "runtime_py", ROOT / "runtime_py/tools", ROOT):
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, project],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(folder.glob("*.tar.gz"))) == 3
    found = {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}
    assert set(found) == {"trtpack", "trtpack_runtime", "trtpack_tools"}
    return found


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path, member: str = "METADATA") -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(f".dist-info/{member}")]
        return archive.read(name).decode()


@pytest.mark.parametrize("package", ["trtpack_runtime", "trtpack_tools"])
@pytest.mark.slow
def test_what_a_device_gets_holds_one_package(package: str, wheels: dict[str, Path]) -> None:
    names = members(wheels[package])
    files = {n for n in names if ".dist-info/" not in n}
    assert f"{package}/py.typed" in files
    assert {n.partition("/")[0] for n in files} == {package}
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_the_runtime_needs_click_and_numpy_only(wheels: dict[str, Path]) -> None:
    needs = HeaderParser().parsestr(metadata(wheels["trtpack_runtime"])).get_all("Requires-Dist")
    always = [need for need in needs or () if "extra ==" not in need]
    assert sorted(need.partition(">")[0] for need in always) == ["click", "numpy"]
    assert "trtpack = trtpack_runtime.cli:main" in metadata(
        wheels["trtpack_runtime"], "entry_points.txt"
    )


def test_the_packager_wheel_carries_the_targets(wheels: dict[str, Path]) -> None:
    names = members(wheels["trtpack"])
    carried = {n for n in names if n.startswith("trtpack/_targets/")}
    assert carried == {
        f"trtpack/_targets/{path.relative_to(ROOT / 'targets')}"
        for path in (ROOT / "targets").rglob("*.toml")
    }
    assert "trtpack/py.typed" in names
    assert not any("tests" in n or "trtpack_runtime/" in n or "trtpack_tools/" in n for n in names)


def test_all_have_one_version_and_every_verb_exists(wheels: dict[str, Path]) -> None:
    told = {name: HeaderParser().parsestr(metadata(wheel)) for name, wheel in wheels.items()}
    (version,) = {headers["Version"] for headers in told.values()}
    assert version == trtpack_tools.__version__
    assert f"trtpack-runtime=={version}" in told["trtpack"].get_all("Requires-Dist", [])
    assert f"trtpack-tools=={version}" in told["trtpack"].get_all("Requires-Dist", [])
    assert f"trtpack-runtime=={version}" in told["trtpack_tools"].get_all("Requires-Dist", [])
    brought = {}
    for package in ("trtpack", "trtpack_tools"):
        names = members(wheels[package])
        for line in metadata(wheels[package], "entry_points.txt").splitlines():
            verb, _, where = line.partition(" = ")
            if where:
                brought[verb] = told[package]["Name"]
                assert where.partition(":")[0].replace(".", "/") + ".py" in names, line
    assert {
        verb: known.distribution for verb, known in ELSEWHERE.items()
    }.items() <= brought.items()


def pythons() -> list[str]:
    """This Python, and the oldest one the runtime supports where it is installed."""
    found = [sys.executable]
    homes = sorted((Path.home() / ".pyenv/versions").glob("3.10*/bin/python"))
    for candidate in ("python3.10", *map(str, homes)):
        path = shutil.which(candidate)
        if (
            path
            and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode
        ):
            return [*found, path]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons())
def test_the_runtime_alone_in_a_bare_environment(
    python: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    scripts = tmp_path / "venv" / "bin"
    subprocess.run(
        [scripts / "python", "-m", "pip", "-qq", "install", wheels["trtpack_runtime"]], check=True
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def trtpack(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [scripts / "trtpack", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=clean,
        )

    present = subprocess.run(
        [scripts / "python", "-c", "import torch"], capture_output=True, check=False, env=clean
    )
    assert present.returncode != 0
    text = trtpack("--help")
    assert text.returncode == 0, text.stderr
    for verb in ("verify", "doctor", "run", "resolve"):
        assert verb in text.stdout
        assert trtpack(verb, "--help").returncode == 0
    assert trtpack("doctor").returncode == 0, trtpack("doctor").stderr
    bundle = write_tiny(tmp_path / "tiny.tar")
    verified = trtpack("verify", bundle)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "4 members" in verified.stdout
    run = trtpack("run", bundle)
    assert run.returncode == 5
    assert run.stderr.splitlines()[0].endswith("cpu: PyTorch is not installed")
    assert run.stderr.splitlines()[1].startswith("hint: install PyTorch on this machine")
    absent = trtpack("inspect", bundle)
    assert (absent.returncode, absent.stderr.splitlines()) == (
        2,
        ["error: unknown command 'inspect'", "hint: install it: pip install trtpack-tools"],
    )
    subprocess.run(
        [scripts / "python", "-m", "pip", "-qq", "install", "--no-index", wheels["trtpack_tools"]],
        check=True,
    )
    inspected = trtpack("inspect", bundle)
    assert (inspected.returncode, inspected.stderr) == (0, "")
    assert "target orin  (tensorrt, sm 8.7)" in inspected.stdout
    for verb in ("inspect", "verify"):
        missing = trtpack(verb, "missing.tar")
        assert missing.returncode != 0
        assert "Traceback" not in missing.stderr
        assert "missing.tar" in missing.stderr


def test_the_installed_packager_finds_its_targets(wheels: dict[str, Path], tmp_path: Path) -> None:
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
    code = (
        "import trtpack.target as t; "
        "print(t.find_target('orin').key, len(t.all_targets()), t.__file__, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    key, count, file = done.stdout.splitlines()
    assert (key, count) == ("jetson-agx-orin-64gb@jetpack-6.2", "31")
    assert Path(file).is_relative_to(tmp_path)
