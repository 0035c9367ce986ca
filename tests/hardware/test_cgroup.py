"""Limits of control groups, read from fake roots, and from a real group where one may be made."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.hardware import autotune, cgroup, device, memory
from suite.hardware.activations import MEASUREMENT_BYTES
from suite.hardware.cgroup import cpu_quota, memory_limit

V2 = "36 35 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
CPU = "33 32 0:30 {} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "34 32 0:31 {} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
OTHERS = ["22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw", "23 22 0:21 / /proc rw - proc proc rw"]


def fake(root: Path, groups: list[str], mounts: list[str], files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": "\n".join(groups) + "\n",
        "proc/self/mountinfo": "\n".join([*OTHERS, *mounts]) + "\n",
        **{f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "cpus", "limit"),
    [
        pytest.param(["0::/"], [V2], {}, None, None, id="v2 without limits: the root has no such files"),
        pytest.param(["0::/"], [V2], {"cpu.max": "50000 100000", "memory.max": "1048576"}, 0.5, 2**20, id="container"),
        pytest.param(
            ["0::/a.slice/b.scope"],
            [V2],
            {
                "a.slice/cpu.max": "150000 100000",
                "a.slice/memory.max": "4096",
                "a.slice/b.scope/cpu.max": "max 100000",
                "a.slice/b.scope/memory.max": "max",
            },
            1.5,
            4096,
            id="v2: a limit of the parent",
        ),
        pytest.param(
            ["0::/a/b"],
            [V2],
            {"a/cpu.max": "400000 100000", "a/b/cpu.max": "200000 100000", "a/memory.max": "1", "a/b/memory.max": "9"},
            2.0,
            1,
            id="v2: the smallest on the path",
        ),
        pytest.param(
            ["4:memory:/docker/1", "3:cpu,cpuacct:/docker/1", "1:name=systemd:/docker/1", "0::/"],
            [CPU.format("/docker/1"), MEMORY.format("/docker/1")],
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "512",
            },
            2.5,
            512,
            id="v1 in a container: the group is what is mounted",
        ),
        pytest.param(
            ["4:memory:/job/step", "3:cpu,cpuacct:/job"],
            [CPU.format("/"), MEMORY.format("/")],
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/job/memory.limit_in_bytes": "1024",
                "memory/job/step/memory.limit_in_bytes": "2048",
            },
            None,
            1024,
            id="v1: -1 is no limit",
        ),
        pytest.param(
            ["4:memory:/job", "0::/job"],
            [MEMORY.format("/"), V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified", 1)],
            {"memory/job/memory.limit_in_bytes": "77", "unified/job/cpu.max": "100000 50000"},
            2.0,
            77,
            id="both versions",
        ),
        pytest.param(["0::/../../other"], [V2], {"cpu.max": "10000 100000"}, 0.1, None, id="a group outside the mount"),
        pytest.param(["0::/a"], [V2], {"a/cpu.max": "many", "a/memory.max": ""}, None, None, id="files of nonsense"),
        pytest.param(
            ["0::/a"],
            [V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/with\\040blank", 1)],
            {"with blank/a/cpu.max": "300000 100000"},
            3.0,
            None,
            id="a mount point with a blank",
        ),
    ],
)
def test_the_smallest_limit_on_the_path_counts(
    tmp_path: Path, groups: list[str], mounts: list[str], files: dict[str, str], cpus: float | None, limit: int | None
) -> None:
    root = fake(tmp_path, groups, mounts, files)
    assert cpu_quota(root) == cpus
    assert memory_limit(root) == limit


def test_a_system_without_cgroups_has_no_limits(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None and memory_limit(tmp_path) is None


@given(st.floats(0.01, 1000), st.integers(1, 2**40))
def test_cores_and_memory_in_use_keep_to_the_limits(cpus: float, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr("suite.hardware.cores.cpu_quota", lambda: None)
        unlimited = device.cores()
        patch.setattr("suite.hardware.cores.cpu_quota", lambda: cpus)
        assert 1 <= device.cores() < cpus + 1
        assert device.cores() == unlimited or device.cores() >= cpus
        patch.setattr(memory, "memory_limit", lambda: limit)
        assert memory.usable_bytes() <= limit
        assert memory.bounded(MEASUREMENT_BYTES) <= min(MEASUREMENT_BYTES, limit / memory.SHARE)


def test_a_measurement_keeps_to_the_memory_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is little, a step is measured on fewer inputs than on a whole machine."""
    import torch

    from suite.hardware.budget import result
    from suite.models import backbones

    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path))
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(autotune, "_step_seconds", lambda *_: 1e-4)
    model = backbones.build("net", classes=10, channels=1, size=28, seed=0)
    batches = []
    for limit in (2**40, 16 << 20):
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        result(autotune.precision("auto", torch.device("cpu"), model, (1, 28, 28), f"with {limit}", 10**6))
        batches += [found.batch for found in autotune.findings() if found.what == f"with {limit}"]
    assert autotune.LEAST_BATCH <= batches[1] < batches[0] == autotune.BATCH


@pytest.fixture
def group() -> Iterator[Path]:
    """A real group of version 1 or 2 with a quota of half a core."""
    for parent, files in (
        (Path("/sys/fs/cgroup"), {"cpu.max": "50000 100000"}),
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_quota_us": "50000"}),
    ):
        made = parent / f"mnist-suite-test-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            if all((made / name).exists() for name in files):
                for name, text in files.items():
                    (made / name).write_text(text)
                yield made
                return
        except OSError:
            continue
        finally:
            with contextlib.suppress(OSError):
                made.rmdir()
    pytest.skip("no group with a CPU quota may be made here")


def test_a_real_quota_of_half_a_core_leaves_one_thread(group: Path) -> None:
    code = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "from suite.hardware.cgroup import cpu_quota; print(cpu_quota())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(group / "cgroup.procs")], capture_output=True, text=True
    )
    assert done.stdout == f"{min(0.5, cgroup.cpu_quota() or 1)}\n", done.stderr
