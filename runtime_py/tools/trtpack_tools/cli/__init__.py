# SPDX-License-Identifier: Apache-2.0
"""The verbs that this distribution adds to ``trtpack``."""
