# SPDX-License-Identifier: Apache-2.0
"""Building, measuring and running on a device over SSH: ``--on ssh://user@host``.

The system's own OpenSSH logs in. It starts Python there with the runtime's wheel, which is the
other end (``trtpack_runtime.remote``): one process in one temporary folder, gone with the
connection.
"""
