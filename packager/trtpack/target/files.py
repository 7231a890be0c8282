# SPDX-License-Identifier: Apache-2.0
"""Reads the TOML file of a device or a stack, strictly: known keys, right types, every source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from ..spelling import nearest
from ..toml_places import Document, FileError, Key

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
class Image:
    """What a container of a stack is made of; ``base`` has what is not installed by the rest."""

    base: str  # name:tag
    debs: tuple[str, ...] = ()  # of apt: python3-libnvinfer=10.16.2.10-1+cuda13.2
    repository: str | None = None  # theirs: the address, suite and component
    key: str | None = None  # the address of the key that signs it
    wheels: tuple[str, ...] = ()  # of pip: tensorrt-cu13==10.13.3.9
    torch: str | None = None  # where that is needed: torch==2.8.0; of what the bundle names if None
    torch_index: str | None = None  # where pip finds that


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
    sources: Mapping[str, tuple[str, ...]]  # of each fact: ids
    like: str | None = None  # the device that a user's own file is based on


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
    sms: tuple[str, ...] | None  # that it serves
    not_sms: tuple[str, ...]  # that it is known not to serve
    devices: tuple[str, ...] | None  # that the vendor names, where it names them
    notes: str | None
    image: Image | None
    sources: Mapping[str, tuple[str, ...]]


class Table:
    """A table whose keys are taken one by one, so that a leftover key is an unknown key.

    What is wrong is collected in ``problems``, for all of a file to be told at once.
    """

    def __init__(
        self,
        document: Document,
        content: dict[str, Any],
        key: Key = (),
        problems: list[str] | None = None,
    ) -> None:
        self.document, self.content, self.key = document, content, key
        self.problems: list[str] = [] if problems is None else problems
        self.known = set[str]()

    @classmethod
    def read(cls, path: Path) -> Table:
        """Reads a file. Errors: FileError with line and column where it is not TOML."""
        document = Document.read(path)
        return cls(document, document.content)

    @property
    def path(self) -> Path:
        return self.document.path

    def part(self, name: str) -> Table:
        """The table ``name`` within this one; empty where there is none."""
        content = self.take(name, lambda v: isinstance(v, dict), "a table", None) or {}
        return Table(self.document, content, (*self.key, name), self.problems)

    def wrong(
        self, name: str | Key, reason: str, *, of_key: bool = False, at: Key | None = None
    ) -> None:
        """Notes that a value, or its key, is wrong; ``at`` is its place where it is elsewhere."""
        key: Key = (*self.key, *((name,) if isinstance(name, str) else name))
        place = self.document.at(key if at is None else (*self.key, *at), of_key=of_key)
        told = ".".join(part for part in key if isinstance(part, str))
        self.problems.append(f"{place}: {told}: {reason}")

    def refuse(self, hint: str | None = None) -> None:
        """Errors: FileError where something was wrong."""
        if self.problems:
            check = f"correct {self.path}, see all of it with: trtpack targets check {self.path}"
            raise FileError(self.problems, hint=hint or check)

    def leftover(self) -> None:
        """Notes every key that was not taken."""
        for key in self.content:
            near = nearest(key, self.known)
            did = f", did you mean {near}?" if near else ""
            self.wrong(key, f"unknown key{did}", of_key=True)

    def take(
        self, key: str, is_right: Callable[[Any], bool], wanted: str, default: Any = ...
    ) -> Any:
        self.known.add(key)
        if key not in self.content:
            if default is ...:
                self.wrong(key, f"missing, wanted {wanted}")
                return None
            return default
        value = self.content.pop(key)
        if not is_right(value):
            self.wrong(key, f"wanted {wanted}, got {value!r}")
            return None if default is ... else default
        return value

    def text(self, key: str) -> str:
        return cast(str, self.take(key, _is_text, "text") or "")

    def text_or_none(self, key: str) -> str | None:
        return cast("str | None", self.take(key, _is_text, "text", None))

    def flag(self, key: str, default: Any = ...) -> bool:
        return cast(bool, self.take(key, _is_flag, "true or false", default))

    def texts(self, key: str, default: Any = ...) -> tuple[str, ...]:
        wanted = "a list of texts"
        value = self.take(key, lambda v: isinstance(v, list), wanted, default)
        for index, item in enumerate(value or ()):
            if not _is_text(item):
                self.wrong((key, index), f"wanted {wanted}, got {item!r} in it")
                return ()
        return tuple(value or ())

    def version(self, key: str, default: Any = ...) -> tuple[int, ...] | None:
        def is_version(value: Any) -> bool:
            return _is_text(value) and all(part.isdigit() for part in value.split("."))

        text = self.take(key, is_version, "numbers and dots", default)
        return None if text is None else tuple(int(part) for part in text.split("."))

    def finish(
        self, sources: frozenset[str] | None, facts: Iterable[str]
    ) -> dict[str, tuple[str, ...]]:
        """The sources of each of ``facts``; notes what has none, and every key that is left.

        ``sources`` are the ids that there are; None, for a user's own file: any text, or none.
        """
        cited = self.take("sources", lambda v: isinstance(v, dict), "a table of sources", {})
        found: dict[str, tuple[str, ...]] = {}
        for fact in facts:
            ids = cited.pop(fact, None)
            if ids is None and sources is None:
                continue
            if not isinstance(ids, list) or not ids or not all(map(_is_text, ids)):
                reason = "missing, wanted the ids of this fact's sources"
                at = ("sources", fact) if ids is not None else tuple(fact.split("."))
                self.wrong(("sources", fact), reason, of_key=True, at=at)
                continue
            for index, source in enumerate(ids):
                if sources is not None and source not in sources:
                    reason = f"{source!r} is not in sources.toml"
                    self.wrong(("sources", fact, index), reason)
            found[fact] = tuple(ids)
        for key in cited:
            self.wrong(("sources", key), "the file states no such fact", of_key=True)
        self.leftover()
        return found


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
        "image",
        "sources",
    }
)


_MAY_HAVE_A_SOURCE = ("families", "kind", "stacks")


def _facts(table: Table) -> list[str]:
    """The keys of ``table`` that must name a source."""
    facts = [key for key in table.content if key not in _WITHOUT_SOURCE]
    cited = table.content.get("sources")
    facts += [key for key in _MAY_HAVE_A_SOURCE if isinstance(cited, dict) and key in cited]
    parts = {name: table.content.get(name) for name in ("peak", "image")}
    within = {name: part for name, part in parts.items() if isinstance(part, dict)}
    return facts + [f"{name}.{key}" for name, part in within.items() for key in part]


def read_device(
    table: Table, sources: frozenset[str] | None, *, id: str | None = None, like: str | None = None
) -> Device:
    """The device that a file describes.

    Errors: none raised; ``table.problems`` has what is wrong, and then the device is of no use.
    """
    facts = _facts(table)
    peak = table.part("peak")
    rates = {
        field: peak.take(field, _is_positive, "a positive number", None)
        for field in Peak.__dataclass_fields__
    }
    peak.finish(sources, ())
    device = Device(
        id=id or table.path.stem,
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
        sources={},
        like=like,
    )
    table.take("architecture", _is_text, "text", None)  # for people: Ampere, Blackwell
    if not device.stacks and device.unsupported is None and not table.problems:
        table.wrong("stacks", "empty, and unsupported does not say why")
    return replace(device, sources=table.finish(sources, facts))


def read_stack(table: Table, sources: frozenset[str] | None, *, id: str | None = None) -> Stack:
    """The stack that a file, or a part of it, describes. Errors: as ``read_device``."""
    facts = _facts(table)
    kind = table.take("kind", lambda v: v in ENGINE_KINDS, f"one of {', '.join(ENGINE_KINDS)}")
    version = table.version("tensorrt", None if kind == "inductor" else ...)
    if kind == "tensorrt" and version is not None and version < OLDEST_TENSORRT:
        table.wrong("tensorrt", "wanted 8.6 or newer")
    stack = Stack(
        id=id or table.path.stem,
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
        not_sms=table.texts("not_sms", ()),
        devices=table.texts("devices", ()) or None,
        notes=table.text_or_none("notes"),
        image=_image(table.part("image")) if "image" in table.content else None,
        sources={},
    )
    table.text_or_none("cudnn")
    table.text_or_none("l4t")
    return replace(stack, sources=table.finish(sources, facts))


def _image(part: Table) -> Image:
    image = Image(
        base=part.take("base", _is_image, 'an image with its tag, "debian:bookworm-slim"') or "",
        debs=part.texts("debs", ()),
        repository=part.text_or_none("repository"),
        key=part.text_or_none("key"),
        wheels=part.texts("wheels", ()),
        torch=part.text_or_none("torch"),
        torch_index=part.text_or_none("torch_index"),
    )
    if image.repository is not None and image.key is None:
        part.wrong("repository", "missing beside it: key, the address of the key that signs it")
    if image.debs and image.repository is None:
        part.wrong("debs", "missing beside it: repository, where apt finds them")
    part.finish(None, ())
    return image


def _arch(table: Table) -> tuple[str, ...]:
    names = table.texts("arch")
    if (names and not set(names) <= {"x86_64", "aarch64"}) or (not names and not table.problems):
        table.wrong("arch", f"wanted x86_64 or aarch64, got {list(names)}")
    return names


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_image(value: Any) -> bool:
    return _is_text(value) and re.fullmatch(r"[a-z0-9._/-]+:[\w.-]+", value) is not None


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
