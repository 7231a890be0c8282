# SPDX-License-Identifier: Apache-2.0
"""What ``torch.export`` looks up anew at every capture, looked up once by the tests.

A capture of a small model spends most of its time on two listings of all composite operators that
there are, and on the types in the signatures of functions that it defines for each of them.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any


def look_up_once() -> None:
    """Lists PyTorch's composite operators again only when there are others than before."""
    import torch._ops
    from torch._export import utils
    from torch.export import decomp_utils, exported_program

    torch._ops.Callable = typing.Callable  # type: ignore[attr-defined]  # it remembers its types
    listing = _Listing(utils._collect_all_valid_cia_ops)
    for module in (utils, decomp_utils, exported_program):
        module._collect_all_valid_cia_ops = listing  # type: ignore[attr-defined]  # a private name


class _Listing:
    """The composite operators, as of the operators that were known when they were listed."""

    def __init__(self, list_them: Callable[[], set[Any]]) -> None:
        self._list_them, self._known, self._listed = list_them, None, set[Any]()

    def __call__(self) -> set[Any]:
        if self._known is None or self._known != _known_operators():
            self._listed = self._list_them()
            self._known = _known_operators()  # listing makes some known
        return self._listed


def _known_operators() -> Any:
    """Every operator outside ``aten``, whose own PyTorch lists once, and what is composite."""
    import torch

    composite = "CompositeImplicitAutograd"
    registered = torch._C._dispatch_get_registrations_for_dispatch_key(composite)
    spaces = {name: getattr(torch.ops, name) for name in torch.ops._dir if name != "aten"}
    packets = [
        getattr(space, operator)
        for space in spaces.values()
        if isinstance(space, torch._ops._OpNamespace)
        for operator in space
    ]
    return registered, packets
