"""How do I raise accuracy on MNIST, and what does it cost? The tutorial's recipe and three recipes of our own.

    mnist-suite sweep accuracy

Nothing is searched: one trial an arm. The recipes were chosen by the accuracy on the 6,000 validation images.

To expect, as mean test accuracies that were read after the choice: quick 99.16 and 99.19 % (ten seeds each), middle
99.54 % (five seeds), long 99.67 % (two seeds). On two CPU cores with bf16 a training takes 1.8 s (quick), 10 s (middle)
and 62 s (long). Details: results/README.md.
"""

from experiments.tutorial import RECIPE as TUTORIAL
from suite.spec import Arm, Augment, Experiment, Recipe

EXPERIMENT = Experiment(
    name="accuracy",
    question="How do I raise accuracy, and what does it cost?",
    dataset="mnist",
    arms={
        "tutorial": Arm(backbone="cnn", recipe=TUTORIAL),
        "quick": Arm(
            backbone="lean-s",
            recipe=Recipe(
                optimizer="adamw",
                lr=0.01,
                momentum=0.7,
                beta2=0.9,
                schedule="onecycle",
                epochs=1,
                batch_size=256,
                label_smoothing=0.1,
            ),
        ),
        "middle": Arm(
            backbone="lean-m",
            recipe=Recipe(
                optimizer="adamw",
                lr=0.01,
                momentum=0.7,
                beta2=0.9,
                schedule="onecycle",
                epochs=2,
                batch_size=256,
                label_smoothing=0.1,
                augment=Augment(shift=1.5, rotate=8.0, scale=0.08),
            ),
        ),
        "long": Arm(
            backbone="lean-l",
            recipe=Recipe(
                optimizer="adamw",
                lr=0.01,
                momentum=0.7,
                beta2=0.9,
                schedule="onecycle",
                epochs=10,
                batch_size=256,
                label_smoothing=0.1,
                augment=Augment(shift=1.5, rotate=8.0, scale=0.08),
            ),
        ),
    },
    trials=4,
    pruning=None,
)
