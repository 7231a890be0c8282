# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/run-on-a-device.md and its systemd unit do what they say."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trtpack_runtime import ledger, store_folder
from trtpack_runtime.cli import group
from trtpack_runtime.cli.failures import DEGRADED
from trtpack_runtime.cli.prune import prune
from trtpack_runtime.cli.run import run
from trtpack_runtime.errors import (
    BundleError,
    ConfigError,
    DeviceError,
    SmokeFailure,
    TrtpackError,
)

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
DOCUMENT = (HOW_TO / "run-on-a-device.md").read_text(encoding="utf-8")
UNIT = HOW_TO / "trtpack-smoke.service"


@pytest.fixture
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's page does
    parser.read(UNIT)
    return parser["Service"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/trtpack/bin/trtpack", "/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("User=robot", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == []


def test_the_units_folders_are_those_the_runtime_uses(
    service: configparser.SectionProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in shlex.split(service["Environment"]):
        monkeypatch.setenv(*setting.split("=", 1))
    assert store_folder.default_home() == Path("/var/cache") / service["CacheDirectory"]
    assert ledger.default_path().parent == Path("/var/lib") / service["StateDirectory"]
    assert store_folder.limit_variable_bytes() == 4 * 10**9


def test_the_units_command_is_one(service: configparser.SectionProxy) -> None:
    program, verb, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, verb) == ("trtpack", "run")
    with run.make_context("run", arguments) as context:
        assert context.params["strict"]
        assert str(context.params["bundle"]) == "/opt/robot/bundle.tar"


def test_every_command_of_the_page_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    verbs = {*group.VERBS, *group.ELSEWHERE}
    line = r"^    (?:/opt/trtpack/bin/)?trtpack ([a-z-]+)(.*?)(?:#.*)?$"
    named = re.findall(line, DOCUMENT, re.MULTILINE)
    assert {verb for verb, _ in named} >= {"doctor", "resolve", "run", "finish", "prune"}
    assert {verb for verb, _ in named} <= verbs
    for verb, arguments in named:
        if verb == "prune":
            found = CliRunner().invoke(prune, [*shlex.split(arguments), "--dry-run"])
            assert found.exit_code == 0, found.output


def test_the_exit_codes_of_the_page() -> None:
    told = dict(re.findall(r"^\| (\d) \| (.*) \|$", DOCUMENT, re.MULTILINE))
    codes: dict[type[TrtpackError], str] = {
        ConfigError: "command line",
        BundleError: "bundle",
        DeviceError: "device",
        SmokeFailure: "computes something else",
    }
    for kind, words in codes.items():
        assert words in told[str(kind.exit_code)]
    assert "PyTorch runs what an engine was to run" in told[str(DEGRADED)]


@pytest.mark.slow
def test_a_disk_that_is_read_only_from_root_to_tmp(tmp_path: Path) -> None:
    """Nothing at all can be written; the smoke test runs all the same."""
    bundle = Path(__file__).parent / "fixtures/bundles/1-first.tar"
    script = """
        mount --make-rprivate / || exit 99
        for place in / /tmp /var /var/tmp /dev/shm /work /root /home; do
            mountpoint -q $place && { mount -o remount,bind,ro $place || exit 99; }
        done
        touch "$1" /tmp/x 2>/dev/null && exit 99
        cd / && exec "$2" -m trtpack_runtime run "$3" --no-bench
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", tmp_path / "x", sys.executable, bundle],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("may not make disks read-only here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "smoke test: passed" in done.stdout
