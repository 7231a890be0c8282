# SPDX-License-Identifier: Apache-2.0
"""The state that a golden sample begins with; without torch.

A method is proved as it is called in earnest: where it reads what other methods change, its samples
begin with what the first samples of these left. Nothing is stored twice, so that is looked up in
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from .errors import BundleError
from .manifest import Golden, Manifest

T = TypeVar("T")


def state_before(
    manifest: Manifest, golden: Golden, tensors: Callable[[str], Mapping[str, T]]
) -> dict[str, T]:
    """The values by slot that a golden sample begins with; all other slots have their first values.

    Args:
        manifest: the bundle's.
        golden: one of its samples.
        tensors: a member's tensors by name, such as ``Bundle.tensors``.

    Raises:
        BundleError: a member lacks the value of a slot, or has one of no slot.
    """
    slots = {slot.name for slot in manifest.state}
    before: dict[str, T] = {}
    for method in golden.follows:
        first = manifest.methods[method].golden[0]
        stored = tensors(first.member)
        for name in first.states:
            slot = name.removeprefix("state.")
            if name not in stored:
                raise _wrong(first, golden, f"has no tensor {name!r}")
            if slot not in slots:
                raise _wrong(first, golden, f"has a state {slot!r}, which the bundle lacks")
            before[slot] = stored[name]
    return before


def _wrong(first: Golden, golden: Golden, what: str) -> BundleError:
    return BundleError(
        f"{first.member} {what}; {golden.member} begins with what it left",
        hint="build the bundle again",
        member=first.member,
    )
