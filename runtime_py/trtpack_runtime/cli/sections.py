# SPDX-License-Identifier: Apache-2.0
"""Help whose options stand in sections."""

from __future__ import annotations

from typing import Any

import click

HELP_OPTIONS = ("-h", "--help")


class SectionOption(click.Option):
    """An option that stands in a section of its own name in the help."""

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help shows options without a section first, then one section after the
    other, in the order of their first options.

    It names its own help: click keeps the first help option it made, which would be another one
    if the command had been used without its group before.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.context_settings.setdefault("help_option_names", HELP_OPTIONS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes all sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = parameter.section if isinstance(parameter, SectionOption) else "Options"
                sections.setdefault(section, []).append(record)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
