# SPDX-License-Identifier: Apache-2.0
"""The device's end of ``--on ssh://…``: what a host starts there, talks to and takes away again.

Only the standard library is needed. The packager's ``trtpack.remote`` is the other end.
"""
