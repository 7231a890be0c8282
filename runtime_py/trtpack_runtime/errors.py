# SPDX-License-Identifier: Apache-2.0
"""The error tree. The class carries the exit code, the hint the next step."""

from __future__ import annotations

from typing import ClassVar


class TrtpackError(Exception):
    """Anything a user can act on: one line that says what failed, and one imperative sentence."""

    exit_code: ClassVar[int] = 1
    """What the command line ends with."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class ConfigError(TrtpackError):
    """A wrong option, file, name or input."""

    exit_code = 2


class InputMismatchError(ConfigError):
    """An input that is not what the method takes."""


class CompileError(TrtpackError):
    """A pass, a conversion or an engine build failed."""

    exit_code = 4


class NetworkError(CompileError):
    """A portable network that TensorRT would refuse, with the layer that is wrong."""


class EngineBuildError(CompileError):
    """TensorRT refused a network or died; the message ends with its last log lines.

    ``layers`` are the network's layers it is about, as far as TensorRT named them.
    """

    def __init__(self, message: str, *, hint: str = "", layers: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.layers = layers

    @property
    def layer(self) -> str | None:
        """The first of ``layers``."""
        return self.layers[0] if self.layers else None


class BuildCancelled(EngineBuildError):
    """A build that was stopped before its end."""


class BuildKilled(EngineBuildError):
    """A build whose process the system ended, mostly for want of memory."""


class BundleError(TrtpackError):
    """A bundle that is corrupt, incompatible or not trusted.

    Where something was compared, ``wants`` is what the bundle or its format asks for and ``has``
    what was found; ``member`` is the part of the bundle it is about.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        wants: object = None,
        has: object = None,
        member: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.wants, self.has, self.member = wants, has, member


class DeviceError(TrtpackError):
    """No GPU, no driver, too little memory."""

    exit_code = 6


class BusyError(TrtpackError):
    """A pool has as many requests as it takes; one may have room later."""


class DeviceLostError(DeviceError):
    """The GPU failed in a way that lasts until this process ends."""


class SmokeFailure(TrtpackError):
    """The loaded program does not compute what it should, or not as fast or small as it should.

    Where a limit is exceeded, or a previous run was better, ``wants`` is that and ``has`` what was
    measured.
    """

    exit_code = 7

    def __init__(
        self, message: str, *, hint: str = "", wants: object = None, has: object = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.wants, self.has = wants, has


class InternalError(Exception):
    """A bug of ours."""

    exit_code: ClassVar[int] = 70
