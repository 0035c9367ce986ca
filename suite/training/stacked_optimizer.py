"""The optimiser of a stack: SGD and AdamW for K trainings at once.

The update rules are those of torch.optim.SGD and torch.optim.AdamW. They are written out here because torch.optim has
one learning rate and one momentum per parameter group, whereas the K members of a stack, which are slices of one
tensor, have one each: hyperparameters are tensors (K,) that broadcast over parameters (K, ...).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from suite.spec import Recipe
from suite.training.state import Training

EPSILON = 1e-8  # of AdamW, the default of torch.optim.AdamW


class StackedOptimizer:
    """The trained parameters of K members with their optimiser state, each as one tensor (K, ...).

    Construction copies both into the stacked tensors and makes the members' own parameters and state views of them,
    so that a member is evaluated, saved and restored as if it were trained alone. `names` are the parameters that are
    trained, the same in all members. If construction runs out of memory, every member can go on alone.
    """

    def __init__(self, members: Sequence[Training], names: Sequence[str]) -> None:
        self.adaptive = isinstance(members[0].optimizer, torch.optim.AdamW)
        self.parameters: dict[str, Tensor] = {}
        keys = ("exp_avg", "exp_avg_sq") if self.adaptive else ("momentum_buffer",)
        self.moments: dict[str, dict[str, Tensor]] = {key: {} for key in keys}  # by state key, then by parameter
        first = members[0].model.get_parameter(names[0])
        like = {"device": first.device, "dtype": first.dtype}
        self.learning_rates = torch.zeros(len(members), **like)  # (K,), set before each step
        scales = {id(p): group["scale"] for group in members[0].optimizer.param_groups for p in group["params"]}
        self.scales = {name: scales[id(members[0].model.get_parameter(name))] for name in names}
        self.momenta = torch.tensor([self._momentum(member) for member in members], **like)
        # AdamW's step count, (K, parameters). Each member has one per parameter, as torch.optim keeps it. Its fused
        # kernel for GPUs reads the count as float32, whatever the parameters are.
        counts = [[_step_count(member)] * len(names) for member in members]
        self.counts = torch.tensor(counts, device=first.device, dtype=torch.float32)
        without_state = [member for member in members if not any(member.optimizer.state.values())]
        try:
            for index, name in enumerate(names):
                self._stack_parameter(members, index, name)
        except Exception:
            for member in without_state:
                member.optimizer.state.clear()  # torch.optim expects state for all parameters or for none
            raise

    def _momentum(self, member: Training) -> float:
        group = member.optimizer.param_groups[0]
        return float(group["betas"][0] if self.adaptive else group["momentum"])

    def _stack_parameter(self, members: Sequence[Training], index: int, name: str) -> None:
        """Stack one parameter together with its optimiser state.

        All new tensors are allocated before any member is changed: fused optimisers need a parameter and its state in
        the same memory layout, so when memory runs out either both have moved or neither.
        """
        own = [member.model.get_parameter(name) for member in members]
        states = [member.optimizer.state.get(p, {}) for member, p in zip(members, own, strict=True)]
        stacked = torch.stack([p.detach() for p in own]).contiguous()
        zero = torch.zeros_like(stacked[0])
        for key, moments in self.moments.items():
            values = [zero if state.get(key) is None else state[key] for state in states]
            moments[name] = torch.stack(values).contiguous()
        for i, (member, p) in enumerate(zip(members, own, strict=True)):
            p.data = stacked[i]
            p.grad = None
            member.optimizer.state[p].update({key: moments[name][i] for key, moments in self.moments.items()})
            if self.adaptive:
                member.optimizer.state[p]["step"] = self.counts[i, index]
        self.parameters[name] = stacked.requires_grad_()

    def updated_tensors(self) -> list[Tensor]:
        """Every tensor that `step` changes in place."""
        moments = [tensor for by_name in self.moments.values() for tensor in by_name.values()]
        return [*(p.detach() for p in self.parameters.values()), *moments, self.counts]

    def workspace(self, recipe: Recipe) -> Tensor | None:
        """Memory for the intermediate results of `step`, sized for the largest parameter; None if it needs none.

        The gradients cannot serve as workspace: autograd may return one tensor for two parameters.
        """
        if not (self.adaptive or recipe.nesterov or recipe.weight_decay):
            return None
        return torch.empty_like(max(self.parameters.values(), key=Tensor.numel)).detach().flatten()

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor], workspace: Tensor | None, recipe: Recipe) -> None:
        """Update all parameters in place from `gradients` (K, ...), allocating nothing of a parameter's size."""
        self.counts += 1
        for name, gradient in gradients.items():
            # As in make_optimizer, biases and norms are not decayed: parameters of one dimension, here two with K.
            decay = recipe.weight_decay if gradient.ndim > 2 else 0.0
            out = gradient if workspace is None else workspace[: gradient.numel()].view(gradient.shape)
            if self.adaptive:
                self._adamw(name, gradient, out, decay, recipe.beta2)
            else:
                self._sgd(name, gradient, out, decay, recipe.nesterov)

    def _sgd(self, name: str, gradient: Tensor, out: Tensor, decay: float, nesterov: bool) -> None:
        """SGD with momentum as in torch.optim.SGD (Sutskever et al., 2013, proceedings.mlr.press/v28/sutskever13)."""
        parameter, velocity = self.parameters[name], self.moments["momentum_buffer"][name]
        rates = self.learning_rates * self.scales[name]
        rate, momentum = per_member(rates, gradient), per_member(self.momenta, gradient)
        if decay:
            gradient = torch.add(gradient, parameter, alpha=decay, out=out)
        velocity.mul_(momentum).add_(gradient)
        update = torch.addcmul(gradient, momentum, velocity, out=out) if nesterov else velocity
        parameter.addcmul_(rate, update, value=-1)

    def _adamw(self, name: str, gradient: Tensor, out: Tensor, decay: float, beta2: float) -> None:
        """AdamW as in torch.optim.AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""
        parameter = self.parameters[name]
        mean, square = self.moments["exp_avg"][name], self.moments["exp_avg_sq"][name]
        rate, beta1, count = (
            per_member(values, gradient)
            for values in (self.learning_rates * self.scales[name], self.momenta, self.counts[:, 0].to(gradient.dtype))
        )
        if decay:
            parameter.mul_(1 - rate * decay)
        mean.lerp_(gradient, (1 - beta1).expand_as(gradient))
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = torch.div(square, 1 - beta2**count, out=out).sqrt_().add_(EPSILON)
        parameter.addcmul_(rate / (1 - beta1**count), torch.div(mean, scale, out=out), value=-1)


def unstack(members: Sequence[Training]) -> None:
    """Give every member memory of its own again.

    Works through one parameter or state tensor at a time, so that the memory of each stacked tensor is free before the
    next is copied. When that runs out of memory, the tensors already copied stay copied and the others stay views.
    """
    for name, first in members[0].model.named_parameters():
        if not first.requires_grad:
            continue
        own = [member.model.get_parameter(name) for member in members]
        states = [member.optimizer.state.get(p, {}) for member, p in zip(members, own, strict=True)]
        for p, value in zip(own, [p.detach().clone() for p in own], strict=True):
            p.data = value
        for key in {key for state in states for key in state}:
            having = [state for state in states if isinstance(state.get(key), Tensor)]
            for state, value in zip(having, [state[key].clone() for state in having], strict=True):
                state[key] = value


def per_member(values: Tensor, like: Tensor) -> Tensor:
    """Reshape `values` (K,) to (K, 1, ..., 1), to broadcast over `like` (K, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _step_count(member: Training) -> float:
    return next((float(state["step"]) for state in member.optimizer.state.values() if "step" in state), 0.0)
