# SPDX-License-Identifier: Apache-2.0
"""``trtpack build``, ``explain`` and ``targets`` as a user types them."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trtpack.cli.build import build
from trtpack.cli.explain import explain
from trtpack.cli.logs import logging_to
from trtpack.cli.progress import LiveProgress
from trtpack.cli.targets import targets
from trtpack.errors import ConfigError
from trtpack.options import Budget, Drop, DynamicDim, InputSpec, Options, Pin, SizeRange
from trtpack.report import BuildReport, BundleReport, Progress
from trtpack.target import all_targets


class FakePipeline:
    """Stands for the pipeline: keeps what it was called with, answers a small report."""

    def __init__(self) -> None:
        self.model = ""
        self.options = Options(targets=())

    def build(self, model: str, options: Options, progress: Progress) -> BuildReport:
        self.model, self.options = model, options
        with progress.step("work"):
            logging.getLogger("trtpack.tensorrt").debug("tactic 17")
            logging.getLogger("trtpack.pipeline").info("chose a segment")
            logging.getLogger("trtpack.pipeline").warning("low on memory")
            warnings.warn("a library is old", stacklevel=1)
            print("a library prints a graph", file=sys.stderr)
        bundle = None if options.dry_run else BundleReport(str(options.output), 10, 5)
        return BuildReport("net", 3, 12, (), (), {"aten.relu.default": 1}, {}, (), bundle)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    fake = FakePipeline()
    monkeypatch.setattr("trtpack.pipeline.build", fake.build)
    return fake


def run(command: Any, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_every_flag_reaches_its_option(pipeline: FakePipeline, tmp_path: Path) -> None:
    weights, meta = tmp_path / "w.safetensors", tmp_path / "meta.json"
    weights.touch()
    meta.write_text('["cat"]')
    arguments = f"""
        m.py:make -t orin -t cpu -o {tmp_path}/b.tar -i x=1/4/8x3 --input ids=2:int64[0,9]
        --weights {weights} --dtype float16 --seed 7 --liven --samples 3 --min-block-size 2
        --torch-op aten.add --torch-op aten.mul.Tensor --engine reference
        --converters ours --converters more.py --strict-dtypes
        --workspace 2G --optimization-level 4 --meta {meta} --dry-run
        --report {tmp_path}/r.json --profile x=1x3;ids=2 --profile x=8x3 --avg-timing-iterations 4
        --engine-weights stripped --version-compatible --hardware-compatible same-sm --sparse
        --dla-core 1 --debug-tensors a.* --debug-tensors b --no-cache --tactics {weights} --locked
        --precision mixed --pin head.*=fp32 --pin aten.mul=bf16 --budget logits:rel_l2<=0.01
        --budget cosine>=0.99 --metric m.py:top1 --max-drop 0.5%
        --max-latency-ms 16.6 --max-memory-mb 800 --with-runtime --defer
        --on ssh://robot@orin --ssh-option -4 --ssh-option -v --remote-python python3.12
        --lease-timeout 60 --cool-below 50
    """  # but for --strict, which contradicts --torch-op
    run(build, *arguments.split())
    assert pipeline.model == "m.py:make"
    assert pipeline.options == Options(
        targets=("orin", "cpu"),
        output=tmp_path / "b.tar",
        inputs=(
            InputSpec("x", (DynamicDim(SizeRange(1, 4, 8)), 3)),
            InputSpec("ids", (2,), "int64", 0, 9),
        ),
        weights=weights,
        dtype="float16",
        precision="mixed",
        pins=(Pin("head.*", "fp32"), Pin("aten.mul", "bf16")),
        budgets=(Budget("rel_l2", 0.01, "logits"), Budget("cosine", 0.99)),
        metric="m.py:top1",
        max_drop=Drop(0.005, True),
        seed=7,
        liven=True,
        samples=3,
        min_block_size=2,
        torch_ops=("aten.add", "aten.mul.Tensor"),
        strict_dtypes=True,
        converters=("ours", "more.py"),
        engine="reference",
        workspace_bytes=2 << 30,
        optimization_level=4,
        profiles=((InputSpec("x", (1, 3)), InputSpec("ids", (2,))), (InputSpec("x", (8, 3)),)),
        avg_timing_iterations=4,
        engine_weights="stripped",
        version_compatible=True,
        hardware_compatible="same-sm",
        sparse=True,
        dla_core=1,
        debug_tensors=("a.*", "b"),
        cache=False,
        tactics=weights,
        locked=True,
        metadata={"labels": ["cat"]},
        max_latency_ms=16.6,
        max_memory_mb=800.0,
        with_runtime=True,
        defer=True,
        on="ssh://robot@orin",
        ssh_options=("-4", "-v"),
        remote_python="python3.12",
        lease_timeout_s=60.0,
        cool_below_c=50.0,
        dry_run=True,
        report=tmp_path / "r.json",
    )


def test_defaults_are_those_of_options(pipeline: FakePipeline, tmp_path: Path) -> None:
    run(build, "m.py:make", "-t", "cpu", "-o", str(tmp_path / "b.tar"))
    assert pipeline.options == Options(targets=("cpu",), output=tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("512", 512), ("1k", 1024), ("1.5M", 3 << 19), ("4G", 4 << 30), ("4GiB", 4 << 30)],
)
def test_workspace_sizes(pipeline: FakePipeline, tmp_path: Path, text: str, nbytes: int) -> None:
    run(build, "m", "-t", "cpu", "-o", str(tmp_path / "b.tar"), "--workspace", text)
    assert pipeline.options.workspace_bytes == nbytes


def test_hardware_compatible_alone_means_ampere_and_later(
    pipeline: FakePipeline, tmp_path: Path
) -> None:
    run(build, "m", "-t", "cpu", "-o", str(tmp_path / "b.tar"), "--hardware-compatible")
    assert pipeline.options.hardware_compatible == "ampere+"


def test_tactics_that_are_not_there_are_told_at_once(tmp_path: Path) -> None:
    arguments = ["m", "-t", "orin", "-o", str(tmp_path / "b.tar"), "--tactics", "none.cache"]
    with pytest.raises(ConfigError, match=r"there is no file none\.cache"):
        CliRunner().invoke(build, arguments, catch_exceptions=False)


def test_help_has_a_section_of_engine_options() -> None:
    options, engine = run(build, "--help").output.split("Engine options:")
    for flag in ("--profile SPEC", "--workspace", "--engine-weights", "--locked", "--no-cache"):
        assert flag in engine
        assert flag not in options
    assert "--samples" in options


def test_a_target_named_twice_is_built_once(pipeline: FakePipeline, tmp_path: Path) -> None:
    run(build, "m", "-t", "orin", "-t", "orin", "-o", str(tmp_path / "b.tar"))
    assert pipeline.options.targets == ("orin",)


def test_explain_plans_only(pipeline: FakePipeline) -> None:
    result = run(explain, "m", "-t", "orin")
    assert pipeline.options == Options(targets=("orin",), dry_run=True)
    assert "1 operator after lowering" in result.stdout


def test_the_report_goes_to_stdout_and_to_its_file(pipeline: FakePipeline, tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    output = str(tmp_path / "b.tar")
    result = run(build, "m", "-t", "cpu", "-o", output, "--report", str(report))
    assert result.stdout.startswith("net: 3 parameters, 12 B\n")
    assert f"model = trtpack_runtime.load('{output}')" in result.stdout
    plain = json.loads(report.read_text())
    assert plain["name"] == "net"
    assert [step["name"] for step in plain["steps"]] == ["start PyTorch", "work"]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], ["WARNING: low on memory"]),
        (["-q"], []),
        (
            ["-v"],
            [
                "INFO: chose a segment",
                "WARNING: low on memory",
                "INFO: a library prints a graph",
            ],
        ),
        (
            ["-vv"],
            [
                "DEBUG: tactic 17",
                "INFO: chose a segment",
                "WARNING: low on memory",
                "INFO: a library prints a graph",
            ],
        ),
    ],
)
def test_verbosity(
    pipeline: FakePipeline, tmp_path: Path, flags: list[str], shown: list[str]
) -> None:
    result = run(build, "m", "-t", "cpu", "-o", str(tmp_path / "b.tar"), *flags)
    assert result.stderr.splitlines() == shown
    assert (result.stdout == "") == (flags == ["-q"])


def test_the_log_file_keeps_everything(pipeline: FakePipeline, tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    run(build, "m", "-t", "cpu", "-o", str(tmp_path / "b.tar"), "-q", "--log-file", str(log))
    text = log.read_text()
    lines = ("tactic 17", "chose a segment", "a library is old", "prints a graph", "start PyTorch:")
    for line in lines:
        assert line in text
    assert not logging.getLogger("trtpack").handlers


def test_the_log_file_keeps_the_traceback_of_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    with pytest.raises(ConfigError), logging_to(-1, log):
        raise ConfigError("no such thing")
    assert "Traceback" in log.read_text()
    assert "no such thing" in log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_file_on_a_full_disk_ends_with_one_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logging_to(0, Path("/dev/full")):
        for i in range(3):
            logging.getLogger("trtpack").info("message %d", i)
    said = capsys.readouterr().err
    assert said == "WARNING: the log file /dev/full ends early: no space left on device\n"


def test_help_shows_examples_of_every_form() -> None:
    text = run(build, "--help").output
    for form in ("file.py:factory", "torchvision:", "timm:", "hf:", ".pt2", "1/4/8", "[0,30522]"):
        assert form in text
    assert "Examples:" in run(explain, "--help").output
    assert "Examples:" in run(targets, "--help").output


def test_targets_lists_every_device() -> None:
    text = run(targets).output
    assert text == run(targets, "list").output
    for target in all_targets():
        assert target.device in text
    assert json.loads(run(targets, "list", "--json").output)[0]["name"]


def test_targets_shows_one() -> None:
    text = run(targets, "show", "orin@jetpack-7.2").output
    assert text.startswith("orin@jetpack-7.2: Jetson AGX Orin 64GB\n")
    assert "jetpack-6.2" in text
    assert max(map(len, text.splitlines())) <= 110
    assert json.loads(run(targets, "show", "orin", "--json").output)["sm"] == "8.7"
    with pytest.raises(ConfigError, match="unknown target 'ornin'"):
        CliRunner().invoke(targets, ["show", "ornin"], catch_exceptions=False)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_messages_stand_above_the_running_step() -> None:
    """On a terminal no message shares a line with the spinner."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as stream:
        progress = LiveProgress(stream)
        with logging_to(1, None, progress.say), progress.step("work on [x]"):
            logging.getLogger("trtpack").info("a message with [brackets]")
        stream.flush()
        drawn = ""
        while "INFO" not in drawn or "\n" not in drawn.partition("INFO")[2]:
            drawn += _read_terminal(ours)
    os.close(ours)
    assert "work on [x]" in drawn
    assert "\x1b[2KINFO: a message with [brackets]\r\n" in drawn


def _read_terminal(master: int) -> str:
    """What a pseudo-terminal hands on next: a part of what was written, however short."""
    ready, _, _ = select.select([master], [], [], 10)
    assert ready, "the terminal shows nothing more"
    return os.read(master, 65536).decode(errors="replace")
