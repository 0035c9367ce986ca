"""How many CPU cores this process uses. This module loads no torch."""

from __future__ import annotations

import math
import os

from suite.hardware.cgroup import cpu_quota


def cores() -> int:
    """Number of CPU cores that this process uses: `granted_cores`, or $OMP_NUM_THREADS where that is less."""
    usable = granted_cores()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(limit)) if limit.isdigit() and int(limit) > 0 else usable


def granted_cores() -> int:
    """Number of CPU cores that this process may use: by its CPU affinity, and by the CPU quota of its cgroups (such as
    a container's limit), rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(affinity, math.ceil(cpu_quota() or affinity))
