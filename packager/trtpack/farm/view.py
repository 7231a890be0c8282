# SPDX-License-Identifier: Apache-2.0
"""Told what the cells of a matrix are at; a front end overrides what is shown."""

from __future__ import annotations

from .report import CellResult


class View:
    """Shows nothing."""

    def begins(self, count: int) -> None:
        """So many cells are to be built."""

    def at(self, cell: str, where: str, text: str) -> None:
        """A cell is worked at: ``here`` or on a worker of that name, ``text`` says on what."""

    def waits(self, cell: str, text: str) -> None:
        """A cell is worked at by nobody, for the reason told."""

    def ends(self, result: CellResult) -> None:
        """What became of a cell."""

    def says(self, text: str) -> None:
        """Something that is no cell's own."""

    def closes(self) -> None:
        """Nothing more will be told."""
