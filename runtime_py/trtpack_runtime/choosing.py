# SPDX-License-Identifier: Apache-2.0
"""Which variant of a bundle this machine is to run, with the engines it has or can build itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .bundle import Bundle
from .finish import Stores
from .own_engines import own_engines
from .resolve import Choice, check_requirements, choose, resolve, untrusted_members


def chosen(
    bundle: Bundle,
    here: Mapping[str, Any],
    stores: Stores,
    *,
    target: str | None = None,
    strict: bool = False,
    trust: bool = False,
    build: bool = True,
) -> Choice:
    """The variant that fits the machine of the facts ``here`` best; arguments as ``load``'s.

    Raises:
        BundleError: an operator that is missing, or (strict) no variant fits.
        ConfigError: no such variant.
    """
    check_requirements(bundle.manifest, here, sys.modules)
    untrusted = () if trust else untrusted_members(bundle)
    own = own_engines(bundle, here, stores.engines, untrusted, build=build)
    candidates = resolve(bundle.manifest, here, untrusted, own)
    return choose(bundle.manifest, candidates, here, target=target, strict=strict)
