# SPDX-License-Identifier: Apache-2.0
"""The command's manners: help without imports, errors in two lines, exit codes, signals, pipes."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from tests.runtime.command import trtpack as run
from trtpack_runtime import __version__, cli
from trtpack_runtime.cli import group
from trtpack_runtime.errors import BundleError, InternalError, SmokeFailure


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """``main`` is called in this process; its signal handler is not to stay."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ending_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, list[str]]]:
    """Runs a verb that raises; answers the exit code and stderr's lines."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def ending(error: BaseException, *arguments: str) -> tuple[object, list[str]]:
        @click.command()
        def failing() -> None:
            raise error

        monkeypatch.setattr(group, "_load", lambda name, where: failing)
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, "verify"])
        captured = capsys.readouterr()
        assert captured.out == ""
        return stop.value.code, captured.err.splitlines()

    return ending


def test_help_names_every_verb_by_section() -> None:
    done = run("--help")
    assert (done.code, done.err) == (0, "")
    added = {point.name for point in entry_points(group=group.ENTRY_POINTS)}
    assert "inspect" in added
    elsewhere = {verb: entry for verb, entry in group.ELSEWHERE.items() if verb in added}
    for verb, entry in {**group.VERBS, **elsewhere}.items():
        assert re.search(rf"^  {verb} +{re.escape(entry.help)}$", done.out, re.MULTILINE)
    assert done.out.index("Run, on the device:") < done.out.index("Look inside:")
    assert run("-h").out == done.out
    assert run().out == done.out


def test_every_verb_exists_and_has_examples() -> None:
    verbs = {n: v for n, v in group.trtpack.verbs.items() if not v.where.startswith("trtpack.")}
    assert {"run", "inspect"} <= set(verbs)
    for name, verb in verbs.items():
        if name in ("run", "resolve", "debug"):
            pytest.importorskip("torch")
        command = group._load(name, verb.where)
        assert command.get_short_help_str(200)
        assert "Examples:" in (command.epilog or "") + (command.help or ""), name
        for option in (p for p in command.params if "--target" in p.opts):
            assert "-t" in option.opts, name  # as in trtpack build


def test_verbs_of_other_distributions(tmp_path: Path) -> None:
    package = tmp_path / "other-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[trtpack.commands]\nbuild = nowhere:build\nhello = nowhere:hello\nrun = nowhere:evil\n"
    )
    done = run("--help", env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert done.code == 0
    assert re.search(r"^Build, on the host:\n  build +Build a model", done.out, re.MULTILINE)
    assert re.search(r"^  hello +From other\.$", done.out, re.MULTILINE)
    assert "evil" not in done.out
    missing = run("hello", env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert (missing.code, missing.err.splitlines()) == (
        2,
        [
            "error: trtpack hello needs the Python module nowhere",
            "hint: install it: pip install nowhere",
        ],
    )


def test_version() -> None:
    assert run("--version").out.startswith(f"trtpack {__version__}, Python 3.")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["verfy"], "error: unknown command 'verfy'", "hint: did you mean verify?"),
        (["xyzzy"], "error: unknown command 'xyzzy'", "hint: see all with: trtpack --help"),
        (["verify"], "error: missing argument 'BUNDLE'", "hint: see: trtpack verify --help"),
        (["inspect", "--nope", "x"], "error: no such option", "hint: see: trtpack inspect --help"),
        (["--nope"], "error: no such option", "hint: see: trtpack --help"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], error: str, hint: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    first, second = done.err.splitlines()
    assert first.startswith(error)
    assert second.startswith(hint)
    assert done.out == ""


def test_an_error_is_two_lines_and_its_code(
    ending_with: Callable[..., tuple[object, list[str]]],
) -> None:
    error = BundleError("x.tar: a is corrupt", hint="copy it again")
    assert ending_with(error) == (5, ["error: x.tar: a is corrupt", "hint: copy it again"])
    assert ending_with(SmokeFailure("too far off")) == (7, ["error: too far off"])


def test_debug_shows_the_traceback_too(
    ending_with: Callable[..., tuple[object, list[str]]],
) -> None:
    code, lines = ending_with(BundleError("broken", hint="mend it"), "--debug")
    assert code == 5
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["error: broken", "hint: mend it"]


def test_the_system_refusing_a_file(ending_with: Callable[..., tuple[object, list[str]]]) -> None:
    code, lines = ending_with(PermissionError(errno.EACCES, "Permission denied", "/etc/shadow"))
    assert (code, lines[0]) == (2, "error: cannot use /etc/shadow: permission denied")


def test_a_full_disk_is_no_bug(ending_with: Callable[..., tuple[object, list[str]]]) -> None:
    code, lines = ending_with(OSError(errno.ENOSPC, "No space left on device"))
    assert (code, lines[0]) == (2, "error: cannot write the output: no space left on its disk")


def test_running_out_of_memory(ending_with: Callable[..., tuple[object, list[str]]]) -> None:
    assert ending_with(MemoryError())[0] == 6


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (InternalError("cannot be"), "cannot be"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_bug_is_told_as_one(
    error: Exception, line: str, ending_with: Callable[..., tuple[object, list[str]]]
) -> None:
    code, lines = ending_with(error)
    assert (code, lines[0]) == (70, f"error: this is a bug in trtpack: {line}")
    match = re.fullmatch(r"hint: report it with the log (\S+)", lines[1])
    assert match
    log = Path(match[1]).read_text()
    assert log.startswith(f"trtpack {__version__}, Python")
    assert type(error).__name__ in log
    assert "Traceback" in log


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c(error: BaseException, ending_with: Callable[..., tuple[object, list[str]]]) -> None:
    code, lines = ending_with(error)
    assert code == 130
    assert [line for line in lines if line] == [
        "error: aborted",
        "hint: run it again; no unfinished file was left",
    ]


def test_being_terminated_tidies_up(tmp_path: Path) -> None:
    code = """
import sys, time, click
from pathlib import Path
from trtpack_runtime import cli
from trtpack_runtime.cli import group
@click.command()
def slow():
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        Path(sys.argv[1]).touch()
group._load = lambda name, where: slow
cli.main(["verify"])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "tidied"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert errors.splitlines() == [
        "error: terminated",
        "hint: run it again; no unfinished file was left",
    ]
    assert (tmp_path / "tidied").exists()


def test_a_reader_that_goes_away() -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -m trtpack_runtime --help | true; echo ${PIPESTATUS[0]}',
         sys.executable], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")  # it may have written all before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert f"_TRTPACK_COMPLETE={shell}_complete" in done.out


def test_completion_offers_verbs_and_options() -> None:
    env = {"_TRTPACK_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    offered = run(env={**env, "COMP_WORDS": "trtpack p"}).out.splitlines()
    assert offered == ["plain,prune", "plain,profile"]
    offered = run(env={**env, "COMP_WORDS": "trtpack inspect --j", "COMP_CWORD": "2"}).out
    assert offered.splitlines() == ["plain,--json"]


def test_offering_verbs_imports_none() -> None:
    code = (
        "import sys; from trtpack_runtime.cli import main\n"
        "try: main([])\n"
        "except SystemExit: print({m for m in sys.modules if 'trtpack' in m})"
    )
    env = {"_TRTPACK_COMPLETE": "bash_complete", "COMP_WORDS": "trtpack ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env},
        check=True,
    )  # fmt: skip
    *offered, modules = done.stdout.splitlines()
    assert "plain,inspect" in offered
    assert "trtpack_tools.cli.inspect" not in modules
    assert "trtpack_runtime.bundle" not in modules
