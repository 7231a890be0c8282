# SPDX-License-Identifier: Apache-2.0
"""``torch.compile(model, backend="trtpack")``: engines for this machine, made as a program runs."""
