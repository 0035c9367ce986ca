"""What do an ensemble of several networks, and single networks that learn from such an ensemble, reach on MNIST?

    mnist-suite sweep ensembles
    mnist-suite evaluate ensembles --final --tta shift --ensemble lean-m,lean-l --ensemble lean-m,lean-l,student-l

Nothing is searched: one trial an arm. `lean-m` and `lean-l` train by the recipe of `long` in experiments/accuracy.py.
The students learn from the mean answers of three networks that are trained first, without label smoothing, as well as
from the labels. The final evaluation reports the five trainings of each arm, and of several arms together, as one
ensemble. Figures: results/ensembles.md.
"""

from experiments.accuracy import LONG, STUDENT, TEACHER
from suite.spec import Arm, Experiment, Pretraining

PATIENT = STUDENT.model_copy(update={"epochs": 15})
ARMS = {
    "lean-m": Arm(backbone="lean-m", recipe=LONG),
    "lean-l": Arm(backbone="lean-l", recipe=LONG, against=("lean-m",)),
    "student-s": Arm(backbone="lean-s", teacher="experiment", recipe=PATIENT, against=("lean-l",)),
    "student-l": Arm(backbone="lean-l", teacher="experiment", recipe=PATIENT, against=("lean-l",)),
}

EXPERIMENT = Experiment(
    name="ensembles",
    question="What do several networks together, and single networks that learn from several, reach on MNIST?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="lean-l", also=("lean-m", "lean-s"), recipe=TEACHER),
    arms=ARMS,
    trials=len(ARMS),
    pruning=None,
)
