"""Which optimiser is best on MNIST, when each has its learning rate searched?

    mnist-suite sweep optimisers

One network, `lean-s`, for two epochs of a one-cycle schedule; ten trials of the learning rate for each optimiser.
Figures: results/optimisers.md.
"""

from suite.spec import Arm, Experiment, LogFloat, Recipe

RECIPE = Recipe(schedule="onecycle", epochs=2, batch_size=256, label_smoothing=0.1)
OPTIMISERS = {  # of SGD without momentum a step is a tenth as long, so its rates are higher
    "sgd": ({"momentum": 0.0, "lr": 1.0}, LogFloat(low=0.1, high=10.0)),
    "momentum": ({"momentum": 0.9, "lr": 0.2}, LogFloat(low=0.02, high=2.0)),
    "nesterov": ({"momentum": 0.9, "lr": 0.2, "nesterov": True}, LogFloat(low=0.02, high=2.0)),
    "adamw": ({"optimizer": "adamw", "momentum": 0.9, "lr": 0.01}, LogFloat(low=0.001, high=0.1)),
    "adamw-fast": ({"optimizer": "adamw", "momentum": 0.7, "beta2": 0.9, "lr": 0.01}, LogFloat(low=0.001, high=0.1)),
}

EXPERIMENT = Experiment(
    name="optimisers",
    question="Which optimiser is best on MNIST, when each has its learning rate searched?",
    dataset="mnist",
    arms={
        name: Arm(backbone="lean-s", recipe=RECIPE.model_copy(update=changes), space={"lr": rates})
        for name, (changes, rates) in OPTIMISERS.items()
    },
    trials=50,
)
