# SPDX-License-Identifier: Apache-2.0
"""Matrices on a real farm: scheduler and workers in processes of their own, some of them killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from trtpack_runtime.bundle import open_bundle

from .cluster import NAMES, Farm, Running, write_matrix

psutil = pytest.importorskip("psutil")  # it comes with Dask
Client = pytest.importorskip("distributed").Client
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rtx")]

TARGETS = """
[targets.cpu]
build = { engine = "reference" }
[targets.rtx-4090]
[targets.rtx-5090]
[targets.orin]
"""


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx")


def build(farm: Farm, *words: str) -> Running:
    return farm.run(
        *("build", "--matrix", "matrix.toml", "-o", "out", "--jobs", "2", "--farm", farm.address),
        *words,
    )


def report_of(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "out" / "report.json").read_bytes())
    return made


def builds_an_engine(worker: Running) -> Any:
    """The process in which a worker has TensorRT build."""
    for child in psutil.Process(worker.process.pid).children(recursive=True):
        try:
            if "trtpack_runtime.worker" in child.cmdline():
                return child
        except psutil.Error:
            continue
    return None


def kill_one_that_builds(farm: Farm, running: Running) -> tuple[str, Any]:
    """Kills the first worker that is seen within a build."""
    while True:
        name = re.findall(r"builds on (w\d)", running.until("builds on "))[0]
        for _ in range(100):
            child = builds_an_engine(farm.workers[name])
            if child is not None:
                farm.workers[name].process.send_signal(signal.SIGKILL)
                return name, child
            time.sleep(0.02)


def test_24_cells_on_three_workers_one_of_which_is_killed(farm: Farm, tmp_path: Path) -> None:
    for name in ("w1", "w2", "w3"):
        farm.add(name)
    write_matrix(tmp_path, TARGETS)
    first = build(farm, "--no-worker", "defer", "--farm-timeout", "1")
    killed, child = kill_one_that_builds(farm, first)
    assert first.process.wait(600) == 0, first.seen
    report = report_of(tmp_path)
    assert report["totals"] == {
        "built": 24,
        "engines_built": 12,
        "engines_cached": 0,
        "engines_deferred": 6,
    }
    begun_again = [cell for cell in report["cells"] if cell["tries"] > 1]
    assert len(begun_again) >= 1
    assert all(e["worker"] != killed for cell in begun_again for e in cell["engines"])
    by_farm = {e["worker"] for cell in report["cells"] for e in cell["engines"]}
    assert by_farm - {"here"} >= {"w1", "w2", "w3"} - {killed}
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    for cell in report["cells"]:
        bundle = open_bundle(tmp_path / cell["bundle"])
        bundle.verify()
        (variant,) = bundle.manifest.variants.values()
        built = [ref.member is not None for ref in variant.engines.values()]
        assert built == {"cpu": [], "orin": [False]}.get(cell["target"], [True])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["report.json", *(cell["cell"] for cell in report["cells"])]
    )
    assert len({cell["model"] for cell in report["cells"]}) == len(NAMES) == 6

    second = build(farm, "--no-worker", "defer", "--farm-timeout", "1")
    assert second.process.wait(600) == 0, second.seen
    again = report_of(tmp_path)
    assert again["totals"] == report["totals"] | {"engines_built": 0, "engines_cached": 12}
    assert not any("builds on" in line for line in second.seen)
    assert second.process.stdout is not None
    assert "engines: 12 from the cache, 6 left to devices" in second.process.stdout.read()


def test_a_worker_has_its_own_cache_and_answers_from_it(farm: Farm, tmp_path: Path) -> None:
    farm.add("w1")
    write_matrix(tmp_path, "[targets.rtx-4090]\n", ["mlp"])
    for cache, cached in (("host", False), ("other", True)):
        words = ("build", "--matrix", "matrix.toml", "-o", "out", "--farm", farm.address)
        running = farm.run(*words, cache=cache)
        assert running.process.wait(600) == 0, running.seen
        (engine,) = report_of(tmp_path)["cells"][0]["engines"]
        assert (engine["worker"], engine["cached"]) == ("w1", cached)
    with Client(farm.address, set_as_default=False) as client:
        names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert "mlp @ rtx\u20114090" in names
    with urllib.request.urlopen(farm.dashboard, timeout=30) as page:
        assert page.status == 200


def test_certificates_keep_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl for a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=farm"]
    subprocess.run([*made, "-keyout", key, "-out", cert], check=True, capture_output=True)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    write_matrix(tmp_path, "[targets.rtx-4090]\n", ["mlp"])
    with monkeypatch.context() as patch:
        patch.setenv(f"{tls}CA_FILE", str(cert))
        for role in ("SCHEDULER", "WORKER", "CLIENT"):
            patch.setenv(f"{tls}{role}__CERT", str(cert))
            patch.setenv(f"{tls}{role}__KEY", str(key))
        farm = Farm(tmp_path, "tls")
        try:
            farm.add("w1")
            running = build(farm)
            assert running.process.wait(600) == 0, running.seen
            assert report_of(tmp_path)["cells"][0]["engines"][0]["worker"] == "w1"
            patch.undo()
            stranger = build(farm)
            assert stranger.process.wait(300) == 2
            assert any("no scheduler answers at tls://" in line for line in stranger.seen)
        finally:
            farm.end()


def test_when_every_worker_dies_this_host_builds_what_it_can(farm: Farm, tmp_path: Path) -> None:
    farm.add("w1")
    write_matrix(tmp_path, "[targets.rtx-4090]\n", ["mlp", "conv"])
    running = build(farm)
    kill_one_that_builds(farm, running)
    assert running.process.wait(600) == 0, running.seen
    cells = report_of(tmp_path)["cells"]
    assert [engine["worker"] for cell in cells for engine in cell["engines"]] == ["here", "here"]
    assert any("it is built here" in line for line in running.seen)


def test_when_the_scheduler_dies_this_host_builds_what_it_can(farm: Farm, tmp_path: Path) -> None:
    farm.add("w1")
    write_matrix(tmp_path, "[targets.rtx-4090]\n[targets.orin]\n", ["mlp"])
    running = build(farm, "--farm-timeout", "300")
    running.until("mlp-orin: no worker of the farm has orin")
    farm.scheduler.process.kill()
    assert running.process.wait(600) == 4, running.seen
    rtx, orin = report_of(tmp_path)["cells"]
    assert rtx["state"] == "built"
    assert orin["reason"] == f"the scheduler at {farm.address} went away"


def test_ctrl_c_leaves_whole_bundles_and_nothing_else(farm: Farm, tmp_path: Path) -> None:
    farm.add("w1")
    write_matrix(tmp_path, TARGETS)
    running = build(farm, "--farm-timeout", "300")
    running.until("[1/24]")
    children = psutil.Process(running.process.pid).children(recursive=True)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 130, running.seen
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive
    told = "of 24 cells are done; finished bundles are kept in out"
    assert any(told in line for line in running.seen), running.seen
    assert not any("Traceback" in line for line in running.seen), running.seen
    left = list((tmp_path / "out").iterdir())
    assert left
    for place in left:
        assert sorted(p.name for p in place.iterdir()) == ["build.json", "bundle.tar"]
        open_bundle(place / "bundle.tar").verify()
