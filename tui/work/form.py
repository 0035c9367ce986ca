"""The launch form without its widgets: one table of the fields of each command, and the words that they become."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from suite.spec import NAME, Experiment, Recipe
from suite.spec.load import experiment_names, load_experiment
from suite.spec.preprocess import Fit
from suite.store.study import StudyDir
from tui.model.snapshot import StudyView
from tui.work.commands import free_name

Kind = Literal["text", "number", "choice", "switch"]
COMMANDS = ("sweep", "pretrain", "finetune", "evaluate")
ON = "yes"  # the value of a switch that is on
DEVICE = re.compile(r"auto|cpu|mps|cuda|cuda:\d+(,cuda:\d+)*")
DATASETS = ("mnist", "fashion-mnist", "kmnist", "emnist", "qmnist", "usps", "svhn", "cifar10", "folder:", "csv:")
BACKBONES = ("cnn", "net", "lean-xxs", "lean-xs", "lean-s", "lean-m", "lean-l", "timm:tf_efficientnet_lite0")
STRATEGIES = ("full", "head", "lp-ft", "partial", "norm-only", "bitfit", "lora", "prune", "low-rank", "int8", "scratch")
HEADS = ("linear", "mlp", "ridge", "logreg", "knn")
AUTO = ("auto",)
FITS = ("by their shapes", *get_args(Fit))
PRECISIONS: tuple[str, ...] = get_args(Recipe.model_fields["precision"].annotation)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form: a value as text, and the option that it becomes."""

    name: str  # in the form
    option: str  # of the command; empty: the argument
    kind: Kind
    hint: str
    default: str = ""  # with this value the option is left out
    choices: tuple[str, ...] = ()  # all values of a choice; suggestions for a text
    least: float = 0.0  # of a number
    most: float = 1e18
    whole: bool = True
    words: tuple[str, ...] = ()  # that a number may be instead, such as "auto"

    @property
    def label(self) -> str:
        """What the form shows: the option's name, which several commands may use for different things."""
        return {"--set": "settings", "": {"of": "study"}.get(self.name, self.name)}.get(
            self.option, self.option.removeprefix("--")
        )

    def problem(self, text: str) -> str | None:
        """What is wrong with a number or a choice."""
        if self.kind == "choice" and text not in (*self.choices, self.default):
            return f"one of {', '.join(self.choices)}"
        if self.kind != "number" or not text or text in self.words:
            return None
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            value = None
        if value is None or not text.isascii() or not self.least <= value <= self.most:
            kind = "a whole number" if self.whole else "a number"
            top = f" to {self.most:g}" if self.most < 1e18 else " on"
            return f"{kind} from {self.least:g}{top}" + "".join(f", or {word}" for word in self.words)
        return None


def number(name: str, option: str, hint: str, **facts: object) -> Field:
    return Field(name, option, "number", hint, **facts)  # type: ignore[arg-type]


PLACES = ("auto", "cpu", "cuda", "mps")
DEVICE_FIELD = Field("device", "--device", "text", "auto, cpu, cuda, cuda:N or mps", "auto", PLACES)
LIMIT = number("limit", "--limit", "images of each split for a quick try; empty: all", least=20, most=2**31 - 1)
SETTINGS = Field("settings", "--set", "text", "values to fix, such as epochs=3 lr=0.05")
SKIP = Field("skip-broken", "--skip-broken", "switch", "leave out pictures that cannot be read")

SWEEP = (
    Field("experiment", "", "text", "a name, or the path of your own .py file", choices=tuple(experiment_names())),
    Field("study", "--study", "text", "the name of the directory below the results"),
    number("trials", "--trials", "in all, over the arms; empty: as the experiment says", least=1, most=1_000_000),
    LIMIT,
    number("workers", "--workers", "trials at a time, or auto", default="1", least=1, most=256, words=AUTO),
    DEVICE_FIELD,
    Field("dataset", "--dataset", "text", "another one than the experiment's", choices=DATASETS),
    SETTINGS,
    number("seed", "--seed", "instead of the experiment's own", most=2**31 - 1),
    number("finalists", "--finalists", "the best N of each arm are trained again", most=100),
    Field("warm-start", "--warm-start", "text", "a study whose best parameters come first"),
    number("max-flops", "--max-flops", "cap on forward FLOPs per image, such as 10e6", least=1, whole=False),
    number("max-params", "--max-params", "cap on parameters, such as 100e3", least=1, whole=False),
    number("max-latency", "--max-latency", "cap on milliseconds for one image", least=1e-6, most=1e9, whole=False),
    number("population", "--population", "stacked in one model, or auto", default="1", least=1, most=256, words=AUTO),
    Field("engine", "--engine", "choice", "ray: on a cluster", "local", ("local", "ray")),
    number("trial-timeout", "--trial-timeout", "seconds after which a trial fails", least=1, most=1e9, whole=False),
    number("memory-limit", "--memory-limit", "GiB beyond which a trial fails", least=0.25, most=2**20, whole=False),
    SKIP,
)  # fmt: skip
TRAINING = (
    Field("dataset", "--dataset", "text", "a name, folder:PATH or csv:FILE", "mnist", DATASETS),
    Field("name", "--study", "text", "of the study; empty: made from the settings"),
    SETTINGS,
    LIMIT,
    number("size", "--size", "of the input in pixels; empty: the model's", least=8, most=1024),
    Field("fit", "--fit", "choice", "how pictures become square", FITS[0], FITS),
    number("fraction", "--fraction", "of the training labels", default="1", most=1, whole=False),
    number("training-seed", "--seed", "for initialisation, order and augmentation", default="0", most=2**31 - 1),
    Field("teacher", "--teacher", "text", "a trained model to learn from: a study, STUDY/TRIAL"),
    Field("precision", "--precision", "choice", "of the arithmetic", "auto", PRECISIONS),
    DEVICE_FIELD,
    SKIP,
)
FIELDS: dict[str, tuple[Field, ...]] = {
    "sweep": SWEEP,
    "pretrain": (Field("backbone", "--backbone", "text", "a name or timm:NAME", "cnn", BACKBONES), *TRAINING),
    "finetune": (
        Field("base", "--backbone", "text", "a name or timm:NAME", choices=BACKBONES),
        Field("strategy", "--strategy", "choice", "what is trained", "full", STRATEGIES),
        Field("from", "--from", "text", "initial weights: a study, STUDY/TRIAL, a file"),
        Field("pretrained", "--pretrained", "switch", "start from published weights"),
        Field("head", "--head", "choice", "with the strategy head", "linear", HEADS),
        *TRAINING,
    ),
    "evaluate": (
        Field("of", "", "text", "the study whose search is over"),
        number("top", "--top", "finalists of each arm", default="3", least=1, most=2**31 - 1),
        number("seeds", "--seeds", "trainings of each finalist", default="5", least=1, most=100),
        number("trainings", "--workers", "trainings at a time", default="1", least=1, most=256),
        DEVICE_FIELD,
    ),
}


@dataclass(frozen=True)
class Form:
    """A launch form as typed, unchecked. Fields that several commands have keep their value."""

    command: str = "sweep"
    values: Mapping[str, str] = field(default_factory=dict)
    arms: tuple[str, ...] = ()  # of a sweep; empty: all

    @property
    def fields(self) -> tuple[Field, ...]:
        return FIELDS[self.command]

    def value(self, one: Field) -> str:
        return self.values.get(one.name, one.default).strip()

    def get(self, name: str) -> str:
        """The value of this field, or an empty text where the command has no such field."""
        return next((self.value(one) for one in self.fields if one.name == name), "")

    @property
    def study(self) -> str:
        """The study that the command works in; empty where the command names it itself."""
        return self.get({"sweep": "study", "evaluate": "of"}.get(self.command, "name"))

    def words(self, results: Path) -> list[str]:
        """The arguments after `mnist-suite` that start the command."""
        words = [self.command]
        for one in self.fields:
            text = self.value(one)
            if not one.option:
                words.append(text)
            elif one.kind == "switch":
                words += [one.option] if text == ON else []
            elif one.option == "--set":
                words += [word for setting in settings(text) or [text] for word in ("--set", setting)] if text else []
            elif text not in ("", one.default):
                words += [one.option, text]
        if self.command == "sweep" and self.arms:
            words += ["--arms", ",".join(self.arms)]
        if self.command == "evaluate":
            words.append("--final")
        return [*words, "--results", str(results)]

    def problems(self, results: Path, experiment: Experiment | str = "") -> dict[str, str]:
        """The errors by field, as far as they are known without running the command; empty if there is none.

        `experiment` is the one that a sweep names, or why there is none.
        """
        found: dict[str, str] = {}
        for one in self.fields:
            if problem := one.problem(self.value(one)):
                found[one.name] = problem
        if "device" not in found and not DEVICE.fullmatch(self.get("device") or "auto"):
            found["device"] = "auto, cpu, mps, cuda, cuda:N or several as in cuda:1,cuda:3"
        if settings(self.get("settings")) is None:
            found["settings"] = "NAME=VALUE, several separated by spaces"
        if self.command == "sweep":
            found |= self._problems_of_sweep(results, experiment)
        elif self.command == "finetune":
            if not self.get("base"):
                found["base"] = "a name, or timm:NAME"
            if self.get("from") and self.get("pretrained") == ON:
                found["from"] = "either these weights or published ones"
        elif self.command == "evaluate" and not (is_name(self.study) and StudyDir(results, self.study).exists()):
            found["of"] = "there is no such study"
        if self.get("name") and not is_name(self.get("name")):
            found["name"] = "letters, digits, '.', '_' and '-', starting with a letter or digit"
        return found

    def _problems_of_sweep(self, results: Path, experiment: Experiment | str) -> dict[str, str]:
        found = {"experiment": experiment} if isinstance(experiment, str) and experiment else {}
        if not is_name(self.study):
            found["study"] = "letters, digits, '.', '_' and '-', starting with a letter or digit"
        elif StudyDir(results, self.study).exists():
            found["study"] = "this study exists: choose another name, or resume it"
        if isinstance(experiment, Experiment):
            if unknown := [arm for arm in self.arms if arm not in experiment.arms]:
                found["arms"] = f"no arm {', '.join(unknown)} in {self.get('experiment')}"
            arms, trials = len(self.arms or experiment.arms), self.get("trials")
            if trials.isdecimal() and 0 < int(trials[:8]) < arms:
                found["trials"] = f"fewer than the {arms} arms: some would get none"
        return found


def settings(text: str) -> list[str] | None:
    """The settings of a line such as "epochs=3 lr=0.05", or None where one is no NAME=VALUE."""
    try:
        parts = shlex.split(text)
    except ValueError:  # an open quotation mark
        return None
    return parts if all(re.fullmatch(r"[^=]+=.+", part) for part in parts) else None


def is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None


def is_own_file(reference: str) -> bool:
    """Whether an experiment is a file of the user's, which is run to know what it declares, and not a built-in one."""
    return reference.endswith(".py") or "/" in reference


def new_form(results: Path, studies: Iterable[StudyView], study: str | None = None) -> Form:
    """An empty form, or one that repeats a study under a new name."""
    known = experiment_names()
    first = "mnist" if "mnist" in known or not known else known[0]
    views = {view.name: view for view in studies}
    over = [view for view in views.values() if view.state in ("done", "stopped") and view.planned > 1]
    values = {"of": (study or (over[-1].name if over else ""))}
    view = views.get(study or "")
    if view is None or view.file is None:
        name = first if study is None else study
        return Form(values=values | {"experiment": first, "study": free_name(name, results)})
    experiment = view.file.experiment
    values |= {
        "experiment": experiment.name,
        "study": free_name(view.name, results),
        "trials": str(experiment.trials),
        "limit": str(experiment.limit or ""),
        "workers": str(view.status.workers) if view.status and view.status.workers > 1 else "1",
    }
    if experiment.name in known:
        declared = load_experiment(experiment.name)
        changed = {key: str(getattr(experiment, key)) for key in ("dataset", "seed", "finalists")}
        values |= {key: text for key, text in changed.items() if text != str(getattr(declared, key))}
    return Form(values=values, arms=tuple(experiment.arms))
