# SPDX-License-Identifier: Apache-2.0
"""Facts of other machines: what is missing or wrong is told, older ones are read, newer refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.runtime.machines import MACHINES, install
from trtpack_runtime import device
from trtpack_runtime.cli.resolve import resolve
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.facts_file import facts_from, read_facts

FLEET = Path(__file__).parents[1] / "fixtures/bundles/1-first.tar"
DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "device-facts.md"
ORIN: dict[str, Any] = {
    "schema": "trtpack.facts/1",
    "os": "linux",
    "arch": "aarch64",
    "torch": "2.6.0",
    "cpu": {"flags": ["asimd"]},
    "gpus": [{"index": 0, "name": "Orin", "sm": "8.7", "memory_bytes": 1 << 36}],
}


def written(folder: Path, value: Any) -> Path:
    path = folder / "facts.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("name", MACHINES)
def test_what_doctor_writes_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(name, tmp_path, monkeypatch)
    facts = device.look(tmp_path).to_json()
    assert read_facts(written(tmp_path, facts)) == json.loads(json.dumps(facts))


def test_facts_of_an_older_runtime_are_read(tmp_path: Path) -> None:
    older = {k: v for k, v in ORIN.items() if k != "schema"}
    found = read_facts(written(tmp_path, older))
    assert (found["torch"], found["tensorrt"], found["problems"]) == ("2.6.0", None, [])


def test_facts_of_a_newer_runtime_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {**ORIN, "schema": "trtpack.facts/2"})
    with pytest.raises(ConfigError, match=r"form trtpack\.facts/2, this runtime reads") as caught:
        read_facts(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert caught.value.hint == "update trtpack-runtime on this machine"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "it is no JSON"),
        ("{", "it is no JSON"),
        ("[]", "the top wants an object, has []"),
        ("{}", "torch is missing"),
        ({**ORIN, "schema": "trtpack.bundle/1"}, "schema wants trtpack.facts/1"),
        ({**ORIN, "os": None}, "os is missing"),
        ({**ORIN, "torch": 2.6}, "torch wants a string, has 2.6"),
        ({**ORIN, "cpu": {"flags": "asimd"}}, "cpu.flags wants a list"),
        ({**ORIN, "gpus": {}}, "gpus wants a list"),
        ({**ORIN, "gpus": [{"sm": "8.7"}]}, "gpus[0].name is missing"),
        ({**ORIN, "gpus": [{"name": "Orin", "sm": 8.7}]}, "gpus[0].sm wants a string, has 8.7"),
        ({**ORIN, "gpus": [{"name": "Orin", "sm": "sm_87"}]}, "gpus[0].sm wants a compute"),
        ({**ORIN, "driver": "570"}, "driver wants an object"),
        ({**ORIN, "jetson": {"module": 3701}}, "jetson.module wants a string"),
        ({**ORIN, "problems": "none"}, "problems wants a list"),
    ],
)
def test_malformed_facts_are_told(value: Any, why: str, tmp_path: Path) -> None:
    path = written(tmp_path, value)
    with pytest.raises(ConfigError) as caught:
        read_facts(path)
    assert caught.value.message.startswith(f"{path} holds no facts of a machine: {why}")
    assert caught.value.hint == "write it with: trtpack doctor --json"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: no such file"):
        read_facts(tmp_path / "none.json")


def test_resolve_takes_those_of_a_whole_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for name in ("orin-jetpack-6.2", "desktop"):
        install(name, tmp_path / name, monkeypatch)
        files.append(tmp_path / f"{name}.json")
        facts = {**device.look(tmp_path / name).to_json(), "torch": None}
        files[-1].write_text(json.dumps(facts))
        monkeypatch.undo()

    def called(*arguments: str) -> Result:
        given = [word for file in files for word in ("--facts", str(file))]
        return CliRunner().invoke(resolve, [str(FLEET), *given, *arguments])

    orin, desktop = json.loads(called("--json").stdout)
    assert (orin["facts"], orin["chosen"], orin["error"]) == (str(files[0]), "orin", None)
    assert [v["fit"] for v in orin["variants"]] == ["builds"]
    assert desktop["chosen"] is None
    assert desktop["error"].startswith("no variant fits this machine: orin: needs an NVIDIA GPU")
    done = called()
    assert done.output.startswith(f"{files[0]}\n  ✓  orin  builds ")
    assert isinstance(done.exception, BundleError)
    assert done.exception.message.startswith(f"{files[1]}: no variant fits")


def test_every_key_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("orin-jetpack-6.2", tmp_path, monkeypatch)
    text = DOCUMENT.read_text(encoding="utf-8")
    facts = device.look(tmp_path).to_json()
    for key, value in facts.items():
        assert f"| `{key}` |" in text, key
        nested = value[0] if isinstance(value, list | tuple) and value else value
        for inner in nested if isinstance(nested, dict) else ():
            assert f"`{inner}`" in text, f"{key}.{inner}"
    assert facts_from(facts)["schema"] in text
