# SPDX-License-Identifier: Apache-2.0
"""How far a precision plan may be from the model: figures, budgets, noise, and whom to blame."""
