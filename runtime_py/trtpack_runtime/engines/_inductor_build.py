# SPDX-License-Identifier: Apache-2.0
"""Compiles an ATen segment with AOTInductor in a child process, ``_inductor_child.py``.

The child gets the segment's graph and what its inputs look like. Nothing is written outside the
output file, temporary folders and ``probes`` of the user's cache. Host and device compile alike.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trtpack_runtime import dims, mapping
from trtpack_runtime.atomic import replaced
from trtpack_runtime.errors import BuildCancelled, ConfigError, EngineBuildError
from trtpack_runtime.network import Profile, Tensor
from trtpack_runtime.store_folder import StoreFolder, store_folder
from trtpack_runtime.tf32 import convolves_in_tf32

from ._cuda_toolkit import toolkit
from ._processes import RUNNING, TELLING, last_words

Log = Callable[[str], None]
_CHILD = f"{__package__}._inductor_child"
_LOG_LINES = 12
_TRIED: dict[str, bytes] = {}
"""The files, by their place in ``probes``, with which Inductor tries what vector instructions the
compiler and the CPU have. Nothing else decides on them, and compiling them takes as long as a small
segment, so they are kept in ``probes`` of the user's cache. Their names are made of what they are
compiled from, with what and how; that they load is tried again by each child."""
LOADING = "loading"
"""A file of this name says that the library is compiled, and being loaded."""
_OTHER_COMPILER = (
    "the C++ compiler, CXX={cxx}, may bring a C++ library other than PyTorch's: set CXX to the "
    "system's, such as g++, or use --engine reference"
)
OWN_CONSTANTS = ("freezing", "max_autotune")
"""Settings with which Inductor packs weights anew, into constants of its own."""


class UncompilableError(EngineBuildError):
    """AOTInductor cannot compile a segment, and will not be able to the next time."""


def build_in_child(
    graph: Mapping[str, Any],
    weights: Sequence[Path | mapping.FilePart],
    inputs: Sequence[Tensor],
    output: Path,
    *,
    profile: Profile | None = None,
    imports: Sequence[str] = (),
    log: Log | None = None,
    device: str = "cpu",
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compiles a stored ATen graph to ``output`` and returns its compatibility record.

    Args:
        graph: the segment's graph (``aten.py``).
        weights: safetensors files, or parts of a bundle that are such, which together hold every
            stored tensor the graph names.
        inputs: dtype and shape of the graph's inputs, in order; dims over each other.
        output: the ``.pt2`` package to write.
        profile: the minimum, optimum and maximum shapes of the dynamic inputs.
        imports: modules that register custom operators.
        log: gets each line the compiler prints.
        device: ``cpu``, or ``cuda``, a GPU of this machine, which has to be free: kernels are
            measured on it.
        config: settings of Inductor by name (``torch._inductor.config``), besides our own. With
            one of ``OWN_CONSTANTS`` the weights become a part of the library.

    Raises:
        EngineBuildError: no C++ compiler, for a GPU no CUDA toolkit, or compilation failed; with
            its last lines; UncompilableError where it would fail again. BuildCancelled: it was
            stopped.
    """
    if device != "cpu":
        toolkit(os.environ)  # before a process is started for nothing
    request = {
        "graph": graph,
        "weights": [mapping.to_json(place) for place in weights],
        "inputs": [
            {"name": t.name, "dtype": t.dtype, "shape": [dims.to_json(d) for d in t.shape]}
            for t in inputs
        ],
        "profile": dict(profile.shapes) if profile else {},
        "imports": list(imports),
        "output": str(output.absolute()),
        "device": device,
        "config": dict(config or {}),
        "tf32": convolves_in_tf32(),
    }
    with tempfile.TemporaryDirectory(prefix="trtpack-inductor-") as folder:
        Path(folder, "request.json").write_text(json.dumps(request), encoding="utf-8")
        probes = Path(folder, "probes")
        _write_probes(probes)
        lines, status = _run_child(Path(folder), log)
        answer = Path(folder, "answer.json")
        if not answer.exists():
            if status == -signal.SIGTERM:
                raise BuildCancelled("the compilation was stopped", hint="start it again")
            died = f"signal {-status}" if status < 0 else f"status {status}"
            if Path(folder, LOADING).exists():
                raise EngineBuildError(
                    f"the compiled library does not load, its process died with {died}"
                    + _tail(lines),
                    hint=_OTHER_COMPILER.format(cxx=os.environ.get("CXX", "g++")),
                )
            raise EngineBuildError(
                f"the compiler process died with {died}{_tail(lines)}",
                hint="free some memory and build again, or use --engine reference",
            )
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        _keep_probes({n: c for n, c in _read_probes(probes).items() if n not in _TRIED})
    if "error" in result:
        kind = UncompilableError if result.get("lasting") else EngineBuildError
        raise kind(result["error"] + _tail(lines), hint=result["hint"])
    record: dict[str, Any] = result["record"]
    return record | {"inputs": request["inputs"], "profile": request["profile"]}


def refuse_within_child() -> None:
    """Ends a build that an operator's module begins as the child of another imports it, which would
    begin that again.

    Raises:
        ConfigError: this process is such a child.
    """
    spec = sys.modules["__main__"].__spec__
    if spec is not None and spec.name == _CHILD:
        raise ConfigError(
            "the module of an operator builds as it is imported, without if __name__ == "
            '"__main__":',
            hint="build below that line",
        )


def _write_probes(folder: Path) -> None:
    if not _TRIED:
        folders = _place()
        for kept in filter(None, (folders.home, folders.spare)):
            with suppress(OSError):  # it is only slower without
                _TRIED.update(_read_probes(kept))
    for name, content in list(_TRIED.items()):  # another thread may add to them
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _keep_probes(new: Mapping[str, bytes]) -> None:
    _TRIED.update(new)
    for name, content in new.items():
        path = _place().written / name
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as file:
                file.write(content)


def _place() -> StoreFolder:
    return store_folder().below("probes")


def _read_probes(folder: Path) -> dict[str, bytes]:
    files = (path for kind in ("cpp", "so") for path in folder.rglob(f"*.{kind}"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _run_child(folder: Path, log: Log | None) -> tuple[list[str], int]:
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path if p),
    }
    child = subprocess.Popen(
        [sys.executable, *TELLING, "-m", _CHILD, str(folder)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines: list[str] = []
    RUNNING.add(child)
    try:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                lines.append(line.rstrip())
                if log is not None:
                    log(lines[-1])
        return lines, child.wait()
    finally:
        RUNNING.discard(child)
        if child.poll() != 0:  # interrupted: take the C++ compiler down as well
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tail(lines: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in last_words(lines, _LOG_LINES))
