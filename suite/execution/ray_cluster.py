"""Trials on a Ray cluster: one actor for each slot, each running trials one after another.

Every call to an actor returns the trial's next event, so a verdict goes out with the following call. A node that sees
the results directory writes there as a local worker does; for one that does not, see `ray_files`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

from suite.errors import InputError, WorkError
from suite.execution.job import Job, Limits, Message
from suite.execution.ray_connection import cause_of_death, connect, disconnect, missing_module, patience, reach
from suite.execution.ray_files import Mirror, files_for_node, weights_files
from suite.execution.ray_node import Actor, Node, Report
from suite.execution.slot import Slot, State, TimeLimit, free, slot_of
from suite.spec import Verdict
from suite.store.files import write_atomic
from suite.store.provenance import version


class _ActorSlot(Slot):
    """An actor, and the attempt that runs in it."""

    def __init__(self, actor: Any, call: Any) -> None:
        super().__init__()
        self.actor = actor
        self.call = call  # reference to the call under way, or None
        self.node: Node | None = None  # None until Ray has placed the actor
        self.mirror: Mirror | None = None  # where the node does not see the results directory
        self.weights: set[Path] = set()  # files that the node has been given


class Cluster:
    """An executor on the Ray cluster of RAY_ADDRESS, or on one started on this machine for the time."""

    def __init__(self, workers: int, limits: Limits, device: str, results: Path) -> None:
        """`workers`: trials at once; 0: one for each GPU, or for each node where there are none or `device` is 'cpu'.

        Raises InputError where there is no such cluster, or it lacks the resources.
        """
        self.limits, self.results = limits, results
        self._patience = patience()
        self._slots: list[_ActorSlot] = []
        self._placed = 0  # actors that Ray has placed
        self._content = secrets.token_hex(16)
        self._probe = results / f".shared-{self._content[:8]}"  # nodes that can read it see the results directory
        self._ray: Any = connect()
        try:
            self.slots, self.threads, gpu = self._shares(workers, device)
            write_atomic(self._probe, self._content)
        except BaseException:
            self.close()
            raise
        self._kind = self._ray.remote(num_cpus=self.threads, num_gpus=gpu, max_restarts=0)(Actor)
        self._time_limit = TimeLimit(limits.seconds)
        self._tried = self._answered = time.monotonic()  # when the cluster's head was asked, and last answered
        self._head = self._ray.get_runtime_context().gcs_address

    def _shares(self, workers: int, device: str) -> tuple[int, int, float]:
        """Trials at once, and the CPUs and the share of a GPU for each. Raises InputError."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes) if device != "cpu" else 0
        if device == "cuda" and not gpus:
            raise InputError("--device cuda: no node of the Ray cluster has a GPU to give; `ray status` lists them.")
        slots = workers or gpus or len(nodes)
        threads = threads_for(cpus, slots)
        if not threads:
            raise InputError(f"--workers {slots}: the Ray cluster has {sum(cpus)} CPUs, and every trial needs one.")
        return slots, threads, min(1.0, gpus / slots)

    def free(self) -> int:
        return free(self._slots, self.slots)

    def submit(self, job: Job) -> None:
        slot = next((slot for slot in self._slots if slot.state is State.IDLE), None)
        if slot is None:
            actor = self._kind.remote(self.limits)
            slot = _ActorSlot(actor, actor.look.remote(str(self._probe), self._content))
            self._slots.append(slot)
        slot.begin(job)
        self._send_job(slot)

    def _send_job(self, slot: _ActorSlot) -> None:
        """Begin the slot's attempt if its actor has been placed."""
        job = slot.job
        if slot.node is None or job is None:
            return
        given = None
        if not slot.node.shares:
            slot.mirror = Mirror(job)
            weights = weights_files(job)
            given = files_for_node(job, weights - slot.weights)
            slot.weights |= weights
        slot.call = slot.actor.begin.remote(job, given)

    def poll(self, timeout: float) -> list[Message]:
        self._check_head()
        messages = self._stop_overdue()
        if messages:
            timeout = 0.0
        for slot in self._slots:
            if slot.state is State.RUNNING and slot.call is None:
                slot.call = slot.actor.go_on.remote(slot.verdict)
        calls = {slot.call: slot for slot in self._slots if slot.call is not None}
        if not calls:
            time.sleep(timeout)
            return messages
        done, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        if not done:
            done, _ = self._ray.wait(list(calls), num_returns=1, timeout=timeout)
        for reference in done:
            slot = calls[reference]
            slot.call = None
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                messages += self._lost(slot, error)
                continue
            if isinstance(result, Node):
                self._accept(slot, result)
            else:
                messages.append(self._receive(slot, result))
        return messages

    def _lost(self, slot: _ActorSlot, error: Exception) -> list[Message]:
        """Raises WorkError where a node lacks this package, and where no actor could ever be placed."""
        if slot.node is None and (missing := missing_module(error)) is not None:
            host = self._host(missing.address)
            what = "mnist-suite" if missing.module == "suite" else f"{missing.module}, which mnist-suite needs"
            raise WorkError(f"{host} has no {what}: install it there. All nodes need the same version, {version()}.")
        if not self._placed:
            raise WorkError(
                f"No worker starts on the Ray cluster ({cause_of_death(error)}). If it asks nobody for a token, start "
                "it anew with RAY_AUTH_MODE=token on all nodes, or set RAY_AUTH_MODE=disabled here where nobody else "
                "reaches it."
            )
        self._slots.remove(slot)
        where = f" on {slot.node.host}" if slot.node else ""
        reason = f"its worker{where}: {cause_of_death(error)}"
        return [] if slot.state is State.IDLE else [slot.lose(reason)]

    def _host(self, address: str) -> str:
        """The name of the node at an IP address; the address itself where no node has it."""
        nodes = self._ray.nodes()
        return next((node["NodeManagerHostname"] for node in nodes if node["NodeManagerAddress"] == address), address)

    def _accept(self, slot: _ActorSlot, node: Node) -> None:
        """An actor has been placed: begin its attempt. Raises WorkError where the node has another version."""
        if node.version != version():
            raise WorkError(
                f"{node.host} has mnist-suite {node.version}, and this is {version()}: install the same version on "
                "all nodes"
            )
        self._placed += 1
        slot.node = node
        self._send_job(slot)

    def _receive(self, slot: _ActorSlot, report: Report) -> Message:
        """Raises WorkError where the disk fails there, OSError where it fails here."""
        if report.fault is not None:
            raise WorkError(report.fault)
        if slot.mirror is not None:
            slot.mirror.write(report.files)
        if not report.usable:
            self._kill(slot)
        return slot.receive(report.event)

    def _check_head(self) -> None:
        """Raises WorkError where the cluster's head has been silent for too long."""
        now = time.monotonic()
        if now - self._tried < self._patience / 4:
            return
        self._tried = now
        try:
            reach(self._head)
        except InputError:
            if now - self._answered > self._patience:
                raise WorkError(
                    f"The Ray cluster at {self._head} has gone. No trial is lost: go on with --resume, there or "
                    "with another --engine."
                ) from None
        else:
            self._answered = now

    def _stop_overdue(self) -> list[Message]:
        """Kill the actors whose attempt has used up its time; waiting to be placed does not count."""
        messages: list[Message] = []
        for slot in self._time_limit.exceeded([slot for slot in self._slots if slot.node]):
            self._kill(slot)
            messages.append(slot.lose(self._time_limit.reason, again=False))
        return messages

    def _kill(self, slot: _ActorSlot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        if (slot := slot_of(self._slots, trial_id)) is not None:
            slot.reply(verdict)

    def close(self) -> None:
        ray, self._ray = self._ray, None
        if ray is None:
            return
        self._slots.clear()
        with contextlib.suppress(OSError):
            self._probe.unlink()
        disconnect(ray, self._patience / 4)


def threads_for(cpus: list[int], workers: int) -> int:
    """The most CPUs that each worker can have if all of them are to be placed; 0 where they cannot be.

    `cpus`: CPUs of each node; a worker takes all of its CPUs from one node.
    """
    return next((n for n in range(max(cpus, default=0), 0, -1) if sum(c // n for c in cpus) >= workers), 0)
