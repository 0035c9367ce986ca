"""How accurate are networks of fewer than 8,000 and fewer than 2,000 parameters, and what does a teacher add?

    mnist-suite sweep tiny
    mnist-suite evaluate tiny --final

Nothing is searched: one trial an arm. All train by the same recipe; the distilled ones learn from a `lean-l`, which is
trained first, as well as from the labels. `lean-xs` and the recipe were chosen by the accuracy on the 6,000 validation
images. Figures: results/tiny.md.
"""

from experiments.accuracy import STUDENT, TEACHER
from suite.spec import Arm, Experiment, Pretraining

SMALL = STUDENT.model_copy(update={"lr": 0.02, "epochs": 24})

EXPERIMENT = Experiment(
    name="tiny",
    question="How accurate are networks of fewer than 8,000 and 2,000 parameters, and what does a teacher add?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="lean-l", recipe=TEACHER),
    arms={
        "lean-xs": Arm(backbone="lean-xs", recipe=SMALL),
        "lean-xs-distilled": Arm(backbone="lean-xs", teacher="experiment", recipe=SMALL, against=("lean-xs",)),
        "lean-xxs-distilled": Arm(
            backbone="lean-xxs", teacher="experiment", recipe=SMALL, against=("lean-xs-distilled",)
        ),
    },
    trials=3,
    pruning=None,
)
