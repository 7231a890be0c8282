# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/container_steps`` does: a Dockerfile's steps in roots made by debootstrap."""
