"""Out of memory on a GPU: the trial fails with its reason, and the next one in the same process is healthy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from suite.store.study import StudyDir

LEFT = 1536 * 2**20  # bytes that this test leaves free: room for the context and a small trial

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


@pytest.fixture
def crowded() -> object:
    """Nearly all of the GPU's memory, taken."""
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - LEFT), dtype=torch.uint8, device="cuda")
    yield taken
    del taken
    torch.cuda.empty_cache()


def test_out_of_gpu_memory_fails_one_trial_and_the_next_is_healthy(
    start, experiment: Path, crowded: torch.Tensor, tmp_path: Path, figures, faults
) -> None:
    greedy = tmp_path / "greedy.py"
    text = experiment.read_text().replace('"adam": Arm(backbone="net"', '"adam": Arm(backbone="net", size=1024')
    greedy.write_text(text.replace("values=(16, 32)", "values=(128, 256)").replace("batch_size=32", "batch_size=128"))
    run = start("sweep", greedy, "--trials", 4, "--device", "cuda", "--results", tmp_path)
    assert run.wait() == 0, run.errors
    figures.fault("out of GPU memory")
    directory = StudyDir(tmp_path, "small")
    states = directory.states()
    assert [s.state == "failed" for s in states] == [s.trial.arm == "adam" for s in states]
    assert all((s.reason or "").startswith("out of memory") for s in states if s.state == "failed")
    assert all(s.trial.recipe.batch_size == s.trial.params["batch_size"] for s in states)  # nothing was made smaller
    assert faults.pids(directory) == {run.pid}  # one process ran them all, one after another
    faults.check_promise(directory, figures, 4)
