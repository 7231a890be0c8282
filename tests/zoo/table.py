# SPDX-License-Identifier: Apache-2.0
"""The zoo's results as lines for a terminal and as a page of the documentation."""

from __future__ import annotations

from .verdict import (
    MIN_COSINE,
    MODES,
    Found,
    Results,
    bars,
    conversion,
    is_whole,
    layers_per_operator,
    of_mode,
    tried,
    verdict,
    was_built,
)

WHY_NOT_EXPORTABLE = {
    "hf_Longformer": "its forward asks whether any token is attended globally, a Python `if`",
    "vision_maskrcnn": "torchvision's batched_nms chooses its way by how many boxes are left",
}


def line(key: str, found: Found) -> str:
    """One model for a terminal."""
    name, _, mode = key.rpartition("/")
    seconds = found["seconds"]
    convert = seconds.get("lower", 0) + seconds.get("convert", 0)
    figures = [
        f"{found.get('operators', 0):>5} operators",
        f"{found.get('layers', 0):>5} layers",
        f"{found.get('tensorrt', 0)}+{found.get('torch', 0)} segments",
        f"rel {found.get('rel_l2', float('nan')):.1e}",
        f"cos {found.get('cosine', float('nan')):.5f}",
        f"export {seconds.get('export', 0):5.1f} s",
        f"convert {convert:5.1f} s",
        f"build {seconds.get('build', 0):5.1f} s",
        f"{found.get('engine_mb', 0):6.1f} MB",
    ]
    return "  ".join([f"{name:<32}", f"{mode:<7}", *figures, verdict(found, mode)])


def text(results: Results) -> str:
    """The totals for a terminal."""
    export, decompose, ours = conversion(results)
    return "\n".join(
        [
            *(f"{'ok  ' if b.holds else 'FAIL'}  {b.text}: {b.found}" for b in bars(results)),
            f"layers per operator before decomposition, median: {layers_per_operator(results):.2f}",
            f"seconds: export {export:.1f}, decompose {decompose:.1f}, lower to convert {ours:.1f}",
        ]
    )


def cells(results: Results) -> list[list[str]]:
    """The table of the page, the head first; one row a model."""
    head = ["model", "static", "dynamic", "float16", "operators", "layers", "per operator"]
    head += ["rel. L2", "dynamic rel. L2", "float16 cosine", "export s", "convert s", "build s"]
    head += ["engine MB"]
    rows = [head]
    modes = {mode: of_mode(results, mode) for mode in MODES}
    for name in sorted({key.rpartition("/")[0] for key in results}):
        static, dynamic, half = (modes[mode].get(name, {}) for mode in modes)
        seconds = static.get("seconds", {})
        rows.append(
            [
                name,
                *(_short(modes[mode].get(name), mode) for mode in modes),
                _number(static, "operators", "d"),
                _number(static, "layers", "d"),
                f"{static['layers'] / static['operators']:.2f}" if "layers" in static else "",
                _number(static, "rel_l2", ".1e"),
                _number(dynamic, "rel_l2", ".1e"),
                _number(half, "cosine", ".5f"),
                _number(seconds, "export", ".1f"),
                f"{seconds['lower'] + seconds['convert']:.1f}" if "convert" in seconds else "",
                _number(seconds, "build", ".1f"),
                _number(static, "engine_mb", ".1f"),
            ]
        )
    return rows


def markdown(results: Results) -> str:
    """The page of the documentation."""
    table = cells(results)
    rows = [f"| {' | '.join(row)} |" for row in (table[0], ["---"] * len(table[0]), *table[1:])]
    found = [f"| {b.text} | {b.found} | {'yes' if b.holds else 'no'} |" for b in bars(results)]
    export, decompose, ours = conversion(results)
    return "\n".join(
        [
            "# The zoo: real architectures, converted whole",
            "",
            "Written by `scripts/zoo --write`; run without it, the command prints the same and",
            "writes nothing, and `scripts/zoo resnet18 --dynamic` tries one model in one mode.",
            "",
            "Every model of `tests/zoo`, livened, for the target rtx-4090 (TensorRT-RTX 1.7).",
            "A model is *whole* where it becomes one TensorRT segment with nothing left in PyTorch;",
            "*parts* counts TensorRT and PyTorch segments where it does not. Engines are built by",
            "the real TensorRT-RTX, which needs no GPU; numbers are the network evaluator's beside",
            "the eager model's in float32, the worst of all outputs. A dynamic batch is built for",
            "1 to 16 and evaluated at two sizes that were not the example's. Operators are those of",
            "the graph as exported, before decomposition; layers are all but constants. *convert*",
            "is lowering, partitioning and converting together.",
            "",
            "| demand | found | holds |",
            "| --- | --- | --- |",
            *found,
            "",
            f"Layers per operator, median over the models: {layers_per_operator(results):.2f}.",
            f"Seconds over all models, static: torch.export {export:.1f}, its decompositions",
            f"{decompose:.1f}, lower + partition + convert {ours:.1f}.",
            "",
            *rows,
            "",
            "## Exceptions",
            "",
            *_exceptions(results),
            *_missing(results),
            "",
        ]
    )


def _exceptions(results: Results) -> list[str]:
    said = []
    for key, found in sorted(results.items()):
        name, _, mode = key.rpartition("/")
        reason = found.get("not_exportable")
        if reason:
            why = f"; {WHY_NOT_EXPORTABLE[name]}" if name in WHY_NOT_EXPORTABLE else ""
            cannot = "eager PyTorch or torch.export cannot take it"
            said.append(f"- {name}, {mode}: {cannot}: {_code(reason)}{why}.")
        elif tried(found) and verdict(found, mode) != "ok":
            said.append(f"- {name}, {mode}: {_code(verdict(found, mode))}.")
        elif found.get("cosine", 1.0) < MIN_COSINE and mode == "float16":
            said.append(
                f"- {name}, float16: the model is not made for float16: eager PyTorch's cosine "
                f"with float32 is {found['own_cosine']:.5f}, the network's {found['cosine']:.5f}."
            )
    return said or ["None."]


def _missing(results: Results) -> list[str]:
    names = {key.rpartition("/")[0] for key in results}
    lines = []
    for mode in MODES:
        left = sorted(names - set(of_mode(results, mode)))
        if left:
            lines.append(f"- Not tried yet, {mode}: {', '.join(left)}.")
    return lines


def _code(reason: str) -> str:
    return f"`{reason.replace('`', '')[:300]}`"


def _short(found: Found | None, mode: str) -> str:
    if found is None:
        return ""
    if not tried(found):
        return "not exportable" if found.get("not_exportable") else "no batch"
    said = verdict(found, mode)
    if said == "ok":
        return "whole" if was_built(found) else "whole, not built"
    parts = "whole" if is_whole(found) else f"{found.get('tensorrt')}+{found.get('torch')} parts"
    return said.partition(":")[0] if "tensorrt" not in found else f"{parts}, {said.split(':')[0]}"


def _number(found: Found, key: str, form: str) -> str:
    return format(found[key], form) if key in found else ""
