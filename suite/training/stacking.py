"""Train many models of one architecture as one stacked model.

A small network leaves most of a machine idle; K of them side by side need hardly more operators than one. Each member
of a stack has its own learning rate, momentum, seed, frozen weights and position in its schedule. A member's
parameters and optimiser state become views of tensors (K, ...), so that it is evaluated, saved and restored like any
other training, and can leave or join between any two steps.

The models run as one through torch.func (https://docs.pytorch.org/tutorials/intermediate/ensembling.html).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from suite.hardware.device import synchronize
from suite.hardware.memory import make_room, ran_out
from suite.models.heads import Head
from suite.spec import Recipe
from suite.training import cuda_graphs
from suite.training.loop import run_step
from suite.training.stacked_optimizer import StackedOptimizer, per_member, unstack
from suite.training.state import Step, Training
from suite.training.targets import Batch, image_losses


def stack_key(step: Step) -> Hashable:
    """A key that is equal for the steps of trainings that one stack can hold; None if this one cannot be stacked.

    Not stacked are float16, whose loss scaling is decided per training on the host, trainings with a teacher, and
    architectures that would not train as they do alone: batch norm updates its statistics in place, and dropout draws
    from the global generator.
    """
    training, inputs = step.training, step.source.inputs
    unsuitable = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    if (
        training.dtype == torch.float16
        or training.teacher is not None
        or any(isinstance(m, unsuitable) for m in training.model.modules())
    ):
        return None
    trained = tuple(name for name, p in training.model.named_parameters() if p.requires_grad)
    # These four may differ between the members of a stack: they only decide each step's rate and momentum.
    recipe = step.recipe.model_copy(update={"lr": 1.0, "momentum": 0.0, "epochs": 1, "schedule": "constant"})
    architecture = repr(training.model)
    return architecture, trained, recipe.model_dump_json(), inputs.shape[1:], training.device, training.dtype


class StackOutOfMemory(MemoryError):
    """The stack ran out of memory before any parameter of this step was updated; its members are unchanged."""


@contextmanager
def _recoverable() -> Iterator[None]:
    """Turn running out of memory into StackOutOfMemory. For code that has not updated any parameter yet."""
    try:
        yield
    except Exception as error:
        if ran_out(error):
            raise StackOutOfMemory(str(error)) from None
        raise


class Stack:
    """K trainings as one model; `members` are in the order of the stacked tensors' first dimension.

    With `graphed` the step is recorded as a CUDA graph where that is possible; a graph keeps the memory that one step
    needs to itself. Construction and `step` raise StackOutOfMemory, after which every member can go on alone or in
    another stack.
    """

    def __init__(self, members: list[Training], graphed: bool = True) -> None:
        self.members, self.graphed = members, graphed
        self.model, self.device, self.dtype = members[0].model, members[0].device, members[0].dtype
        self.graphs: dict[tuple[bool, int], cuda_graphs.Recorded] = {}  # by whether all share a batch, and batch size
        for member in members:
            member.recorded = None  # a graph of the member alone refers to the old addresses of its parameters
        with _recoverable():
            self.constants, self.constant_dims = _stack_constants([member.model for member in members])
            self.loss_sums = torch.stack([member.loss_sum for member in members])  # (K,)
            for i, member in enumerate(members):
                member.loss_sum = self.loss_sums[i]
            trained = [name for name, p in self.model.named_parameters() if p.requires_grad]
            self.optimizer = StackedOptimizer(members, trained)

    def step(self, steps: Sequence[Step]) -> None:
        """Carry out one optimiser step of every member; `steps` are in the members' order."""
        recipe = steps[0].recipe
        with _recoverable():
            batch, shared = _batches(steps)
            self.optimizer.learning_rates.copy_(torch.tensor([step.rate for step in steps]))

        def learn(*batch: Tensor) -> Tensor:
            with _recoverable():
                losses = self._losses(batch, shared, recipe)
                gradients = self._gradients(losses, recipe)
                workspace = self.optimizer.workspace(recipe)
            # Point of no return: parameters are updated in place from here on, so no large allocation may follow.
            self.optimizer.step(gradients, workspace, recipe)
            return losses.detach()

        self.loss_sums += self._graph(learn, batch, shared)(*batch)
        for member in self.members:
            member.losses += 1
            if recipe.ema and member.ema is not None:
                member.ema.update_parameters(member.model)

    def _graph(self, learn: cuda_graphs.Work, batch: Batch, shared: bool) -> cuda_graphs.Work:
        """`learn` as a CUDA graph for batches of this form, recorded when first used; without graphs `learn` itself."""
        key = (shared, batch[1].shape[-1])
        if self.graphed and key not in self.graphs and cuda_graphs.usable(self.device, self.dtype):
            with _recoverable():  # `record` restores what its trial runs change
                self.graphs[key] = cuda_graphs.record(learn, batch, self.optimizer.updated_tensors, must_fit=True)
        return self.graphs.get(key, learn)

    def _losses(self, batch: Batch, shared: bool, recipe: Recipe) -> Tensor:
        """Each member's mean loss (K,) on its batch, or on the one batch that all have if `shared`."""
        inputs, *targets = batch
        count = len(self.members)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if isinstance(self.model, Head) and not any(dim == 0 for dim in self.constant_dims.values()):
                scores = self._head_scores(self.model, inputs)
            else:
                scores = self._scores(inputs, shared)
        if shared:
            targets = [part.expand(count, *part.shape) for part in targets]
        each = image_losses(scores.flatten(0, 1), tuple(part.flatten(0, 1) for part in targets), recipe.label_smoothing)
        return each.view(count, -1).mean(1)

    def _scores(self, inputs: Tensor, shared: bool) -> Tensor:
        """Class scores (K, B, classes) of any architecture, by vmap over the members."""

        def member_scores(parameters: dict[str, Tensor], constants: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.model, parameters | constants, (x,))

        dims = (0, self.constant_dims, None if shared else 0)
        return vmap(member_scores, in_dims=dims)(self.optimizer.parameters, self.constants, inputs)

    def _head_scores(self, head: Head, inputs: Tensor) -> Tensor:
        """Class scores (K, B, classes) of heads with equal standardisation.

        On a shared batch the first layers of all members are one matrix product, where vmap would run K narrow ones:
        measured at five times the speed for 32 linear heads on 1,280 features.
        """
        x = head.standardize(inputs)
        for index, layer in enumerate(head.body):
            if not isinstance(layer, nn.Linear):
                x = layer(x)
                continue
            weight, bias = (self.optimizer.parameters[f"body.{index}.{part}"] for part in ("weight", "bias"))
            if x.ndim == 2:
                x = F.linear(x, weight.flatten(0, 1)).view(len(x), *bias.shape).transpose(0, 1) + bias[:, None]
            else:
                x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        return x

    def _gradients(self, losses: Tensor, recipe: Recipe) -> dict[str, Tensor]:
        """Gradients (K, ...) of every member's parameters, each member's clipped to its own norm."""
        parameters = self.optimizer.parameters
        gradients = dict(zip(parameters, torch.autograd.grad(losses.sum(), list(parameters.values())), strict=True))
        if recipe.clip_norm:
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            scale = (recipe.clip_norm / (norms + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            gradients = {name: g * per_member(scale, g) for name, g in gradients.items()}
        return gradients


def _stack_constants(models: Sequence[nn.Module]) -> tuple[dict[str, Tensor], dict[str, int | None]]:
    """Frozen parameters and buffers of `models` by name, and the dimension of each that vmap maps over.

    A tensor that is equal in all models is kept once, with dimension None: its convolutions and products then serve
    all members at once. One that differs is stacked to (K, ...), with dimension 0.
    """
    each = [
        {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad} | dict(model.named_buffers())
        for model in models
    ]
    constants: dict[str, Tensor] = {}
    dims: dict[str, int | None] = {}
    for name, first in each[0].items():
        equal = all(torch.equal(first, own[name]) for own in each[1:])
        constants[name] = first if equal else torch.stack([own[name] for own in each])
        dims[name] = None if equal else 0
    return constants, dims


def _batches(steps: Sequence[Step]) -> tuple[Batch, bool]:
    """The members' batches, stacked to tensors (K, B, ...), and False; or the one batch that all share, and True."""
    made: dict[tuple[int, int], Batch] = {}
    keys = [(id(step.source.inputs), step.seed) for step in steps]  # the seed is unique to a run's seed and step
    for key, step in zip(keys, steps, strict=True):
        if key not in made:
            made[key] = step.batch()
    if len(made) == 1:
        return made[keys[0]], True
    return tuple(torch.stack(parts) for parts in zip(*(made[key] for key in keys), strict=True)), False


@dataclass
class _Group:
    """Steps of one batch size that one stack could take; `key` is None for a step that runs alone."""

    key: Hashable
    steps: list[Step]


class Population:
    """Advances many trainings at once, stacking those that can be stacked.

    Stacks are rebuilt as members come and go. If a stack does not fit into memory, smaller ones take the same steps,
    down to single trainings. These do without CUDA graphs, each of which would need as much memory as the one large
    stack; a step large enough to fill the memory gains little from a graph.

    `everywhere`: stack also where it is not expected to be faster, which is convolutions on a CPU.
    """

    def __init__(self, everywhere: bool) -> None:
        self.everywhere = everywhere
        self._keys: WeakKeyDictionary[Training, Hashable] = WeakKeyDictionary()
        self._stacks: list[Stack] = []
        self._limits: dict[Hashable, int] = {}  # largest stack that is tried, for keys that ran out of memory

    def kind(self, step: Step) -> Hashable:
        """The `stack_key` of a step; None if it has to run alone.

        While a training with key None runs, nothing else may draw from the global random generators.
        """
        training = step.training
        if training not in self._keys:
            worthwhile = self.everywhere or _is_faster_stacked(training)
            self._keys[training] = stack_key(step) if worthwhile else None
        return self._keys[training]

    def run_steps(self, steps: Sequence[Step]) -> dict[Training, Exception]:
        """Carry out one step of each training, and set each step's `seconds` to its share of the time.

        Returns the trainings that failed, with their errors. Their step may be half applied, so they must not go on.
        """
        failures: dict[Training, Exception] = {}
        present = {step.training for step in steps}
        for group in self._groups(steps):
            left = group.steps
            begin = time.perf_counter()
            while left:
                part = left[: self._limits.get(group.key, len(left))]
                members = [step.training for step in part]
                failure = self._try(part, present, graphed=group.key not in self._limits)
                if isinstance(failure, StackOutOfMemory):
                    self._limits[group.key] = len(part) // 2
                    self._dissolve(members, group.key)
                    continue
                if failure is not None:
                    failures |= dict.fromkeys(members, failure)
                for step in part:
                    step.seconds = (time.perf_counter() - begin) / len(part)
                left, begin = left[len(part) :], time.perf_counter()
        return failures

    def _groups(self, steps: Sequence[Step]) -> list[_Group]:
        groups: dict[Hashable, _Group] = {}
        for step in steps:
            key = self.kind(step)
            together = (key, len(step.rows)) if key is not None else id(step)
            groups.setdefault(together, _Group(key, [])).steps.append(step)
        return list(groups.values())

    def _try(self, steps: list[Step], present: set[Training], graphed: bool) -> Exception | None:
        """Carry out `steps`, one alone or several as a stack. Returns the error instead of raising it."""
        members = [step.training for step in steps]
        try:
            if len(steps) == 1:
                self._drop_stacks_of(members)
                run_step(steps[0], graphed=graphed)
                if not graphed:
                    members[0].optimizer.zero_grad()  # memory is short: free the gradients before the next training
            else:
                self._stack(members, present, graphed).step(steps)
            synchronize(members[0].device)  # so that the time covers the work, not only its launch
        except Exception as error:
            if ran_out(error):  # the traceback's frames hold the tensors that filled the memory
                error.__traceback__ = error.__context__ = None
            return error
        return None

    def _stack(self, members: list[Training], present: set[Training], graphed: bool) -> Stack:
        """The existing stack of exactly these members, or a new one. Drops stacks without any training in `present`."""
        stack = next((s for s in self._stacks if s.members == members), None)
        if stack is None:
            self._drop_stacks_of(members)
            self._stacks = [s for s in self._stacks if present & set(s.members)]
            stack = Stack(members, graphed)
            self._stacks.append(stack)
        return stack

    def _drop_stacks_of(self, members: list[Training]) -> None:
        """Drop the stacks that contain any of `members`, whose tensors are about to move."""
        self._stacks = [s for s in self._stacks if not set(members) & set(s.members)]

    def _dissolve(self, members: list[Training], key: Hashable) -> None:
        """Free the memory of all stacks with `key`, and give `members` memory of their own again."""
        self._stacks = [s for s in self._stacks if self._keys[s.members[0]] != key]
        make_room()
        with suppress(MemoryError, RuntimeError):  # without memory for copies they stay views until stacked again
            unstack(members)
        make_room()


def _is_faster_stacked(training: Training) -> bool:
    """Whether stacking pays: on a GPU always; on a CPU only without convolutions.

    On a CPU, K convolutions side by side are no faster than one after another; K linear layers are one product.
    """
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in training.model.modules())
    return training.device.type == "cuda" or not convolves
