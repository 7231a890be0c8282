# SPDX-License-Identifier: Apache-2.0
"""Reads the TOML file of a device or a stack, strictly: known keys, right types, every source."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from trtpack_runtime.errors import ConfigError

EngineKind = Literal["tensorrt", "tensorrt-rtx", "inductor"]
ENGINE_KINDS: tuple[EngineKind, ...] = ("tensorrt", "tensorrt-rtx", "inductor")
OLDEST_TENSORRT = (8, 6)


@dataclass(frozen=True)
class Peak:
    """Published dense rates: for ordering devices, never for predicting a latency."""

    memory_gbps: float | None = None
    fp16_tflops: float | None = None
    int8_tops: float | None = None
    fp8_tflops: float | None = None
    fp4_tflops: float | None = None


@dataclass(frozen=True)
class Device:
    id: str
    device: str
    aliases: tuple[str, ...]
    family: str
    sm: str | None
    sm_also: tuple[str, ...]
    arch: tuple[str, ...]
    memory_gib: float | None
    memory_unified: bool | None
    dla_cores: int | None
    has_fp8: bool
    has_fp4: bool
    rtx_capability: str | None
    stacks: tuple[str, ...]
    unsupported: str | None
    notes: str | None
    peak: Peak


@dataclass(frozen=True)
class Stack:
    id: str
    title: str
    kind: EngineKind
    families: tuple[str, ...]  # of the devices it exists for
    tensorrt: tuple[int, ...] | None
    cuda: str | None
    python: str | None
    os: str | None
    arch: tuple[str, ...]
    dla: bool
    sms: tuple[str, ...] | None
    notes: str | None


class Table:
    """One TOML file whose keys are taken one by one, so that a leftover key is an unknown key."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content
        self.cited = set[str]()

    @classmethod
    def read(cls, path: Path) -> Table:
        try:
            return cls(path, tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(
                f"cannot read {path}: {error}", hint="mend the file or reinstall trtpack"
            ) from error

    def wrong(self, key: str, reason: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key}: {reason}", hint=f"correct {key} in that file")

    def take(
        self, key: str, is_right: Callable[[Any], bool], wanted: str, default: Any = ...
    ) -> Any:
        if key not in self.content:
            if default is ...:
                raise self.wrong(key, f"missing, wanted {wanted}")
            return default
        value = self.content.pop(key)
        if not is_right(value):
            raise self.wrong(key, f"wanted {wanted}, got {value!r}")
        return value

    def text(self, key: str) -> str:
        return cast(str, self.take(key, _is_text, "text"))

    def text_or_none(self, key: str) -> str | None:
        return cast("str | None", self.take(key, _is_text, "text", None))

    def flag(self, key: str, default: Any = ...) -> bool:
        return cast(bool, self.take(key, _is_flag, "true or false", default))

    def texts(self, key: str, default: Any = ...) -> tuple[str, ...]:
        wanted = "a list of texts"
        return tuple(
            self.take(key, lambda v: isinstance(v, list) and all(map(_is_text, v)), wanted, default)
        )

    def version(self, key: str, default: Any = ...) -> tuple[int, ...] | None:
        def is_version(value: Any) -> bool:
            return _is_text(value) and all(part.isdigit() for part in value.split("."))

        text = self.take(key, is_version, "numbers and dots", default)
        return None if text is None else tuple(int(part) for part in text.split("."))

    def finish(self, sources: frozenset[str], facts: Iterable[str]) -> None:
        """Check that each of ``facts`` has a known source and that nothing is left over."""
        cited = self.take("sources", lambda v: isinstance(v, dict), "a table of sources", {})
        for fact in facts:
            ids = cited.pop(fact, None)
            if not isinstance(ids, list) or not ids:
                raise self.wrong(
                    f"sources.{fact}", "missing, wanted the ids of this fact's sources"
                )
            for source in ids:
                if source not in sources:
                    raise self.wrong(f"sources.{fact}", f"{source!r} is not in sources.toml")
        for key in cited:
            raise self.wrong(f"sources.{key}", "the file states no such fact")
        for key in self.content:
            raise self.wrong(key, "unknown key")


_WITHOUT_SOURCE = frozenset(
    {
        "device",
        "families",
        "kind",
        "title",
        "aliases",
        "family",
        "stacks",
        "notes",
        "peak",
        "sources",
    }
)


def _facts(table: Table) -> list[str]:
    """The keys of ``table`` that must name a source."""
    facts = [key for key in table.content if key not in _WITHOUT_SOURCE]
    if "stacks" in table.content.get("sources", {}):
        facts.append("stacks")
    peak = table.content.get("peak", {})
    return facts + [f"peak.{key}" for key in peak] if isinstance(peak, dict) else facts


def read_device(table: Table, sources: frozenset[str]) -> Device:
    facts = _facts(table)
    peak = Table(table.path, table.take("peak", lambda v: isinstance(v, dict), "a table", {}))
    rates = {
        field: peak.take(field, _is_positive, "a positive number", None)
        for field in Peak.__dataclass_fields__
    }
    peak.finish(sources, ())
    device = Device(
        id=table.path.stem,
        device=table.text("device"),
        aliases=table.texts("aliases", ()),
        family=table.text("family"),
        sm=table.take("sm", _is_sm, 'a compute capability such as "8.7"', None),
        sm_also=table.texts("sm_also", ()),
        arch=_arch(table),
        memory_gib=table.take("memory_gib", _is_positive, "a positive number", None),
        memory_unified=table.flag("memory_unified", None),
        dla_cores=table.take("dla_cores", _is_count, "a count", None),
        has_fp8=table.flag("has_fp8"),
        has_fp4=table.flag("has_fp4"),
        rtx_capability=table.text_or_none("rtx_capability"),
        stacks=table.texts("stacks"),
        unsupported=table.text_or_none("unsupported"),
        notes=table.text_or_none("notes"),
        peak=Peak(**rates),
    )
    table.take("architecture", _is_text, "text", None)  # for people: Ampere, Blackwell
    if not device.stacks and device.unsupported is None:
        raise table.wrong("stacks", "empty, and unsupported does not say why")
    table.finish(sources, facts)
    return device


def read_stack(table: Table, sources: frozenset[str]) -> Stack:
    facts = _facts(table)
    kind = table.take("kind", lambda v: v in ENGINE_KINDS, f"one of {', '.join(ENGINE_KINDS)}")
    version = table.version("tensorrt", None if kind == "inductor" else ...)
    if kind == "tensorrt" and version is not None and version < OLDEST_TENSORRT:
        raise table.wrong("tensorrt", "wanted 8.6 or newer")
    stack = Stack(
        id=table.path.stem,
        title=table.text("title"),
        kind=kind,
        families=table.texts("families"),
        tensorrt=version,
        cuda=table.text_or_none("cuda"),
        python=table.text_or_none("python"),
        os=table.text_or_none("os"),
        arch=_arch(table),
        dla=table.flag("dla", False),
        sms=table.texts("sms", ()) or None,
        notes=table.text_or_none("notes"),
    )
    table.text_or_none("cudnn")
    table.text_or_none("l4t")
    table.finish(sources, facts)
    return stack


def _arch(table: Table) -> tuple[str, ...]:
    names = table.texts("arch")
    if not names or not set(names) <= {"x86_64", "aarch64"}:
        raise table.wrong("arch", f"wanted x86_64 or aarch64, got {list(names)}")
    return names


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_sm(value: Any) -> bool:
    return (
        _is_text(value) and len(parts := value.split(".")) == 2 and all(p.isdigit() for p in parts)
    )
