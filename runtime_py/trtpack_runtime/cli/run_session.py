# SPDX-License-Identifier: Apache-2.0
"""A bundle that runs without PyTorch, as ``trtpack run`` measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..bundle import Bundle
from ..clocks import Clock
from ..dtypes import DTYPES
from ..errors import BundleError, ConfigError, InputMismatchError
from ..manifest import TensorSpec
from ..progress import OnProgress
from ..resolve import Choice
from ..run_report import TensorFacts
from ..sample_files import wanted_inputs
from ..session import Session, SessionFuture, files, smoke_numpy
from ..session.arrays import numpy_dtype
from ..smoke_report import SmokeReport
from .run_subject import built_engines, in_order

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]


class SessionSubject:
    """A ``Session`` of every method that is asked for."""

    degraded = False
    failed: Mapping[str, str] = {}
    uncompiled: Mapping[str, str] = {}

    def __init__(self, session: Session, settings: Mapping[str, Any]) -> None:
        self.session, self.settings = session, settings
        self._before: dict[str | None, Mapping[str, Array]] = {}

    @classmethod
    def load(
        cls,
        bundle: Path,
        on_progress: OnProgress,
        methods: Sequence[str],
        *,
        device: str | None = None,
        cuda_graphs: bool | None = None,
        target: str | None = None,
        trust: bool = False,
        build: bool = True,
        rebuild: bool = False,
        verify: Literal["lazy", "full"] = "lazy",
        check_memory: bool = True,
    ) -> SessionSubject:
        """Opens a session; ``methods`` are all of the bundle's where none is named.

        Raises:
            ConfigError: a device that is no GPU.
        """
        from ..bundle import open_bundle

        kind, _, number = (device or "cuda").partition(":")
        if kind != "cuda" or not (number or "0").isdigit():
            raise ConfigError(
                f"without PyTorch a bundle runs on a GPU, not on {device}",
                hint="give cuda or cuda:N, or install PyTorch",
            )
        names = tuple(dict.fromkeys(methods)) or tuple(open_bundle(bundle).manifest.methods)
        try:
            session = Session(
                bundle,
                int(number or 0),
                names,
                cuda_graphs="on" if cuda_graphs else "off",
                target=target,
                trust=trust,
                build=build,
                rebuild=rebuild,
                verify=verify,
                check_memory=check_memory,
                on_progress=on_progress,
            )
        except BundleError as error:
            if "PyTorch is not installed" in error.message:  # a variant that would run with it
                error.hint = f"install PyTorch on this machine, or {error.hint}"
            raise
        return cls(session, {"cuda_graphs": bool(cuda_graphs), "pytorch": False})

    @property
    def bundle(self) -> Bundle:
        """What was loaded."""
        return self.session.bundle

    @property
    def choice(self) -> Choice:
        """The variants, and why one was taken."""
        return self.session.choice

    @property
    def device(self) -> str:
        """Where it runs."""
        return f"cuda:{self.session.device}"

    @property
    def built(self) -> Mapping[str, Mapping[str, Any]]:
        """The engines that this machine built."""
        return built_engines(self.session.own_engines)

    @property
    def start(self) -> Mapping[str, Any]:
        """How long the phases of the start took, and what memory was expected."""
        session = self.session
        return {"seconds": session.times.to_json(), "memory": session.memory.to_json()}

    @property
    def clock(self) -> Clock:
        """CUDA's events on the session's stream."""
        return self.session.clock

    def segments(self, method: str) -> tuple[tuple[str, str], ...]:
        """A method's segments in order, each with the kind that runs it."""
        engines = self.bundle.manifest.variants[self.choice.variant].engines
        return tuple((name, engines[name].kind) for name in self.session.segments(method))

    def inputs(self, method: str, given: Sequence[str]) -> Sequence[Array]:
        """The inputs of files, else of the first golden sample, else zeros of the best shapes."""
        manifest = self.bundle.manifest
        described = manifest.methods[method]
        if given:
            read = files.read_inputs(given, wanted_inputs(described), manifest.metadata)
            values = in_order(described, read)
            self.session.check(values, method=method)
            return values
        samples = smoke_numpy.golden_samples(self.bundle, described)
        return samples[0].inputs if samples else [_zeros(spec) for spec in described.inputs]

    def call(self, method: str, inputs: Sequence[Array]) -> Sequence[Array]:
        """One call, copies to and from the host included; its result is waited for when it is
        looked at."""
        return _Outputs(self.session.run_async(list(inputs), method=method))

    def smoke(self, method: str) -> SmokeReport:
        """Replays a method's golden samples."""
        return self.session.smoke(method)

    def reset(self, method: str | None = None) -> None:
        """Puts the state back to its first values, or to what a method's first golden sample
        begins with."""
        if method not in self._before:
            self._before[method] = self._state(method) if method else {}
        self.session.reset(self._before[method])

    def _state(self, method: str) -> Mapping[str, Array]:
        samples = smoke_numpy.golden_samples(self.bundle, self.bundle.manifest.methods[method])
        return smoke_numpy.known(samples[0].before, self.session.states) if samples else {}

    def told(self, name: str, value: Array, values: bool = False) -> TensorFacts:
        """What to say of an array."""
        kind = self._kind(name, value)
        low = high = None
        if values and value.size and value.dtype.kind != "c":
            wide = smoke_numpy.as_float(smoke_numpy.Value(value, kind))
            low, high = float(wide.min()), float(wide.max())
        return TensorFacts(name, DTYPES[kind].torch, value.shape, value.nbytes, low, high)

    def labels(self, outputs: Sequence[Array]) -> list[list[tuple[str, float]]]:
        """The best labels for each row, where the one output is 2-D logits; else nothing."""
        names = self.bundle.manifest.metadata.get("labels")
        if isinstance(names, Mapping) and all(str(i) in names for i in range(len(names))):
            names = [names[str(i)] for i in range(len(names))]
        if not isinstance(names, list) or not names:
            return []
        logits = [array for array in outputs if array.ndim == 2 and array.dtype.kind == "f"]
        return files.top_classes(logits[0], list(map(str, names))) if len(logits) == 1 else []

    def write(self, path: Path, outputs: Mapping[str, Array]) -> None:
        """Writes outputs to a ``.safetensors`` or ``.npz`` file."""
        files.write_outputs(path, outputs, self._specs())

    def gpu_peak_bytes(self) -> int | None:
        """What PyTorch's tensors took: it does not run."""
        return None

    def _specs(self) -> list[TensorSpec]:
        methods = self.bundle.manifest.methods
        named = [methods[name] for name in self.session.methods]
        return [spec for method in named for spec in (*method.inputs, *method.outputs)]

    def _kind(self, name: str, value: Array) -> str:
        """Our name of an array's type, which tells BF16 from its bits."""
        declared = [spec.dtype for spec in self._specs() if spec.name == name]
        for kind in (*declared, *DTYPES):
            if numpy_dtype(kind) == value.dtype:
                return kind
        raise InputMismatchError(
            f"input {name}: no bundle has the type {value.dtype}", hint="convert it"
        )


class _Outputs(Sequence["Array"]):
    """The outputs of a call under way."""

    def __init__(self, future: SessionFuture) -> None:
        self._future = future

    def __getitem__(self, index: Any) -> Any:
        return list(self._future.result().values())[index]

    def __len__(self) -> int:
        return len(self._future.result())


def _zeros(spec: TensorSpec) -> Array:
    import numpy

    shape = spec.opt or [size if isinstance(size, int) else 1 for size in spec.shape]
    return numpy.zeros(shape, numpy_dtype(spec.dtype))
