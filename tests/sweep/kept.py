# SPDX-License-Identifier: Apache-2.0
"""Outcomes in a file, so that a sweep which is cut short goes on where it ended."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from tests.sweep.trying import Outcome, Settings

Job = tuple[str, str]
"""An operator and a type."""


class Kept:
    """What is known of each job under the same settings; without a path, nothing is kept."""

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self._path, self._settings = path, dataclasses.asdict(settings)
        self.outcomes: dict[Job, list[Outcome]] = {}
        if path is None or not path.exists():
            return
        for text in path.read_text().splitlines():
            entry = json.loads(text)
            if entry["settings"] == self._settings:
                job = (entry["operator"], entry["dtype"])
                self.outcomes[job] = [Outcome(**outcome) for outcome in entry["outcomes"]]

    def is_settled(self, job: Job) -> bool:
        """Whether a job is done, and nothing in it was wrong."""
        return job in self.outcomes and all(o.state != "wrong" for o in self.outcomes[job])

    def add(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """Takes a job's outcomes in place of what was known."""
        self.outcomes[job] = list(outcomes)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "settings": self._settings,
            "operator": job[0],
            "dtype": job[1],
            "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes],
        }
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
