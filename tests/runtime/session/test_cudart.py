# SPDX-License-Identifier: Apache-2.0
"""CUDA's own library by ctypes, where no binding of it is installed."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy
import pytest

from tests.runtime.session.conftest import Lab
from tests.runtime.session.cuda_double import CudaDouble, Error, _Kind
from tests.runtime.session.nets import CHAIN, NETS, some
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.session import Session, cuda, cudart


class Function:
    """A function of the C library: takes what its ``argtypes`` take, writes through pointers."""

    argtypes: tuple[Any, ...] = ()
    restype: Any = None

    def __init__(self, double: CudaDouble, name: str) -> None:
        self._double, self._name = double, name

    def __call__(self, *arguments: Any) -> Any:
        given, pointers = [], []
        for kind, argument in zip(self.argtypes, arguments, strict=True):
            if issubclass(kind, ctypes._Pointer):
                pointers.append(argument._obj)
                continue
            value = kind(argument).value or 0
            handle = self._double.handles.get(value) if kind is ctypes.c_void_p else None
            given.append(value if handle is None else handle)
        if self._name == "cudaMemcpyAsync":
            given[3] = _Kind(given[3])
        if self.restype is ctypes.c_char_p:
            given[0] = Error(given[0])
        code, *rest = getattr(self._double, self._name)(*given)
        if self.restype is ctypes.c_char_p:
            return rest[0]
        for pointer, value in zip(pointers, rest, strict=True):
            if value is not None:
                pointer.value = value if isinstance(value, float) else int(value)
        return int(code)


class Shared:
    """The shared object."""

    def __init__(self, double: CudaDouble) -> None:
        self._double = double

    def __getattr__(self, name: str) -> Function:
        assert hasattr(self._double, name)
        function = Function(self._double, name)
        setattr(self, name, function)
        return function


@pytest.fixture
def shared(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the library is there."""
    lab.machine(NETS)
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)

    def opened(name: str) -> Any:
        if name != "libcudart.so.12":
            raise OSError(name)
        return Shared(lab.cuda)

    monkeypatch.setattr(cudart.ctypes, "CDLL", opened)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("graphs", ["off", "on"])
def test_a_session_runs_on_the_library_alone(lab: Lab, graphs: str) -> None:
    session = lab.kept(Session(lab.bundle(NETS, {"forward": CHAIN}), cuda_graphs=graphs))
    assert isinstance(cuda.api(), cudart.Library)
    for seed in range(5):
        x = some(1 + seed % 2, seed)
        assert numpy.array_equal(session.run([x])["sum"], 5 * x)
    future = session.run_async([some()])
    assert not future.done()
    assert numpy.array_equal(future.result()["sum"], 5 * some())
    clock = session.clock
    begin, end = clock.mark(), clock.mark()
    clock.wait()
    assert clock.elapsed_ms(begin, end) == 1.5


@pytest.mark.usefixtures("shared")
def test_errors_have_cudas_words(lab: Lab) -> None:
    path = lab.bundle(NETS, {"forward": CHAIN})
    lab.cuda.fails["cudaMalloc"] = Error.cudaErrorMemoryAllocation
    message = "out of memory: cudaMalloc failed.*: cudaErrorMemoryAllocation, in words"
    with pytest.raises(DeviceError, match=message), Session(path) as session:
        session.run([some()])


@pytest.mark.usefixtures("shared")
def test_there_is_no_library_either(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(cudart.ctypes, "CDLL", none)
    with pytest.raises(DeviceError, match="no Python binding of CUDA and no libcudart"):
        cuda.api()


@pytest.mark.usefixtures("shared")
def test_one_that_the_driver_serves_comes_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = CudaDouble()
    newer.fails["cudaGetDeviceCount"] = Error.cudaErrorInsufficientDriver
    doubles = {"libcudart.so.13": newer, "libcudart.so.12": lab.cuda}
    monkeypatch.setattr(cudart, "_places", list)
    monkeypatch.setattr(cudart.ctypes, "CDLL", lambda name: Shared(doubles[name]))
    assert cuda.Cuda(cuda.api(), 0).index == 0
    doubles |= dict.fromkeys(cudart.NAMES, newer)
    with pytest.raises(DeviceError, match="the NVIDIA driver is missing"):
        cuda.Cuda(cuda.api(), 0)


def test_wheels_of_nvidias_are_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nvidia/cuda_runtime/lib"
    folder.mkdir(parents=True)
    (folder / "libcudart.so.12").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert str(folder / "libcudart.so.12") in list(cudart._places())
