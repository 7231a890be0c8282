# SPDX-License-Identifier: Apache-2.0
"""The runtime out of its archive: unpacked by pip, and from the wheel as it is."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trtpack_runtime
from tests.read_only import read_only
from trtpack.options import InputSpec, Options
from trtpack.packed_runtime import packed
from trtpack.pipeline import build
from trtpack.runtime_wheel import runtime_members
from trtpack_runtime.packed_modules import ARCHIVE

LIMIT_BYTES = 400_000
SOURCES = Path(trtpack_runtime.__file__).parent
HERE = pytest.mark.parametrize("place", ["pip", "wheels"], indirect=True)
COMPILED = """
import sys
found = []
sys.addaudithook(lambda event, told: event == "compile" and found.append(str(told[1])))
import trtpack_runtime.cli.run
print(sum("/trtpack_runtime/modules/" in name for name in found))
"""
"""Says how many modules of the archive were compiled."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wheels")
    made = []
    for member in runtime_members():
        assert isinstance(member.source, bytes)
        made.append(folder / Path(member.name).name)
        made[-1].write_bytes(member.source)
    return made


@pytest.fixture(scope="module")
def by_pip(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip makes of the wheels."""
    folder = tmp_path_factory.mktemp("pip")
    command = ["--disable-pip-version-check", "install", "--no-index", "--no-deps", "--target"]
    subprocess.run(
        [sys.executable, "-m", "pip", "-qq", *command, folder, *wheels], check=True, env=clean()
    )
    return folder


@pytest.fixture
def installed(by_pip: Path, tmp_path: Path) -> Path:
    """A copy that nothing has run from."""
    folder = tmp_path / "installed"
    shutil.copytree(by_pip, folder)
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest, installed: Path, wheels: list[Path]) -> str:
    """The Python path of a way to have the runtime."""
    return str(installed) if request.param == "pip" else os.pathsep.join(map(str, wheels))


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def python(path: str | Path, *words: str | Path, **more: str) -> str:
    """What a Python with this path prints; it has to end well and to complain of nothing."""
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**clean(), "PYTHONPATH": str(path), **more},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_pip_unpacks_is_within_the_limit(by_pip: Path) -> None:
    ours = [by_pip / "trtpack_runtime", *by_pip.glob("trtpack_runtime-*"), by_pip / "bin"]
    files = [path for folder in ours for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix != ".pyc"]
    assert by_pip / "bin/trtpack" in kept
    assert 100_000 < sum(path.stat().st_size for path in kept) <= LIMIT_BYTES
    modules = {path.name for path in kept if path.suffix == ".py"}
    assert modules == {"__init__.py", "packed_modules.py"}


@HERE
def test_every_module_is_listed_and_found(place: str) -> None:
    code = """
import pkgutil, trtpack_runtime
from importlib.util import find_spec
def listed(path, prefix):
    for module in pkgutil.iter_modules(path, prefix):
        spec = find_spec(module.name)
        assert module.ispkg == (spec.submodule_search_locations is not None)
        yield module.name
        if module.ispkg:
            yield from listed(spec.submodule_search_locations, module.name + ".")
names = sorted(listed(trtpack_runtime.__path__, "trtpack_runtime."))
assert find_spec("trtpack_runtime.no_such_module") is None
print(*names)
"""
    paths = [path.relative_to(SOURCES) for path in SOURCES.rglob("*.py")]
    dotted = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}
    wanted = {f"trtpack_runtime.{name}" for name in dotted - {"__init__"}}
    assert set(python(place, "-c", code).split()) == wanted


@HERE
def test_errors_and_inspect_show_the_source(place: str) -> None:
    code = """
import inspect, traceback, trtpack_runtime
from trtpack_runtime import archive
assert inspect.getsource(archive.Archive.__init__).startswith("    def __init__(")
try:
    trtpack_runtime.open_bundle("/none")
except trtpack_runtime.bundle.BundleError:
    print(traceback.format_exc())
"""
    told = python(place, "-c", code)
    lines = (SOURCES / "archive.py").read_text().splitlines()
    (number,) = (i for i, line in enumerate(lines, 1) if "self._data = _map(path)" in line)
    assert f'/trtpack_runtime/modules/archive.py", line {number}, in __init__' in told
    assert "    self._data = _map(path)\n" in told


@HERE
def test_children_import_it_too(place: str, tmp_path: Path) -> None:
    (tmp_path / "spawning.py").write_text("""
import multiprocessing, subprocess, sys
from pathlib import Path
from trtpack_runtime.durations import ago
from trtpack_runtime.engines._processes import worker
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(ago, (5.0,)) == ago(5.0)
    child = worker(["job.json"], Path(sys.argv[1]), subprocess.PIPE, 0)
    print(child.stderr.read().decode())
""")
    told = python(place, tmp_path / "spawning.py", tmp_path)
    assert "/trtpack_runtime/modules/worker.py" in told
    assert "No such file or directory: 'job.json'" in told


def test_the_archive_is_read_when_a_module_is_wanted(installed: Path) -> None:
    (installed / "trtpack_runtime" / ARCHIVE).unlink()
    code = "import trtpack_runtime; print(trtpack_runtime.__version__)"
    assert python(installed, "-c", code) == f"{trtpack_runtime.__version__}\n"


def test_a_second_start_compiles_nothing(installed: Path) -> None:
    assert int(python(installed, "-c", COMPILED)) > 20
    assert int(python(installed, "-c", COMPILED)) == 0


def test_bytecode_goes_where_python_is_told(installed: Path, tmp_path: Path) -> None:
    python(installed, "-B", "-c", COMPILED)
    cache = str(tmp_path / "cache")
    assert int(python(installed, "-c", COMPILED, PYTHONPYCACHEPREFIX=cache)) > 20
    assert int(python(installed, "-c", COMPILED, PYTHONPYCACHEPREFIX=cache)) == 0
    assert not (installed / "trtpack_runtime/modules").exists()


def test_what_cannot_be_written_is_compiled_each_time(installed: Path) -> None:
    with read_only(installed):
        assert int(python(installed, "-c", COMPILED)) > 20
        assert int(python(installed, "-c", COMPILED)) > 20


def test_a_folder_that_will_be_read_only_can_be_compiled_before(installed: Path) -> None:
    python(installed, "-c", "from trtpack_runtime.packed_modules import compile_all; compile_all()")
    kept = [*(installed / "trtpack_runtime/modules").rglob("*.pyc")]
    assert len(kept) == len([*SOURCES.rglob("*.py")]) - 2
    with read_only(installed):
        assert int(python(installed, "-c", COMPILED)) == 0


def test_what_cannot_be_kept_is_told_by_who_compiles_before(installed: Path) -> None:
    def told(*words: str) -> str:
        code = "from trtpack_runtime.packed_modules import compile_all; compile_all()"
        env = {**clean(), "PYTHONPATH": str(installed)}
        command = [sys.executable, *words, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False).stderr

    with read_only(installed):
        assert "OSError: cannot keep bytecode of " in told()
    assert "PYTHONDONTWRITEBYTECODE is set" in told("-B")


def test_another_archive_never_runs_old_bytecode(installed: Path) -> None:
    """Of the same size and time: wheels' files are all of 1980."""
    files = {
        path.relative_to(SOURCES).as_posix(): path.read_bytes() for path in SOURCES.rglob("*.py")
    }
    archive = installed / "trtpack_runtime" / ARCHIVE
    for number in (b"1", b"2"):
        files["limits.py"] = (SOURCES / "limits.py").read_bytes() + b"\nANSWER = " + number
        archive.write_bytes(packed(files)[ARCHIVE])
        os.utime(archive, (0, 0))
        code = "from trtpack_runtime.limits import ANSWER; print(ANSWER)"
        assert python(installed, "-c", code) == f"{number.decode()}\n"
    assert len([*installed.rglob("modules/__pycache__/limits.*.pyc")]) == 1


def test_another_install_has_no_part_in_it() -> None:
    code = "import sys, trtpack_runtime.cli; print('trtpack_runtime.packed_modules' in sys.modules)"
    assert python(os.pathsep.join(filter(None, sys.path)), "-c", code) == "False\n"


def test_from_such_an_install_the_same_wheel_is_made(installed: Path, wheels: list[Path]) -> None:
    code = """
import hashlib
from trtpack.runtime_wheel import runtime_members
print(*(hashlib.sha256(member.source).hexdigest() for member in runtime_members()))
"""
    python(installed, "-c", "import trtpack_runtime.bundle")
    made = python(os.pathsep.join([str(installed), *filter(None, sys.path)]), "-c", code)
    assert made.split() == [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "bundle.tar"
    options = Options(targets=("cpu",), output=path, engine="reference")
    build(torch.nn.Linear(3, 2), replace(options, inputs=(InputSpec(None, (1, 3)),)))
    return path


@pytest.mark.slow
@HERE
def test_a_bundle_is_run(place: str, bundle: Path) -> None:
    told = python(place, "-m", "trtpack_runtime", "run", "--no-bench", bundle)
    assert "passed" in told, told
