# SPDX-License-Identifier: Apache-2.0
"""TensorRT is found, with its version, wherever it is installed, and is not imported for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trtpack_runtime.engines import _find
from trtpack_runtime.engines._find import Found, cuda_of, find, imported, system_folders
from trtpack_runtime.errors import DeviceError

RELEASE = f"python{sys.version_info.major}.{sys.version_info.minor}"
OTHER = f"python{sys.version_info.major}.{sys.version_info.minor + 1}"
TAG = f"{sys.version_info.major}{sys.version_info.minor}"


def package(folder: Path, text: str = '__version__ = "10.3.0"\n', name: str = "tensorrt") -> Path:
    """A package with nothing but a text; it cannot be imported by mistake unnoticed."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def distribution(folder: Path, name: str, version: str) -> None:
    """What pip leaves about a wheel."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_version_is_read_from_the_packages_text(tmp_path: Path) -> None:
    package(tmp_path, "raise SystemExit(\"imported\")\n__version__: str = '10.3.0'\n")
    assert find("tensorrt", tmp_path, [str(tmp_path)]) == Found("10.3.0")


def test_the_version_is_read_from_a_file_of_its_own(tmp_path: Path) -> None:
    package(tmp_path, "from ._version import __version__\n")
    (tmp_path / "tensorrt" / "_version.py").write_text('__version__ = "11.1.0.5"\n')
    assert find("tensorrt", tmp_path, [str(tmp_path)]) == Found("11.1.0.5")


def test_the_version_of_a_wheel_in_two_packages_is_in_the_second(tmp_path: Path) -> None:
    package(tmp_path, "from tensorrt_bindings import *\n")
    package(tmp_path, '__version__ = "10.13.3.9"\n', "tensorrt_bindings")
    distribution(tmp_path, "tensorrt", "10.13")
    assert find("tensorrt", tmp_path, [str(tmp_path)]) == Found("10.13.3.9")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"])
def test_a_wheel_whose_text_says_nothing_has_metadata(tmp_path: Path, name: str) -> None:
    distribution(package(tmp_path, ""), name, "8.6.1")
    assert find("tensorrt", tmp_path, [str(tmp_path)]) == Found("8.6.1")


def test_metadata_without_the_package_is_no_tensorrt(tmp_path: Path) -> None:
    distribution(tmp_path, "tensorrt", "8.6.1")
    assert find("tensorrt", tmp_path, [str(tmp_path)]) is None


def test_a_plain_folder_is_no_tensorrt(tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    assert find("tensorrt", tmp_path, [str(tmp_path)]) is None


def test_jetpacks_package_is_found_from_a_virtual_environment(tmp_path: Path) -> None:
    system = package(tmp_path / "usr/lib" / RELEASE / "dist-packages", '__version__ = "8.6.2"\n')
    assert find("tensorrt", tmp_path, []) == Found("8.6.2", system)


def test_what_is_on_the_path_comes_before_the_systems(tmp_path: Path) -> None:
    package(tmp_path / "usr/lib" / RELEASE / "dist-packages", '__version__ = "8.6.2"\n')
    own = package(tmp_path / "own", '__version__ = "10.3.0"\n')
    assert find("tensorrt", tmp_path, [str(own)]) == Found("10.3.0")


def test_a_package_for_another_python_is_left(tmp_path: Path) -> None:
    package(tmp_path / "usr/lib" / OTHER / "dist-packages")
    assert find("tensorrt", tmp_path, []) is None


@pytest.mark.parametrize(("tag", "found"), [(TAG, True), ("27", False)])
def test_what_is_compiled_must_be_for_this_python(tmp_path: Path, tag: str, found: bool) -> None:
    package(tmp_path)
    (tmp_path / "tensorrt" / f"tensorrt.cpython-{tag}-aarch64-linux-gnu.so").touch()
    assert (find("tensorrt", tmp_path, [str(tmp_path)]) is not None) == found


@pytest.mark.parametrize(("own", "found"), [(RELEASE, True), (OTHER, False)])
def test_the_folder_of_every_python3_counts_for_the_systems_own(
    tmp_path: Path, own: str, found: bool
) -> None:
    system = package(tmp_path / "usr/lib/python3/dist-packages")
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin" / own).touch()
    (tmp_path / "usr/bin/python3").symlink_to(own)
    assert (system in system_folders(tmp_path)) == found
    assert (find("tensorrt", tmp_path, []) is not None) == found


def test_importing_adds_the_systems_folder_for_that_import_alone(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib" / RELEASE / "dist-packages"
    package(folder, 'from . import inner\n__version__ = "10.3.0"\n')
    (folder / "tensorrt" / "inner.py").touch()
    script = f"""if True:
        import sys
        from pathlib import Path
        from trtpack_runtime.engines._find import imported
        before = list(sys.path)
        trt = imported("tensorrt", Path({str(tmp_path)!r}))
        assert sys.path == before, sys.path
        assert imported("tensorrt", Path("/nowhere")) is trt
        print(trt.__version__)
    """
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (answer.stdout, answer.stderr) == ("10.3.0\n", "")


def test_a_tensorrt_that_does_not_load_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "usr/lib" / RELEASE / "dist-packages"
    package(folder, "raise ImportError('libnvinfer.so.8:\\n cannot open')\n__version__ = '1'\n")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    words = r"cannot import tensorrt: libnvinfer.so.8: cannot open"
    with pytest.raises(DeviceError, match=words):
        imported("tensorrt", tmp_path)


@pytest.mark.parametrize(
    ("names", "cuda"),
    [
        (("tensorrt-cu13",), "13"),
        (("tensorrt-cu12", "tensorrt"), "12"),
        (("tensorrt-cu12", "tensorrt-cu13"), None),
        (("tensorrt",), None),
    ],
)
def test_the_packages_name_tells_its_cuda(
    tmp_path: Path, names: tuple[str, ...], cuda: str | None
) -> None:
    for name in names:
        distribution(tmp_path, name, "10.13.3.9")
    assert cuda_of([str(tmp_path)]) == cuda


def test_this_machines_facts_have_what_python_would_import() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here")
    assert _find.installed("tensorrt_rtx") == trt.__version__
