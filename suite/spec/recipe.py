"""How a model is trained: augmentation, recipe, heads and strategies."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from suite.spec.base import Positive, Spec, Unit


class Augment(Spec):
    """Random augmentation of the training images, sampled anew for every image and epoch.

    It applies to trainings on images; heads on frozen features see none of it.
    """

    added: ClassVar[frozenset[str]] = frozenset({"crop", "color", "trivial", "mixup", "cutmix"})

    shift: float = Field(default=0.0, ge=0, le=16, description="largest translation, pixels of the native image")
    rotate: float = Field(default=0.0, ge=0, le=180, description="largest rotation, degrees")
    scale: float = Field(default=0.0, ge=0, le=0.5, description="largest relative change of size")
    erase: Unit = Field(default=0.0, description="probability of blanking a random rectangle")
    flip: bool = Field(default=False, description="mirror half of the images left to right")
    crop: Unit = Field(default=0.0, description="smallest share of the area in a random resized crop; 0 = no crop")
    color: Unit = Field(default=0.0, description="largest relative change of brightness, contrast and saturation")
    trivial: bool = Field(default=False, description="TrivialAugment, wide: one random operation an image")
    mixup: float = Field(default=0.0, ge=0, le=100, description="alpha of mixup's Beta distribution; 0 = off")
    cutmix: float = Field(default=0.0, ge=0, le=100, description="alpha of CutMix's Beta distribution; 0 = off")

    @property
    def mixes(self) -> bool:
        """Whether pairs of images are mixed."""
        return bool(self.mixup or self.cutmix)

    def __bool__(self) -> bool:
        """Whether any augmentation is on."""
        return self != Augment()


class Distill(Spec):
    """Learning from the class probabilities of a teacher (Hinton et al., 2015, arXiv:1503.02531). The loss is
    (1 - weight) times that of the labels, plus weight * temperature^2 times the Kullback-Leibler divergence of the
    student's probabilities from the teacher's, both at `temperature`.

    It is used where the arm has a teacher.
    """

    temperature: float = Field(default=2.0, ge=0.1, le=100, description="divides the scores of both before the softmax")
    weight: Unit = Field(default=0.5, description="share of the teacher in the loss; 1: the labels are not used")


class Recipe(Spec):
    """Hyperparameters of one training. The defaults are those of the PyTorch tutorial that this suite started from:
    SGD with learning rate 0.01 and momentum 0.9, batch size 64, two epochs."""

    added: ClassVar[frozenset[str]] = frozenset({"layer_decay", "balance", "distill"})

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = Field(default=0.01, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD momentum; beta1 of AdamW")
    nesterov: bool = False
    beta2: float = Field(default=0.999, gt=0, lt=1, description="AdamW only")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="warm-up as a proportion of all steps; onecycle: 0.3 if 0"
    )
    epochs: int = Field(default=2, ge=1, le=10_000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    augment: Augment = Augment()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights that is evaluated; 0 = off",
    )
    clip_norm: float = Field(default=0.0, ge=0, description="largest gradient norm; 0 = off")
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor of the learning rate from each block to the one before it, the classifier having `lr`",
    )
    balance: Literal["none", "sampler", "loss"] = Field(
        default="none",
        description="uneven classes: draw as many images of each class, or weigh each class alike in the loss",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    distill: Distill = Distill()

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Recipe:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer 'sgd' and a momentum above 0")
        return self


class Linear(Spec):
    """A linear classifier, trained by gradient descent."""

    kind: Literal["linear"] = "linear"


class Mlp(Spec):
    """A network with one hidden layer, trained by gradient descent."""

    kind: Literal["mlp"] = "mlp"
    hidden: int = Field(default=256, ge=1, le=16_384)


class Ridge(Spec):
    """Ridge regression on one-hot labels, solved in closed form."""

    kind: Literal["ridge"] = "ridge"
    l2: Positive = Field(default=1.0, description="L2 penalty per training example, on standardised features")


class Logreg(Spec):
    """Logistic regression, solved by L-BFGS."""

    kind: Literal["logreg"] = "logreg"
    c: Positive = Field(default=1.0, description="inverse of the L2 penalty, as in scikit-learn")


class Knn(Spec):
    """k-nearest-neighbour classification."""

    kind: Literal["knn"] = "knn"
    k: int = Field(default=5, ge=1, le=1000)


HeadSpec = Annotated[Linear | Mlp | Ridge | Logreg | Knn, Field(discriminator="kind")]


class Scratch(Spec):
    """Train every parameter, starting from random weights."""

    kind: Literal["scratch"] = "scratch"


class Pretrain(Spec):
    """Like `Scratch`; the result serves as initial weights of other trials."""

    kind: Literal["pretrain"] = "pretrain"


class HeadOnly(Spec):
    """Train a head on the features of the frozen backbone."""

    kind: Literal["head"] = "head"
    head: HeadSpec = Linear()


class Full(Spec):
    """Train every parameter, starting from given weights and a classifier of zeros."""

    kind: Literal["full"] = "full"


class LpFt(Spec):
    """Train the classifier first, then every parameter (Kumar et al., 2022, arXiv:2202.10054)."""

    kind: Literal["lp-ft"] = "lp-ft"
    probe_epochs: int = Field(default=10, ge=1, le=1000)
    probe_lr: Positive = 0.05


class Partial(Spec):
    """Train the classifier and the last `blocks` blocks of the backbone."""

    kind: Literal["partial"] = "partial"
    blocks: int = Field(default=1, ge=1, le=1000)


class NormOnly(Spec):
    """Train the classifier and the affine parameters of the normalisation layers (Frankle et al., 2020,
    arXiv:2003.00152)."""

    kind: Literal["norm-only"] = "norm-only"


class Bitfit(Spec):
    """Train the classifier and every bias (Ben Zaken et al., 2022, arXiv:2106.10199)."""

    kind: Literal["bitfit"] = "bitfit"


class Lora(Spec):
    """Train the classifier and a change of low rank of other layers' weights, which is merged into them at the end (Hu
    et al., 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=4096)
    alpha: Positive = Field(default=16.0, description="the change is scaled by alpha / rank")
    layers: Literal["all", "linear", "conv", "pointwise", "attention"] = Field(
        default="all",
        description="which layers: pointwise are linear layers and 1x1 convolutions, attention are those in attention "
        "modules",
    )
    norms: bool = Field(default=True, description="train the affine parameters of the normalisation layers too")


class Prune(Spec):
    """Remove channels of a trained model down to `keep` of its parameters, then train all that is left."""

    kind: Literal["prune"] = "prune"
    keep: float = Field(default=0.25, gt=0, le=1, description="share of the parameters that stays, at most")


class LowRank(Spec):
    """Factor the linear layers of a trained model before the classifier, then train every parameter."""

    kind: Literal["low-rank"] = "low-rank"
    rank: float = Field(default=0.25, gt=0, le=1, description="rank of a factored layer as a share of its full rank")


class Int8(Spec):
    """Quantise a trained model to 8-bit integers, with ranges of activations from training images. Nothing is
    trained."""

    kind: Literal["int8"] = "int8"


Strategy = Annotated[
    Scratch | Pretrain | HeadOnly | Full | LpFt | Partial | NormOnly | Bitfit | Lora | Prune | LowRank | Int8,
    Field(discriminator="kind"),
]

FROM_RANDOM = ("scratch", "pretrain")  # strategies that start from random weights

RESHAPED = ("prune", "low-rank")  # strategies that change the sizes of layers

AS_TRAINED = (*RESHAPED, "int8")  # strategies that compress a model for the classes that it was trained on
