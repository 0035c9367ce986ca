"""The vocabulary: frozen, strict models of everything that crosses a seam or lies on disk.

No torch and no optuna here, so that the dashboard and `--help` stay light. Every model refuses unknown
keys and survives a JSON round trip unchanged.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

SCHEMA = 1  # of every file below results/; readers refuse a newer one

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"  # of studies, experiments and arms: one path component everywhere
Name = Annotated[str, Field(pattern=NAME)]
Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
# Bounded, since they are read from files of others and have to fit what computes with them.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Epoch = Annotated[float, Field(ge=0, lt=2**31)]  # whole, or with the part of one that a rung stands at
Moment = Annotated[float, Field(ge=0, lt=2**40)]  # seconds since 1970


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --- what one training needs beside data and model ---------------------------------------------------


class Augment(Spec):
    """Random changes of the training images, drawn anew for every image and epoch."""

    shift: float = Field(default=0.0, ge=0, le=16, description="largest translation, pixels of the native image")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest rotation, degrees")
    scale: float = Field(default=0.0, ge=0, le=0.5, description="largest relative change of size")
    erase: Unit = Field(default=0.0, description="probability of blanking a random rectangle")
    flip: bool = Field(default=False, description="mirror half of the images left to right")

    def __bool__(self) -> bool:
        return bool(self.shift or self.rotate or self.scale or self.erase or self.flip)


class Recipe(Spec):
    """How to train. The defaults are the tutorial's: SGD 0.01 with momentum 0.9, batch 64, two epochs."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = Field(default=0.01, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD momentum; beta1 of AdamW")
    nesterov: bool = False
    beta2: float = Field(default=0.999, gt=0, lt=1, description="AdamW only")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1, description="part of all steps spent warming up; onecycle: 0.3 if 0")
    epochs: int = Field(default=2, ge=1, le=10_000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    augment: Augment = Augment()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the weight average that is evaluated; 0 = off")
    clip_norm: float = Field(default=0.0, ge=0, description="largest gradient norm; 0 = off")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Recipe:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer 'sgd' and a momentum above 0")
        return self


# --- heads and strategies: one small spec each ---------------------------------------------------------


class Linear(Spec):
    kind: Literal["linear"] = "linear"


class Mlp(Spec):
    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(default=256, ge=1, le=16_384)


class Ridge(Spec):
    kind: Literal["ridge"] = "ridge"
    l2: Positive = Field(default=1.0, description="penalty per training example on standardised features")


class Logreg(Spec):
    kind: Literal["logreg"] = "logreg"
    c: Positive = Field(default=1.0, description="inverse penalty, as in scikit-learn")


class Knn(Spec):
    kind: Literal["knn"] = "knn"
    k: int = Field(default=5, ge=1, le=1000)


HeadSpec = Annotated[Linear | Mlp | Ridge | Logreg | Knn, Field(discriminator="kind")]


class Scratch(Spec):
    """Every parameter, from random weights."""

    kind: Literal["scratch"] = "scratch"


class Pretrain(Spec):
    """Like scratch, but the result is meant to be stood on by other trials."""

    kind: Literal["pretrain"] = "pretrain"


class HeadOnly(Spec):
    """A head on frozen features."""

    kind: Literal["head"] = "head"
    head: HeadSpec = Linear()


class Full(Spec):
    """Every parameter, from given weights; the classifier starts at zero."""

    kind: Literal["full"] = "full"


class LpFt(Spec):
    """A linear probe first, then every parameter (Kumar et al., 2022, arXiv:2202.10054)."""

    kind: Literal["lp-ft"] = "lp-ft"
    probe_epochs: int = Field(default=10, ge=1, le=1000)
    probe_lr: Positive = 0.05


class Partial(Spec):
    """The classifier and the last `blocks` blocks."""

    kind: Literal["partial"] = "partial"
    blocks: int = Field(default=1, ge=1, le=1000)


class NormOnly(Spec):
    """The classifier and the affine parameters of normalisation layers (Frankle et al., arXiv:2003.00152)."""

    kind: Literal["norm-only"] = "norm-only"


class Bitfit(Spec):
    """The classifier and every bias (Ben Zaken et al., 2022, arXiv:2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"


Strategy = Annotated[
    Scratch | Pretrain | HeadOnly | Full | LpFt | Partial | NormOnly | Bitfit, Field(discriminator="kind")
]
FROM_RANDOM = ("scratch", "pretrain")


# --- the search ------------------------------------------------------------------------------------------


class LogFloat(Spec):
    kind: Literal["log"] = "log"
    low: Positive
    high: Positive


class Uniform(Spec):
    kind: Literal["uniform"] = "uniform"
    low: float
    high: float


class Choice(Spec):
    kind: Literal["choice"] = "choice"
    values: tuple[bool | int | float | str, ...] = Field(min_length=1)


Range = Annotated[LogFloat | Uniform | Choice, Field(discriminator="kind")]
Space = dict[str, Range]  # keys are paths inside an arm: "lr" means "recipe.lr"; "strategy.head.k", "size", ...
Params = dict[str, bool | int | float | str]


class Pruning(Spec):
    """Successive halving on validation accuracy: at each rung the best 1/factor of the arm's trials go on."""

    first: float = Field(default=1.0, gt=0, description="epochs before the first rung; may be a part of one")
    factor: int = Field(default=3, ge=2, le=16)


class Arm(Spec):
    """One way to solve the task: backbone + strategy, with recipe defaults and its own additions to the space."""

    backbone: str = Field(min_length=1, max_length=200)
    strategy: Strategy = Scratch()
    weights: str | None = Field(
        default=None,
        description="'pretrained', 'experiment' (its own pretraining), or a path to weights or to a trial",
    )
    size: int | None = Field(
        default=None, ge=8, le=1024, description="input size in pixels; None: the backbone's default"
    )
    fraction: float = Field(default=1.0, gt=0, le=1, description="part of the training labels used, stratified")
    recipe: Recipe = Recipe()
    space: Space = {}

    @model_validator(mode="after")
    def _weights_fit_the_strategy(self) -> Arm:
        if self.strategy.kind in FROM_RANDOM and self.weights is not None:
            raise ValueError(f"strategy '{self.strategy.kind}' starts from random weights; leave `weights` out")
        if self.strategy.kind not in FROM_RANDOM and self.weights is None:
            raise ValueError(f"strategy '{self.strategy.kind}' needs `weights` to start from")
        return self


class Caps(Spec):
    """What a model may cost. A trial whose model would cost more is pruned before it is trained."""

    flops: int | None = Field(default=None, ge=1, description="forward, per image; a multiply-add is two")
    params: int | None = Field(default=None, ge=1)
    latency: Positive | None = Field(default=None, description="seconds for one image, measured where it trains")


class Pretraining(Spec):
    """What an experiment trains first, once, for the arms whose weights are 'experiment'."""

    dataset: str
    backbone: str
    recipe: Recipe = Recipe()


class Experiment(Spec):
    """A declared question. Every arm gets the same number of trials."""

    name: Name
    question: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    arms: dict[Name, Arm] = Field(min_length=1)
    space: Space = {}
    trials: int = Field(default=50, ge=1, le=1_000_000, description="in total, shared equally by the arms")
    pruning: Pruning | None = Pruning()
    pretraining: Pretraining | None = None
    caps: Caps | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    limit: int | None = Field(default=None, ge=20, description="use only so many images of each split (quick tries)")

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name, arm in self.arms.items():
            if arm.weights == "experiment" and self.pretraining is None:
                raise ValueError(f"arm '{name}' stands on weights 'experiment', but there is no `pretraining`")
            for path, choices in {**self.space, **arm.space}.items():
                for value in corners(choices):
                    try:
                        resolved(arm, {path: value})
                    except ValueError as error:
                        raise ValueError(f"arm '{name}', space '{path}': {first_error(error)}") from None
        return self

    def quota(self) -> dict[str, int]:
        """Trials per arm; the first arms take what does not divide evenly."""
        share, rest = divmod(self.trials, len(self.arms))
        return {name: share + (i < rest) for i, name in enumerate(self.arms)}


def corners(choices: LogFloat | Uniform | Choice) -> tuple[Any, ...]:
    """The values that show whether a range fits its field."""
    if isinstance(choices, Choice):
        return choices.values
    if choices.low > choices.high:
        raise ValueError(f"low {choices.low} is above high {choices.high}")
    return (choices.low, choices.high)


def resolved(arm: Arm, params: Params) -> Arm:
    """The arm with `params` put in: {"lr": 0.1, "strategy.head.hidden": 64}. Raises ValueError."""
    tree = arm.model_dump()
    for path, value in params.items():
        keys = path.split(".") if "." in path or path in Arm.model_fields else ["recipe", path]
        node: Any = tree
        for key in keys[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict) or keys[-1] not in node:
            where = ".".join(keys[:-1]) or "arm"
            known = ", ".join(node) if isinstance(node, dict) else "nothing"
            raise ValueError(f"there is no '{keys[-1]}' in {where}; it has: {known}")
        node[keys[-1]] = value
    return Arm.model_validate_json(json.dumps(tree))  # JSON mode: lists become tuples again, types stay strict


def assignments(pairs: list[str]) -> Params:
    """`--set key=value` pairs as parameters; a value is JSON where it parses (0.1, true), else text."""
    params: Params = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"'{pair}' is not of the form key=value, for example lr=0.05 or augment.shift=2")
        key = key.strip()
        if key.split(".")[0] in Recipe.model_fields and "." in key:
            key = f"recipe.{key}"
        try:
            params[key] = json.loads(text)
        except json.JSONDecodeError:
            params[key] = text
    return params


def first_error(error: ValueError) -> str:
    """One readable line out of a pydantic error, with the dotted path it speaks of."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    one = errors()[0]
    path = ".".join(str(part) for part in one["loc"])
    message = one["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


# --- a trial: one training with everything resolved ---------------------------------------------------------


class Weights(Spec):
    """Where a trial starts from."""

    source: str = Field(description="'pretrained', or a path (relative ones are below the results directory)")
    sha256: str | None = None  # None for 'pretrained': the record tells what was found


UNHASHED = ("number", "study", "device", "threads", "caps")  # what of a trial its id does not speak of


class Trial(Spec):
    schema_version: Literal[1] = SCHEMA
    study: Name
    arm: Name
    number: Count = Field(description="in the study, over all arms")
    dataset: str
    data_hash: str
    split_hash: str
    fraction: float = Field(gt=0, le=1)
    limit: Count | None = None
    backbone: str
    weights: Weights | None
    size: Count | None
    strategy: Strategy
    recipe: Recipe
    params: Params  # what the search chose; already put into recipe, strategy and size
    seed: Count
    device: str
    threads: Count = Field(description="CPU threads; 0: all")
    rungs: tuple[Epoch, ...] = ()  # epochs after which the controller may prune
    caps: Caps | None = None

    @property
    def id(self) -> str:
        """Number, then a hash of everything but number and place: the same training has the same hash."""
        canonical = json.dumps(self.model_dump(mode="json", exclude=set(UNHASHED)), sort_keys=True)
        return f"{self.number:04d}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


# --- events ---------------------------------------------------------------------------------------------------


class Started(Spec):
    kind: Literal["started"] = "started"
    attempt: str  # token; a later attempt of the same trial has another
    pid: Count
    host: str
    step: Count = 0  # above 0 when resumed from a checkpoint
    steps: Count = 0  # planned
    parameters: Count = 0
    trainable: Count = 0
    forward_flops: Count = 0  # per image


class Progress(Spec):
    kind: Literal["progress"] = "progress"
    step: Count
    epoch: float
    loss: float | None  # mean training loss since the last event; None when not finite
    lr: float
    images_per_second: float
    seconds: float  # of training, evaluation off the clock


class Evaluated(Spec):
    kind: Literal["evaluated"] = "evaluated"
    step: Count
    epoch: Epoch
    accuracy: Unit  # on validation
    loss: float | None
    seconds: float  # of training so far, evaluation off the clock


class Checkpointed(Spec):
    kind: Literal["checkpointed"] = "checkpointed"
    step: Count
    sha256: str


class Finished(Spec):
    kind: Literal["finished"] = "finished"
    accuracy: Unit
    step: Count


class Pruned(Spec):
    kind: Literal["pruned"] = "pruned"
    reason: str
    step: Count


class Failed(Spec):
    kind: Literal["failed"] = "failed"
    reason: str
    step: Count = 0


class Stopped(Spec):
    kind: Literal["stopped"] = "stopped"
    reason: str
    step: Count


Event = Annotated[
    Started | Progress | Evaluated | Checkpointed | Finished | Pruned | Failed | Stopped,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
Verdict = Literal["prune", "stop"]  # what the controller may answer to an event; None: go on


class Line(Spec):
    """One line of events.jsonl."""

    seq: Count
    time: Moment
    event: Event


# --- what a trial came to ---------------------------------------------------------------------------------------


class Cost(Spec):
    """Measured unless said otherwise. None: not known."""

    parameters: Count
    trainable: Count
    forward_flops: Count  # per image; a multiply-add is two; counted, not timed
    training_flops: Count  # all images seen: forward + backward through what is trained; 0 for knn heads
    setup_flops: Count = 0  # feature extraction, where this trial was the one to do it
    flops_source: str = "torch.utils.flop_counter, eager, meta device"  # how the three above were counted
    wall_seconds: float  # the whole trial, all attempts
    train_seconds: float  # of the device: optimisation alone, no evaluation in it
    setup_seconds: float  # data, weights, feature extraction where they were not cached
    images_per_second: float
    peak_memory_bytes: Count
    memory_source: str  # "cuda allocator" or "resident set"
    energy_joules: float | None
    energy_source: str  # "nvml", "rapl", "unavailable", "unattributable (...)"
    latency_seconds: float | None = None  # one image through the finished model, in fp32, at its fastest
    latency_256_seconds: float | None = None  # 256 images at once; None where that would have taken long


class Provenance(Spec):
    version: str
    command: str
    commit: str | None
    python: str
    packages: dict[str, str]
    host: str
    hardware: str
    threads: Count
    precision: str  # what 'auto' came to
    data_sha256: str | None = None  # of the training files
    split_sha256: str | None = None  # of which images are for training and which for validation
    weights: str | None = None
    weights_sha256: str | None = None


class Record(Spec):
    """result.json: written last, so its presence says that the trial is over."""

    schema_version: Literal[1] = SCHEMA
    trial: str
    arm: Name
    state: Literal["finished", "pruned", "failed"]
    attempt: str
    accuracy: Unit | None = None  # best on validation
    loss: float | None = None
    epoch: Epoch | None = None  # at which it was best
    images: Count = 0  # in the validation split
    steps: Count = 0
    curve: tuple[tuple[Epoch, Unit], ...] = ()  # (epoch, validation accuracy)
    reason: str | None = None  # of pruned and failed
    cost: Cost | None = None
    provenance: Provenance | None = None
    artifact: Name | None = None  # "best.safetensors"
    artifact_sha256: str | None = None
    accuracy_fp32: Unit | None = None  # of the artifact on validation in float32, whatever it was trained in
    started: Moment = 0.0
    ended: Moment = 0.0

    @field_validator("accuracy", "loss")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("must be finite")
        return value


class Status(Spec):
    """status.json: the controller's sign of life."""

    schema_version: Literal[1] = SCHEMA
    study: Name
    state: Literal["running", "done", "stopped", "failed"]
    pid: Count
    host: str
    started: Moment
    heartbeat: Moment
    planned: Count
    finished: Count = 0
    pruned: Count = 0
    failed: Count = 0
    running: tuple[str, ...] = ()
    best_trial: str | None = None
    best_accuracy: float | None = None
    eta_seconds: float | None = None
    workers: Count = 1
    message: str = ""


class StudyFile(Spec):
    """study.json: the resolved experiment and what it stands on."""

    schema_version: Literal[1] = SCHEMA
    study: Name
    created: Moment
    experiment: Experiment
    data_hash: str
    split_hash: str
    classes: tuple[str, ...]
    version: str
    packages: dict[str, str]
    storage: str = "sqlite"  # never the URL: it may hold a password
