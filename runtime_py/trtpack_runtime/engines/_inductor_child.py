# SPDX-License-Identifier: Apache-2.0
"""The child process in which AOTInductor compiles a segment for ``_inductor_build.py``.

It maps the weights, exports the graph again with its dynamic sizes and compiles it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime import dims, mapping
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.errors import TrtpackError
from trtpack_runtime.network import Tensor
from trtpack_runtime.safetensors import TensorView, open_safetensors

from ._cuda_toolkit import use_toolkit
from ._inductor_build import LOADING, OWN_CONSTANTS
from ._mended import mend_lstm
from .inductor import MODEL_NAME, constant_names, cpu_flags

if TYPE_CHECKING:
    import torch
    from torch import fx

_CONFIG: Mapping[str, Any] = {
    "aot_inductor.package_constants_in_so": False,
    "cpp.dynamic_threads": True,  # as many threads as the device has, not this host
    "compile_threads": 1,
}
_LEFT_OUT = (
    "precompile_headers",  # each would be read by one file, and takes longer than reading them
    "enable_line_tables",  # three quarters of a small segment's file, for profilers
    "enable_frame_pointer",  # for them too
)
"""What AOTInductor does unless told otherwise, by its names for it in some release."""
_LOAD = """
from ctypes import cdll
try:
    cdll.LoadLibrary("__lib_path__")
except OSError:  # this PyTorch finds its own libraries only by itself
    import torch
    cdll.LoadLibrary("__lib_path__")
"""
"""The program that says by its exit status whether a probe of Inductor's loads."""


def main(folder: Path) -> None:
    """Compiles what ``request.json`` asks for and writes ``answer.json``."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    try:
        answer: dict[str, Any] = {"record": _build(request, folder)}
    except (Exception, SystemExit) as error:
        import traceback

        traceback.print_exc()
        answer = _explained(getattr(error, "inner_exception", error))  # of what Dynamo wrapped
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _explained(error: BaseException) -> dict[str, Any]:
    first = (str(error).strip() or repr(error)).splitlines()[0]
    if isinstance(error, TrtpackError):
        return {"error": error.message, "hint": error.hint}
    if type(error).__name__ == "InvalidCxxCompiler":
        return {
            "error": "cannot compile: no C++ compiler found",
            "hint": "install a C++ compiler such as g++, or use --engine reference",
        }
    return {
        "error": f"AOTInductor failed: {type(error).__name__}: {first}",
        "hint": "use --engine reference for this target",
        "lasting": True,
    }


def _build(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    from importlib import import_module

    if request["device"] != "cpu":
        use_toolkit(os.environ, folder)  # before PyTorch looks for it
        os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")  # the CPU has nothing to compute
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler

    from trtpack_runtime import aten

    for name in request["imports"]:
        import_module(name)
    get_cpp_compiler()  # before anything that takes long
    mend_lstm()
    if request["device"] == "cpu":
        _try_instructions(folder / "probes")
    graph = request["graph"]
    names, device = constant_names(graph), torch.device(request["device"])
    stored = {k: v for p in request["weights"] for k, v in _opened(p).items()}
    constants = {short: stored[name].tensor().to(device) for name, short in names.items()}
    for name, short in names.items():
        if stored[name].same_as is not None:  # the compiler takes one address for one constant
            constants[short] = constants[short].clone()
    module = aten.decode(_renamed(graph, names), constants, device)
    inputs = [
        Tensor(i["name"], i["dtype"], tuple(dims.from_json(d) for d in i["shape"]))
        for i in request["inputs"]
    ]
    with torch.no_grad():
        program = _export(module, inputs, request["profile"], device)
        config = {**_CONFIG, **request["config"]}
        inside = any(config.get(name) for name in OWN_CONSTANTS)
        config["aot_inductor.package_constants_in_so"] = inside
        offered = torch._inductor.config.aot_inductor
        config |= {f"aot_inductor.{name}": False for name in _LEFT_OUT if hasattr(offered, name)}
        if device.type != "cpu":
            rounds = request["tf32"]
            config.setdefault("layout_optimization", _is_for_tensor_cores(program, rounds))
        elif not inside:
            config.setdefault("layout_optimization", _gains_by_layout(program))
        torch._inductor.aoti_compile_and_package(
            program, package_path=request["output"], inductor_configs=config
        )
    Path(folder, LOADING).touch()
    record = _record(Path(request["output"]), None if inside else set(names.values()), device)
    record |= {"config": request["config"]} if request["config"] else {}
    return record | ({"weights": "inside"} if inside else {})


def _try_instructions(probes: Path) -> None:
    """Has Inductor try vector instructions, with files in ``probes``; it remembers what it finds.

    It names the files by their source, the compiler and PyTorch, and compiles what is not there: so
    another child's serve this one, or are not looked at. That they load is tried again, each by a
    process of its own, which before PyTorch 2.13 imports PyTorch first, ten times on some CPUs.
    """
    import torch

    try:
        from torch._inductor.cpu_vec_isa import VecISA, valid_vec_isa_list
    except ImportError:  # before 2.5 it does so when it compiles
        return
    VecISA._avx_py_load = _LOAD
    libraries = str(Path(torch.__file__).parent / "lib")
    known = os.environ.get("LD_LIBRARY_PATH")
    places = os.pathsep.join(filter(None, (libraries, known)))
    with _set(TORCHINDUCTOR_CACHE_DIR=str(probes), LD_LIBRARY_PATH=places):
        valid_vec_isa_list()


@contextmanager
def _set(**variables: str) -> Iterator[None]:
    """Sets variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _opened(place: Any) -> Mapping[str, TensorView]:
    return open_safetensors(mapping.from_json(place))


def _export(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    profile: Mapping[str, Any],
    device: torch.device,
) -> torch.export.ExportedProgram:
    import torch

    shapes = {t.name: profile.get(t.name, [t.shape] * 3) for t in inputs}
    low, opt, high = ({name: s[i] for name, s in shapes.items()} for i in range(3))
    # an example size of 1 would be taken for a constant
    example = {
        name: [
            o if o > 1 or lo == hi else hi
            for lo, o, hi in zip(low[name], opt[name], high[name], strict=True)
        ]
        for name in shapes
    }
    dynamic = tuple(
        {
            axis: torch.export.Dim.DYNAMIC(min=lo, max=hi)
            for axis, (lo, hi) in enumerate(zip(low[t.name], high[t.name], strict=True))
            if lo != hi
        }
        for t in inputs
    )
    args = tuple(
        torch.zeros(example[t.name], dtype=getattr(torch, DTYPES[t.dtype].torch), device=device)
        for t in inputs
    )
    return torch.export.export(module, args, dynamic_shapes=dynamic, strict=False)


def _is_for_tensor_cores(program: torch.export.ExportedProgram, tf32: bool) -> bool:
    """Whether a GPU's tensor cores take its convolutions, in a half, or in float32 with ``tf32``:
    cuDNN's kernels for these take channels last, those for float32 only between two conversions.

    Source: ``scripts/layout_gain --target native [--half]`` on an H200 with PyTorch 2.11 (AlexNet,
    DCGAN, MobileNetV2, ResNet-18 at batches of 2 and 32, ResNet-50 at 8, a YOLO): in float16
    channels last take 0.63 to 0.80 of the time, in TF32 0.71 to 0.83, in float32 0.97 to 1.23.
    """
    dtypes = {weight.dtype for _, weight, _ in _convolutions(program)}
    return any(d.itemsize == 2 or (tf32 and d.itemsize == 4) for d in dtypes)


def _gains_by_layout(program: torch.export.ExportedProgram) -> bool:
    """Whether convolutions on a CPU are faster with their channels last, though their weights,
    which are not packed, are laid out anew in each call.

    So it is taken to be where they read and write three times as much. Source:
    ``scripts/layout_gain`` with PyTorch 2.13: where there are 0.16 to 0.18 weights for each number
    read or written (MobileNetV3, ShuffleNetV2, a YOLO) channels last take 0.84 to 1.01 of the time,
    with 0.5 to 3.5 (ResNets, AlexNet, DCGAN) 0.91 to 1.13, with 29 (a ResNet of CIFAR's size) 2.9.
    """
    weights, numbers = _convolved(program)
    return 3 * weights < numbers


def _convolved(program: torch.export.ExportedProgram) -> tuple[int, int]:
    """How many weights its convolutions have, and how many numbers they read and write."""
    weights = numbers = 0
    for source, weight, result in _convolutions(program):
        weights += _count(weight)
        numbers += _count(source) + _count(result)
    return weights, numbers


def _convolutions(program: torch.export.ExportedProgram) -> Iterator[tuple[torch.Tensor, ...]]:
    """Of each convolution what it reads, its weights and what it answers."""
    for node in program.graph.nodes:
        name = getattr(getattr(node.target, "_schema", None), "name", "")
        if name.startswith("aten::conv") and len(node.all_input_nodes) > 1:
            source, weight = (n.meta["val"] for n in node.all_input_nodes[:2])
            yield source, weight, node.meta["val"]


def _count(value: torch.Tensor) -> int:
    """Its numbers, with sizes that vary at their example's."""
    sizes = (size if isinstance(size, int) else int(size.node.hint) for size in value.shape)
    return math.prod(sizes)


def _renamed(graph: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    def rename(value: Any) -> Any:
        match value:
            case {"constant": str(name)}:
                return {"constant": names[name]}
            case dict():
                return {k: rename(v) for k, v in value.items()}
            case list():
                return [rename(v) for v in value]
        return value

    return {**graph, "nodes": rename(graph["nodes"]), "outputs": rename(graph["outputs"])}


def _record(package: Path, names: set[str] | None, device: torch.device) -> dict[str, Any]:
    """The compatibility record of a package that reads the constants of those ``names``."""
    import torch

    loader = torch._C._aoti.AOTIModelPackageLoader(str(package), MODEL_NAME, False, 1, -1)
    unknown = sorted(set(loader.get_constant_fqns()) - names) if names is not None else []
    if unknown:
        raise RuntimeError(f"the compiled segment wants constants of its own: {unknown[:3]}")
    record = {
        "torch": torch.__version__,
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "isa": loader.get_metadata().get("AOTI_CPU_ISA", ""),
        "cpu_flags": cpu_flags(),
    }
    if device.type == "cpu":
        return record
    major, minor = torch.cuda.get_device_capability(device)
    gpu = {
        "sm": f"{major}.{minor}",
        "name": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
    }
    return {**record, "gpu": gpu}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
