# SPDX-License-Identifier: Apache-2.0
"""The verbs that the host package adds to the ``trtpack`` command."""
