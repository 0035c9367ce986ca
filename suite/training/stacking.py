"""Many trainings of one architecture as one stacked model, each with its own rate, momentum, seed and place in time.

A small network leaves most of a machine idle; K of them side by side need hardly more operators than one. Every
member keeps its own `Training`: its parameters and the optimiser's moments become views into tensors (K, ...), so
that evaluating, saving and restoring it are what they always are, and it may leave or enter at any step.
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

from suite.hardware.memory import make_room, ran_out
from suite.models.heads import Head
from suite.spec import Recipe
from suite.training import cuda_graphs
from suite.training.evaluation import at_least_float32
from suite.training.loop import run_step
from suite.training.state import Step, Training

EPSILON = 1e-8  # of AdamW, as torch.optim has it


def architecture(model: nn.Module) -> str | None:
    """Equal for models that can be stacked; None where K copies cannot be trained as one.

    Batch norm changes its statistics as it trains and dropout draws from the one global generator, so neither would
    come out as it does alone.
    """
    alone = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return None if any(isinstance(m, alone) for m in model.modules()) else repr(model)


def alike(step: Step) -> Hashable:
    """Equal for the steps of trainings that one stack can hold; None where it has to be taken alone."""
    training, inputs = step.training, step.source.inputs
    made_of = architecture(training.model)
    if made_of is None or training.dtype == torch.float16:
        return None
    trained = tuple(name for name, p in training.model.named_parameters() if p.requires_grad)
    recipe = step.recipe.model_copy(update={"lr": 1.0, "momentum": 0.0, "epochs": 1, "schedule": "constant"})
    return made_of, trained, recipe.model_dump_json(), inputs.shape[1:], training.device, training.dtype


class TooLarge(MemoryError):
    """The stack ran out of memory before anything of its step was applied: its members are as they were."""


@contextmanager
def _nothing_applied() -> Iterator[None]:
    """Running out of memory in here spoils no figure, whatever else fails does not get another chance."""
    try:
        yield
    except Exception as error:
        if ran_out(error):
            raise TooLarge(str(error)) from None
        raise


@dataclass
class Stack:
    """K trainings as one model. `members` are in the order of the stacked tensors' first dimension.

    Raises TooLarge, which leaves every member able to go on alone or in another stack.
    """

    members: list[Training]
    graphed: bool = True  # whether to record graphs, each of which keeps the memory that a step takes for itself

    def __post_init__(self) -> None:
        fresh = [member for member in self.members if not any(member.optimizer.state.values())]
        try:
            with _nothing_applied():
                self._gather()
        except TooLarge:
            for member in fresh:
                member.optimizer.state.clear()  # zeros for some parameters: an optimiser wants all or none
            raise
        self.recorded: dict[tuple[bool, int], cuda_graphs.Recorded] = {}  # by whether all see one batch, and its size

    # --- gathering what the members are made of, and pointing them at it ---

    def _gather(self) -> None:
        first = self.members[0]
        for member in self.members:
            member.recorded = None  # of the time alone: it knows where the parameters were
        self.net = first.model
        self.device = first.device
        self.names = [name for name, p in first.model.named_parameters() if p.requires_grad]
        self.fixed = {name: p.detach() for name, p in first.model.named_parameters() if not p.requires_grad}
        self.buffers, self.buffers_at = self._gather_buffers()
        self.losses = torch.stack([m.loss_sum for m in self.members])
        for i, member in enumerate(self.members):
            member.loss_sum = self.losses[i]
        kind = {"device": self.device, "dtype": dict(self.net.named_parameters())[self.names[0]].dtype}
        self.rates = torch.zeros(len(self.members), **kind)
        self.momenta = torch.tensor([self._momentum(m) for m in self.members], **kind)
        # Steps of AdamW so far, (K, parameters): each parameter counts for itself, as it does alone.
        self.counts = torch.tensor([[self._count(m)] * len(self.names) for m in self.members], **kind)
        self.parameters: dict[str, Tensor] = {}
        self.moments: dict[str, dict[str, Tensor]] = {key: {} for key in self._moment_keys()}
        for j, name in enumerate(self.names):
            self._gather_parameter(j, name)

    @property
    def _adaptive(self) -> bool:
        return isinstance(self.members[0].optimizer, torch.optim.AdamW)

    def _moment_keys(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq") if self._adaptive else ("momentum_buffer",)

    def _momentum(self, member: Training) -> float:
        group = member.optimizer.param_groups[0]
        return float(group["betas"][0] if self._adaptive else group["momentum"])

    @staticmethod
    def _count(member: Training) -> float:
        return next((float(s["step"]) for s in member.optimizer.state.values() if "step" in s), 0.0)

    def _gather_parameter(self, number: int, name: str) -> None:
        """A parameter with all that its optimiser keeps: a fused one wants them to lie in memory alike, so that where
        memory runs out either all of them have moved or none."""
        own = [dict(m.model.named_parameters())[name] for m in self.members]
        states = [m.optimizer.state.get(p, {}) for m, p in zip(self.members, own, strict=True)]
        stacked = torch.stack([p.detach() for p in own]).contiguous()
        zero = torch.zeros_like(stacked[0])
        for key, found in self.moments.items():
            values = [zero if s.get(key) is None else s[key] for s in states]
            found[name] = torch.stack(values).contiguous()
        for i, (member, p) in enumerate(zip(self.members, own, strict=True)):
            p.data = stacked[i]
            p.grad = None
            member.optimizer.state[p].update({key: found[name][i] for key, found in self.moments.items()})
            if self._adaptive:
                member.optimizer.state[p]["step"] = self.counts[i, number]
        self.parameters[name] = stacked.requires_grad_()

    def _gather_buffers(self) -> tuple[dict[str, Tensor], int | None]:
        """Stacked, and the dimension that vmap takes apart: None where they are the same for all, as a rule."""
        first = dict(self.net.named_buffers())
        everyone = [dict(m.model.named_buffers()) for m in self.members]
        if all(torch.equal(first[name], own[name]) for own in everyone for name in first):
            return first, None
        return {name: torch.stack([own[name] for own in everyone]) for name in first}, 0

    # --- one step of all ---

    def take(self, steps: Sequence[Step]) -> None:
        """Carry out one step of every member; `steps` are in the members' order."""
        recipe = steps[0].recipe
        with _nothing_applied():
            inputs, labels, shared = self._batches(steps)
            self.rates.copy_(torch.tensor([step.rate for step in steps]))

        def work(x: Tensor, y: Tensor) -> Tensor:
            with _nothing_applied():
                losses, gradients = self._learn(x, y, shared, recipe)
                scratch = self._scratch(recipe)
            # The moment: from here on the members change, and a failure leaves them half changed. That it be no lack
            # of memory, nothing of their size is asked for any more.
            self._update(gradients, scratch, recipe)
            return losses

        key = (shared, labels.shape[-1])
        if self.graphed and key not in self.recorded and cuda_graphs.usable(self.device, self.members[0].dtype):
            with _nothing_applied():  # recording puts back what it tries out
                self.recorded[key] = cuda_graphs.record(work, (inputs, labels), self._changed, must_fit=True)
        self.losses += self.recorded.get(key, work)(inputs, labels)
        for member in self.members:
            member.losses += 1
            if recipe.ema and member.ema is not None:
                member.ema.update_parameters(member.model)

    def _changed(self) -> list[Tensor]:
        moments = [tensor for group in self.moments.values() for tensor in group.values()]
        return [*(p.detach() for p in self.parameters.values()), *moments, self.counts]

    @staticmethod
    def _batches(steps: Sequence[Step]) -> tuple[Tensor, Tensor, bool]:
        """Inputs (K, B, ...) and labels (K, B); without the K where all see the same batch."""
        made: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        keys = [(id(step.source.inputs), step.seed) for step in steps]  # the seed names the run and its step
        for key, step in zip(keys, steps, strict=True):
            if key not in made:
                made[key] = step.batch()
        if len(made) == 1:
            return *made[keys[0]], True
        inputs, labels = zip(*(made[key] for key in keys), strict=True)
        return torch.stack(inputs), torch.stack(labels), False

    def _learn(self, inputs: Tensor, labels: Tensor, shared: bool, recipe: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
        """Every member's mean loss (K,), and the gradients of its parameters."""
        dtype, count = self.members[0].dtype, len(self.members)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            if isinstance(self.net, Head) and self.buffers_at is None:
                logits = self._heads(self.net, inputs)
            else:
                logits = self._any(inputs, shared)
        flat = at_least_float32(logits).flatten(0, 1)
        each = F.cross_entropy(
            flat, labels.expand(count, -1).flatten(), label_smoothing=recipe.label_smoothing, reduction="none"
        )
        losses = each.view(count, -1).mean(1)
        found = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        gradients = dict(zip(self.names, found, strict=True))
        if recipe.clip_norm:
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in found]).norm(dim=0)
            scale = (recipe.clip_norm / (norms + 1e-6)).clamp(max=1.0)
            gradients = {name: g * _along(scale, g) for name, g in gradients.items()}
        return losses.detach(), gradients

    def _scratch(self, recipe: Recipe) -> Tensor | None:
        """What an update works in, one parameter after another. Not the gradients: two of them may be one tensor."""
        if not (self._adaptive or recipe.nesterov or recipe.weight_decay):
            return None
        return torch.empty_like(max(self.parameters.values(), key=Tensor.numel)).detach().flatten()

    @torch.no_grad()
    def _update(self, gradients: dict[str, Tensor], scratch: Tensor | None, recipe: Recipe) -> None:
        self.counts += 1
        for name, gradient in gradients.items():
            decay = recipe.weight_decay if gradient.ndim > 2 else 0.0  # one more dimension than alone
            room = gradient if scratch is None else scratch[: gradient.numel()].view(gradient.shape)
            if self._adaptive:
                self._adamw(name, gradient, room, decay, recipe.beta2)
            else:
                self._sgd(name, gradient, room, decay, recipe.nesterov)

    def _any(self, inputs: Tensor, shared: bool) -> Tensor:
        """Scores (K, B, classes) of any model."""

        def answer(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.net, (parameters | self.fixed, buffers), (x,))

        where = None if shared else 0
        return vmap(answer, in_dims=(0, self.buffers_at, where))(self.parameters, self.buffers, inputs)

    def _heads(self, head: Head, inputs: Tensor) -> Tensor:
        """Scores (K, B, classes) of heads. The first layer of all is one product, where vmap would make K narrow ones:
        measured at five times the speed for 32 linear heads on 1,280 features."""
        x = head.standardize(inputs)
        for number, layer in enumerate(head.body):
            if not isinstance(layer, nn.Linear):
                x = layer(x)
                continue
            weight, bias = (self.parameters[f"body.{number}.{part}"] for part in ("weight", "bias"))
            if x.ndim == 2:
                x = F.linear(x, weight.flatten(0, 1)).view(len(x), *bias.shape).transpose(0, 1) + bias[:, None]
            else:
                x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        return x

    def _sgd(self, name: str, gradient: Tensor, room: Tensor, decay: float, nesterov: bool) -> None:
        parameter, velocity = self.parameters[name], self.moments["momentum_buffer"][name]
        rate, momentum = _along(self.rates, gradient), _along(self.momenta, gradient)
        if decay:
            gradient = torch.add(gradient, parameter, alpha=decay, out=room)
        velocity.mul_(momentum).add_(gradient)
        change = torch.addcmul(gradient, momentum, velocity, out=room) if nesterov else velocity
        parameter.addcmul_(rate, change, value=-1)

    def _adamw(self, name: str, gradient: Tensor, room: Tensor, decay: float, beta2: float) -> None:
        """Loshchilov and Hutter, 2019 (arXiv:1711.05101)."""
        parameter = self.parameters[name]
        mean, square = self.moments["exp_avg"][name], self.moments["exp_avg_sq"][name]
        rate, beta1, count = (_along(v, gradient) for v in (self.rates, self.momenta, self.counts[:, 0]))
        if decay:
            parameter.mul_(1 - rate * decay)
        mean.lerp_(gradient, (1 - beta1).expand_as(gradient))
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = torch.div(square, 1 - beta2**count, out=room).sqrt_().add_(EPSILON)
        parameter.addcmul_(rate / (1 - beta1**count), torch.div(mean, scale, out=room), value=-1)


def _apart(members: list[Training]) -> None:
    """Give each memory of its own again, one tensor of all after another: so what they shared is free in between. Where
    that runs out of memory, what was moved has moved, and nothing else is kept."""
    for name, first in members[0].model.named_parameters():
        if not first.requires_grad:
            continue
        own = [m.model.get_parameter(name) for m in members]
        states = [m.optimizer.state.get(p, {}) for m, p in zip(members, own, strict=True)]
        for p, value in zip(own, [p.detach().clone() for p in own], strict=True):
            p.data = value
        for key in {key for state in states for key in state}:
            having = [state for state in states if isinstance(state.get(key), Tensor)]
            for state, value in zip(having, [state[key].clone() for state in having], strict=True):
                state[key] = value


def _along(values: Tensor, like: Tensor) -> Tensor:
    """(K,) so that it multiplies (K, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


class Population:
    """Takes the steps of many trainings, those alike as one stack. Stacks are made anew as members come and go.

    Where memory is too short for a stack, smaller ones take the same steps, down to trainings by themselves. They do
    without graphs, which would need as much memory as the one stack did; what fills the memory is not slow to launch.
    """

    def __init__(self, everywhere: bool) -> None:
        self.everywhere = everywhere  # also where it does not pay: convolutions on a CPU
        self._kinds: WeakKeyDictionary[Training, Hashable] = WeakKeyDictionary()
        self._stacks: list[Stack] = []
        self._fit: dict[Hashable, int] = {}  # the most of a kind to stack, of those kinds that ran out of memory

    def kind(self, step: Step) -> Hashable:
        """What it can be stacked with; None where it has to run by itself, nothing else drawing random numbers."""
        training = step.training
        if training not in self._kinds:
            self._kinds[training] = alike(step) if self.everywhere or _pays(training) else None
        return self._kinds[training]

    def take(self, steps: Sequence[Step]) -> dict[Training, Exception]:
        """Carry out one step of each training; each learns its share of the time that took.

        Returns the trainings that failed, with why: their step may be half applied, so that they must not go on.
        """
        failures: dict[Training, Exception] = {}
        groups: dict[tuple[Hashable, int], list[Step]] = {}
        present = {step.training for step in steps}
        for step in steps:
            kind = self.kind(step)
            groups.setdefault((id(step) if kind is None else kind, len(step.rows)), []).append(step)
        for (kind, _), group in groups.items():
            begin = time.perf_counter()
            while group:
                part = group[: self._fit.get(kind, len(group))]
                members = [step.training for step in part]
                failure = self._try(part, members, present, short=kind in self._fit)
                if isinstance(failure, TooLarge):
                    self._fit[kind] = len(part) // 2
                    self._part(members, kind)
                    continue
                if failure is not None:
                    failures |= dict.fromkeys(members, failure)
                for step in part:
                    step.seconds = (time.perf_counter() - begin) / len(part)
                group, begin = group[len(part) :], time.perf_counter()
        return failures

    def _try(self, steps: list[Step], members: list[Training], present: set[Training], short: bool) -> Exception | None:
        try:
            if len(steps) == 1:
                self._forget(members)
                run_step(steps[0], graphed=not short)
                if short:
                    members[0].optimizer.zero_grad()  # its gradients would stay while the others have their turn
            else:
                self._stack(members, present, short).take(steps)
            if members[0].device.type == "cuda":
                torch.cuda.synchronize(members[0].device)  # so that the share is of the work, not of its launch
        except Exception as error:
            if ran_out(error):  # what was computed hangs on the frames that the error remembers
                error.__traceback__ = error.__context__ = None
            return error
        return None

    def _stack(self, members: list[Training], present: set[Training], short: bool) -> Stack:
        stack = next((s for s in self._stacks if s.members == members), None)
        if stack is None:
            self._forget(members)
            self._stacks = [s for s in self._stacks if present & set(s.members)]  # the others have ended, or pause
            stack = Stack(members, graphed=not short)
            self._stacks.append(stack)
        return stack

    def _forget(self, members: list[Training]) -> None:
        """Drop the stacks that these are in: from now on they live elsewhere."""
        self._stacks = [s for s in self._stacks if not set(members) & set(s.members)]

    def _part(self, members: list[Training], kind: Hashable) -> None:
        """Drop all stacks of a kind with what they hold, these members' memory included."""
        self._stacks = [s for s in self._stacks if self._kinds[s.members[0]] != kind]
        make_room()
        with suppress(MemoryError, RuntimeError):  # without room for that they share memory until they are stacked anew
            _apart(members)
        make_room()


def _pays(training: Training) -> bool:
    """On a CPU, K convolutions side by side are no faster than one after another; K linear layers are one product."""
    convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in training.model.modules())
    return training.device.type == "cuda" or not convolves
