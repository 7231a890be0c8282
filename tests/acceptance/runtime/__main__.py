# SPDX-License-Identifier: Apache-2.0
"""Runs one part: ``python -m tests.acceptance.runtime PART SETTINGS ROWS``.

``SETTINGS`` is ``Settings.to_json`` as a file; each row is appended to the file ``ROWS`` as a line
of JSON, so that what was measured outlives the process, and after the last one ``null``.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from tests.acceptance.runtime.row import Settings


def main(name: str, settings: Path, rows: Path) -> None:
    """Does what the command line names."""
    part = import_module(f"tests.acceptance.runtime.{name}")
    chosen = Settings.from_json(json.loads(settings.read_text()))
    with rows.open("a") as file:
        print(json.dumps({"title": part.TITLE}), file=file, flush=True)
        for row in part.rows(chosen):
            print(json.dumps(row.to_json()), file=file, flush=True)
            print(f"  {row.name}: {json.dumps(row.figures, ensure_ascii=False)}", flush=True)
        print("null", file=file, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
