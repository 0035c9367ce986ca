"""How accurate is a network of fewer than 8,000 parameters, and what does a teacher add?

    mnist-suite sweep tiny

Nothing is searched: one trial an arm. Both arms train `lean-xs` by the same recipe; one learns from a `lean-l`, which
is trained first, as well as from the labels. The network and the recipe were chosen by the accuracy on the 6,000
validation images. Figures: results/tiny.md.
"""

from experiments.accuracy import STUDENT, TEACHER
from suite.spec import Arm, Experiment, Pretraining

SMALL = STUDENT.model_copy(update={"lr": 0.02, "epochs": 24})

EXPERIMENT = Experiment(
    name="tiny",
    question="How accurate is a network of fewer than 8,000 parameters, and what does a teacher add?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="lean-l", recipe=TEACHER),
    arms={
        "lean-xs-distilled": Arm(backbone="lean-xs", teacher="experiment", recipe=SMALL),
        "lean-xs": Arm(backbone="lean-xs", recipe=SMALL),
    },
    trials=2,
    pruning=None,
)
