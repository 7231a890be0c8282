# SPDX-License-Identifier: Apache-2.0
"""A package whose modules are in an archive, in a folder and in a wheel, on this Python."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from trtpack_runtime import packed_modules

INIT = b"from .packed_modules import add_modules\n\nadd_modules(__spec__)\n"
MODULES = {
    "first.py": b"from .inner.second import VALUE\n\nFOUND = VALUE + 1\n",
    "inner/__init__.py": b"",
    "inner/second.py": b"VALUE = 1\n" * 100,  # more than a block of a tar
    "inner/__main__.py": b"print(__name__, __file__)\n",
}
CODE = """
import sys
compiled = []
sys.addaudithook(lambda event, told: event == "compile" and compiled.append(str(told[1])))
from tiny import first
print(first.FOUND, sum("/tiny/modules/" in name for name in compiled), first.__spec__.cached)
"""


def files(modules: dict[str, bytes]) -> dict[str, bytes]:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", format=tarfile.USTAR_FORMAT) as made:
        for name, content in modules.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    loader = Path(packed_modules.__file__).read_bytes()
    return {
        "__init__.py": INIT,
        "packed_modules.py": loader,
        packed_modules.ARCHIVE: archive.getvalue(),
    }


def in_folder(root: Path) -> Path:
    (root / "tiny").mkdir()
    for name, content in files(MODULES).items():
        (root / "tiny" / name).write_bytes(content)
    return root


def in_wheel(root: Path) -> Path:
    with zipfile.ZipFile(root / "tiny.whl", "w") as wheel:
        for name, content in files(MODULES).items():
            wheel.writestr(f"tiny/{name}", content)
    return root / "tiny.whl"


def python(path: Path, *words: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, "PYTHONPATH": str(path)},
    )
    return done.stdout.split()


def test_bytecode_is_kept_and_used(tmp_path: Path) -> None:
    root = in_folder(tmp_path)
    found, compiled, cached = python(root, "-c", CODE)
    assert (found, compiled) == ("2", "3")
    assert Path(cached).is_relative_to(root / "tiny/modules/__pycache__")
    assert Path(cached).is_file()
    assert python(root, "-c", CODE) == ["2", "0", cached]


def test_bytecode_of_another_source_is_not_used(tmp_path: Path) -> None:
    root = in_folder(tmp_path)
    python(root, "-c", CODE)
    changed = {**MODULES, "first.py": MODULES["first.py"].replace(b"+ 1", b"+ 2")}
    (root / "tiny" / packed_modules.ARCHIVE).write_bytes(files(changed)[packed_modules.ARCHIVE])
    assert python(root, "-c", CODE)[:2] == ["3", "1"]


def test_all_can_be_compiled_before(tmp_path: Path) -> None:
    root = in_folder(tmp_path)
    python(root, "-c", "from tiny.packed_modules import compile_all; compile_all()")
    assert len([*root.rglob("modules/**/*.pyc")]) == len(MODULES)
    assert python(root, "-c", CODE)[:2] == ["2", "0"]


def test_in_a_wheel_nothing_is_kept(tmp_path: Path) -> None:
    wheel = in_wheel(tmp_path)
    for _ in range(2):
        assert python(wheel, "-c", CODE)[:2] == ["2", "3"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.whl"]


def test_what_lies_in_its_place_does_not_go_before(tmp_path: Path) -> None:
    """Modules of a wheel that was unpacked there before."""
    root = in_folder(tmp_path)
    (root / "tiny/first.py").write_text("FOUND = 'old'\n")
    assert python(root, "-c", CODE)[0] == "2"


@pytest.mark.parametrize("place", [in_folder, in_wheel])
def test_a_package_in_it_is_run(place: Callable[[Path], Path], tmp_path: Path) -> None:
    path = place(tmp_path)
    assert python(path, "-m", "tiny.inner") == [
        "__main__",
        f"{path}/tiny/modules/inner/__main__.py",
    ]
