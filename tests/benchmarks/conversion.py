#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long lower + partition + convert take beside ``torch.export``, over the zoo.

python tests/benchmarks/conversion.py [MODEL...]

Seconds are of the processor, so that what else the machine does hardly counts; one model is
converted first and forgotten, so that neither side pays for imports. Decompositions belong to
neither side and are told apart. Exits 1 where ours take longer in all.
"""

from __future__ import annotations

import gc
import itertools
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 the path is set above

from tests.zoo import MODELS  # noqa: E402
from trtpack.capture import capture  # noqa: E402
from trtpack.lowering import lower  # noqa: E402
from trtpack.options import Options  # noqa: E402
from trtpack.planning import plan  # noqa: E402
from trtpack.target import find_target  # noqa: E402

TARGET = "rtx-4090"
WARM_UP = "alexnet"
NOT_EXPORTABLE = frozenset({"vision_maskrcnn"})


def main() -> None:
    """Prints each model's seconds, and the sums."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    names = sys.argv[1:] or [name for name in MODELS if name not in NOT_EXPORTABLE]
    seconds_of(WARM_UP)
    total: Counter[str] = Counter()
    for name in names:
        seconds = seconds_of(name)
        total.update(seconds)
        print(f"{_text(seconds)}  {name}", flush=True)
        gc.collect()
    ours = total["lower"] + total["convert"]
    print(f"{_text(total)}  all {len(names)} models")
    print(f"lower + partition + convert: {ours:.1f} s, {ours / total['export']:.2f} of export")
    sys.exit(ours > total["export"])


def seconds_of(name: str) -> Counter[str]:
    """Processor seconds of each stage; ``convert`` holds partitioning."""
    model, args, _ = MODELS[name]()
    target = find_target(TARGET)
    marks = [time.process_time()]
    with torch.no_grad():
        exported = torch.export.export(model, args, strict=False)
    marks.append(time.process_time())
    captured = capture(exported, args)
    marks.append(time.process_time())
    lowered = lower(captured)
    marks.append(time.process_time())
    plan(lowered, target, Options((target.name,)))
    marks.append(time.process_time())
    stages = ("export", "decompose", "lower", "convert")
    taken = [after - before for before, after in itertools.pairwise(marks)]
    return Counter(dict(zip(stages, taken, strict=True)))


def _text(seconds: Counter[str]) -> str:
    return "  ".join(f"{stage} {value:6.2f} s" for stage, value in seconds.items())


if __name__ == "__main__":
    main()
