# SPDX-License-Identifier: Apache-2.0
"""What a device of the tests has: a GPU whose driver is a double, TensorRT-RTX, TensorRT's double,
or all of this environment with PyTorch."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from .sshd import Server

_ROOT = Path(__file__).parents[3]
_GPU = """
import ctypes


class _Driver:
    def __getattr__(self, name):
        if name not in _answers:
            raise AttributeError(name)
        return lambda *arguments: _answers[name](*arguments) or 0


def _set(place, value):
    place._obj.value = value


_told = {75: @MAJOR@, 76: @MINOR@, 16: @COUNT@, 18: 0}
_answers = {
    "cuInit": lambda flags: 0,
    "cuDriverGetVersion": lambda version: _set(version, 13000),
    "cuDeviceGetCount": lambda count: _set(count, 1),
    "cuDeviceGet": lambda handle, index: _set(handle, index),
    "cuDeviceGetName": lambda name, length, handle: setattr(name, "value", b"@NAME@"),
    "cuDeviceTotalMem_v2": lambda size, handle: _set(size, @GIB@ << 30),
    "cuDeviceGetAttribute": lambda value, number, handle: _set(value, _told[number]),
}
_cdll = ctypes.CDLL


def _load(name, *arguments, **keywords):
    return _Driver() if name == "libcuda.so.1" else _cdll(name, *arguments, **keywords)


ctypes.CDLL = _load
"""
_TENSORRT = """
__version__ = "{version}"
import sys
import time

from tests.runtime.trt_double import double

time.sleep({seconds})
module = double("{release}")
module.__version__ = __version__
sys.modules[__name__] = module
"""

_REFUSAL = """
from tests.runtime.trt_double import building

problems = building.problems


def with_refusal(trt, network, config):
    there = any(layer.type.name == "@TYPE@" for layer in network._layers)
    return [*problems(trt, network, config), *["no implementation was found"] * there]


building.problems = with_refusal
"""


def add_gpu(server: Server, name: str, sm: str, gib: int, count: int) -> None:
    """A GPU, as its driver tells it."""
    major, minor = sm.split(".")
    text = _GPU.replace("@MAJOR@", major).replace("@MINOR@", minor).replace("@NAME@", name)
    text = text.replace("@COUNT@", str(count)).replace("@GIB@", str(gib))
    (server.packages / "sitecustomize.py").write_text(text)


def add_tensorrt_rtx(server: Server) -> None:
    """This environment's TensorRT-RTX, and nothing else of it."""
    for found in Path(sysconfig.get_path("purelib")).glob("tensorrt_rtx*"):
        (server.packages / found.name).symlink_to(found)


def add_tensorrt(
    server: Server, release: str = "10.16", version: str = "10.16.2.10", seconds: float = 0.0
) -> None:
    """TensorRT's double, whose import takes so long."""
    folder = server.packages / "tensorrt"
    folder.mkdir()
    text = _TENSORRT.format(release=release, version=version, seconds=seconds)
    (folder / "__init__.py").write_text(text)
    for name, at in (("tests", "tests"), ("trtpack_tools", "runtime_py/tools/trtpack_tools")):
        (server.packages / name).symlink_to(_ROOT / at)


def refuse_layers(server: Server, type_name: str) -> None:
    """TensorRT's double fails on networks with a layer of that type, without naming it."""
    with (server.packages / "tensorrt" / "__init__.py").open("a") as file:
        file.write(_REFUSAL.replace("@TYPE@", type_name))


def add_everything(server: Server) -> None:
    """All of this environment: PyTorch, numpy."""
    server.python(f'exec {sys.executable} "$@"')
