"""How do I raise accuracy on MNIST, and what does each step cost?

    mnist-suite sweep accuracy
    mnist-suite evaluate accuracy --final --tta shift

From the tutorial's recipe on, each arm changes one thing more; `quick` is a level of its own, the best of two seconds.
Nothing is searched: one trial an arm. The recipes were chosen by the accuracy on the 6,000 validation images. The final
evaluation also reports the five trainings of each arm as one ensemble, and test-time augmentation. Figures:
results/accuracy.md.
"""

from experiments.tutorial import RECIPE as TUTORIAL
from suite.spec import Arm, Augment, Distill, Experiment, Pretraining, Recipe

MOVED = Augment(shift=1.5, rotate=8.0, scale=0.08)
CYCLE = TUTORIAL.model_copy(update={"lr": 0.05, "nesterov": True, "batch_size": 128, "schedule": "onecycle"})
LEAN = Recipe(
    optimizer="adamw",
    lr=0.01,
    momentum=0.7,
    beta2=0.9,
    schedule="onecycle",
    epochs=2,
    batch_size=256,
    label_smoothing=0.1,
    augment=MOVED,
)
QUICK = LEAN.model_copy(update={"epochs": 1, "augment": Augment()})
UNSMOOTHED = LEAN.model_copy(update={"label_smoothing": 0.0})
LONG = LEAN.model_copy(update={"epochs": 10})
TEACHER = LONG.model_copy(update={"label_smoothing": 0.0})  # smoothed teachers tell less
STUDENT = TEACHER.model_copy(update={"distill": Distill(temperature=2.0, weight=0.9)})
ARMS = {
    "tutorial": Arm(backbone="cnn", recipe=TUTORIAL),
    "schedule": Arm(backbone="cnn", recipe=CYCLE, against=("tutorial",)),
    "augmentation": Arm(backbone="cnn", recipe=CYCLE.model_copy(update={"augment": MOVED}), against=("schedule",)),
    "network": Arm(backbone="lean-m", recipe=UNSMOOTHED, against=("augmentation",)),  # and AdamW
    "middle": Arm(backbone="lean-m", recipe=LEAN, against=("network",)),  # label smoothing
    "bigger": Arm(backbone="lean-l", recipe=LEAN, against=("middle",)),
    "long": Arm(backbone="lean-l", recipe=LONG, against=("bigger",)),
    "distilled": Arm(backbone="lean-l", recipe=STUDENT, teacher="experiment", against=("long", "tutorial")),
    "quick": Arm(backbone="lean-s", recipe=QUICK, against=("tutorial",)),
}

EXPERIMENT = Experiment(
    name="accuracy",
    question="How do I raise accuracy, and what does it cost?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="lean-l", recipe=TEACHER),
    arms=ARMS,
    trials=len(ARMS),
    pruning=None,
)
