# SPDX-License-Identifier: Apache-2.0
"""Where AOTInductor's compiler is sent for CUDA."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtpack_runtime.engines import _cuda_toolkit as cuda_toolkit
from trtpack_runtime.errors import EngineBuildError


def made(folder: Path) -> Path:
    for header in cuda_toolkit.HEADERS:
        (folder / header).parent.mkdir(parents=True, exist_ok=True)
        (folder / header).touch()
    return folder


def test_what_the_environment_names_comes_first_then_the_newest(tmp_path: Path) -> None:
    named, old, new = (made(tmp_path / n) for n in ("named", "cuda-12.10", "cuda-13.0"))
    (tmp_path / "cuda-14.0").mkdir()  # without headers
    assert cuda_toolkit.toolkit({"CUDA_HOME": str(named)}, tmp_path) == named
    assert cuda_toolkit.toolkit({"CUDA_HOME": str(tmp_path / "none")}, tmp_path) == new
    assert old.name < new.name
    default = made(tmp_path / "cuda")
    assert cuda_toolkit.toolkit({}, tmp_path) == default


def test_a_compiler_on_the_path_leads_to_its_toolkit(tmp_path: Path) -> None:
    home = made(tmp_path / "opt/cuda")
    (home / "bin").mkdir()
    (home / "bin/nvcc").write_text("#!/bin/sh\n")
    (home / "bin/nvcc").chmod(0o755)
    assert cuda_toolkit.toolkit({"PATH": str(home / "bin")}, tmp_path) == home


def test_without_headers_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match="no CUDA toolkit with its headers") as caught:
        cuda_toolkit.toolkit({"PATH": ""}, tmp_path)
    assert "CUDA_HOME" in caught.value.hint


def test_the_linker_finds_the_drivers_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = made(tmp_path / "cuda"), tmp_path / "link"
    folder.mkdir()
    monkeypatch.setattr(cuda_toolkit, "_driver", lambda: Path("/drivers/libcuda.so.1"))
    environment = {"CUDA_HOME": str(home), "LIBRARY_PATH": "/mine"}
    cuda_toolkit.use_toolkit(environment, folder)
    assert environment == {"CUDA_HOME": str(home), "LIBRARY_PATH": f"{folder}:/mine"}
    assert (folder / "libcuda.so").readlink() == Path("/drivers/libcuda.so.1")
