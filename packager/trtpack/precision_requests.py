# SPDX-License-Identifier: Apache-2.0
"""What a build asks of its operators' types: from its options, the model and its data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from trtpack_runtime.store_folder import default_home

from .accuracy.budgets import budgets_of
from .accuracy.metric import Held, check_metric, load_metric
from .calibration.data import calibration_data, check_calibration_data
from .calibration.request import Quantization, Sample
from .capture import Captured
from .errors import ConfigError
from .golden import tensors_of
from .options import ObserverName, Options
from .output_names import output_names
from .precision.names import check_types
from .precision.plan import QUANTIZED, WEIGHTS_ONLY, Request
from .precision.running import named_inputs
from .precision_search import KINDS, Asked, Found, search, search_key
from .report import Progress
from .report.progress import Step
from .sources import Source
from .target import Target
from .trial_log import open_log

MOST_MEASURED = 8
"""On so many samples the ranges of a model's values are measured."""


def check_data(options: Options) -> None:
    """Refuses calibration data and a metric that cannot be there.

    Raises:
        SourceError: there is no such file.
        ConfigError: a text of another form.
    """
    if options.calibrate is not None:
        check_calibration_data(options.calibrate)
    if options.metric is not None:
        check_metric(options.metric)


def choose_precisions(
    source: Source,
    captured: Captured,
    options: Options,
    targets: Sequence[Target],
    progress: Progress,
) -> tuple[dict[str, Any] | None, Options]:
    """What ``--precision auto`` tried, and the options with what it chose; None, and the options as
    they are, for any other precision."""
    if options.precision != "auto":
        return None, options
    with progress.step("search the cheapest precisions") as step:
        found = searched(source, captured, options, targets, step)
    chosen = replace(
        options,
        precision=found.precision,
        pins=(*found.pins, *options.pins),
        budgets=options.budgets or budgets_of(options, list(output_names(captured))),
    )
    return found.to_json(), chosen


def precision_request(source: Source, captured: Captured, options: Options) -> Request | None:
    """What is asked of the precisions, with inputs to measure ranges on; None for nothing."""
    if options.precision is None and not options.pins:
        return None
    calls = itertools.islice(source.samples(options.samples), MOST_MEASURED)
    samples = tuple(named_inputs(captured, tensors_of(call)) for call in calls)
    return Request(options.precision, options.pins, samples)


def searched(
    source: Source, captured: Captured, options: Options, targets: Sequence[Target], step: Step
) -> Found:
    """The cheapest precisions that keep the budget, by samples of the calibration data where there
    are any, else by the model's own."""
    budgets = budgets_of(options, list(output_names(captured)))
    held = None
    if options.metric is not None:
        bounds = tuple(budget for budget in options.budgets if budget.figure == "metric")
        held = Held(load_metric(options.metric, source.module), options.max_drop, bounds)
    plan = Asked(budgets, options.pins, options.prune is not None, held)
    if options.calibrate is None:
        calls = itertools.islice(source.samples(options.samples), MOST_MEASURED)
        data: list[Sample] = [named_inputs(captured, tensors_of(call)) for call in calls]
    else:
        metadata = {**source.metadata, **options.metadata}
        read = calibration_data(options.calibrate, captured, metadata, options.calibration_samples)
        data = list(read)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        kinds = list(_kinds(options, targets, data, Path(folder)))
        log = None
        if options.cache and not options.dry_run:
            of = search_key(captured, data, plan, targets, kinds)
            with suppress(ConfigError, OSError):  # another process has it: search all the same
                log = stack.enter_context(open_log(_log_file(of), {"search": of}))
        return search(captured, data, plan, targets, kinds, step.detail, log)


def _kinds(
    options: Options, targets: Sequence[Target], data: Sequence[Sample], folder: Path
) -> Iterator[Quantization]:
    """The kinds of few bits that all targets have and that there is data for."""
    for dtype, name in KINDS:
        if name != "int4" and options.calibrate is None:
            continue
        if name != "int8" and not all(target.sm is not None for target in targets):
            continue  # a CPU only simulates them
        asked = replace(
            options,
            precision=name,
            calibrate=None,
            calibration_cache=None,
            calibrate_on="cpu",
            observer=None,
        )
        try:
            check_types(asked, targets)
        except ConfigError:
            continue
        observer = options.observer or ("entropy" if dtype == "INT8" else "minmax")
        if dtype == "FP8" and observer == "entropy":
            observer = "minmax"
        kept = options.calibration_cache if dtype == "INT8" else None
        cache = None if dtype == "INT4" else kept or folder / f"{name}.json"
        device = torch.device(options.calibrate_on)
        block = options.weight_block
        yield Quantization(dtype, observer, lambda: data, cache, block=block, device=device)


def _log_file(key: str) -> Path:
    folder = default_home() / "searches"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key[:32]}.jsonl"


def quantization_request(
    source: Source, captured: Captured, options: Options, step: Step
) -> Quantization | None:
    """Which numbers of few bits are asked for, with the data for their scales; None for none."""
    dtype = QUANTIZED.get(options.precision or "")
    if dtype is None:
        return None

    def samples() -> Iterator[Sample]:
        text, count = options.calibrate or "", options.calibration_samples
        step.detail("read calibration data")
        metadata = {**source.metadata, **options.metadata}
        read = calibration_data(text, captured, metadata, count)
        for number, sample in enumerate(read, 1):
            step.update(number, len(read), f"calibrate with sample {number} of {len(read)}")
            yield sample

    usual: ObserverName = "entropy" if dtype == "INT8" else "minmax"
    return Quantization(
        dtype,
        options.observer or usual,
        samples,
        options.calibration_cache,
        options.pins,
        options.weight_block,
        stored=options.precision in WEIGHTS_ONLY,
        device=torch.device(options.calibrate_on),
    )
