"""Everything that a report says, read from the results directory. Damaged files are found here and nowhere later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suite.errors import InputError
from suite.ranking.final import FinalEvaluation, Tested, final_evaluation, readings, tested
from suite.ranking.gains import Gain, board, study_gains
from suite.ranking.leaderboard import Row, rank
from suite.ranking.mistakes import Mistakes, validation_mistakes
from suite.ranking.pareto import Front, fronts
from suite.ranking.shift import Shift, alike, shifts
from suite.ranking.study_costs import StudyCosts, study_costs
from suite.reporting.importances import importances
from suite.reporting.plots_style import Look, looks
from suite.spec import Explanations, StudyFile
from suite.store.files import read_model
from suite.store.study import StudyDir, final_of
from suite.store.trial import EXPLANATIONS, TrialState

Curve = Sequence[tuple[float, float]]  # (epoch, validation accuracy)


@dataclass(frozen=True)
class Facts:
    """What was read of one study."""

    study: StudyFile
    states: Sequence[TrialState]
    rows: Sequence[Row]  # ranked
    fronts: Mapping[str, Front]  # by cost
    gains: Mapping[str, Gain]  # arm -> what its search found
    costs: StudyCosts
    importances: Mapping[str, Mapping[str, float]]  # arm -> hyperparameter -> share
    mistakes: Mapping[str, Mistakes]  # arm -> those of its best trial, on validation
    explanations: Mapping[str, Explanations] = field(default_factory=dict)  # arm -> those of its best trial, if any
    evaluation: FinalEvaluation | None = None
    test_was_read: bool = False  # whether there is a reading of the test images, with or without an evaluation
    tested: Mapping[str, Tested] = field(default_factory=dict)  # arm -> first run of its representative, on test
    shifts: Mapping[str, Shift] = field(default_factory=dict)  # arm -> its best trial on corrupted validation images
    test_shifts: Mapping[str, Shift] = field(default_factory=dict)  # arm -> first run of its representative, on test
    final_curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)  # arm -> runs of its representative

    @property
    def arms(self) -> list[str]:
        return list(self.study.experiment.arms)

    @property
    def looks(self) -> dict[str, Look]:
        return looks(self.arms)

    @property
    def images(self) -> int:
        """Size of the validation split."""
        return max((s.record.images for s in self.states if s.record), default=0)

    def best(self, arm: str) -> Row | None:
        """The arm's best finished trial: the winner among its finalists, else the best by validation accuracy."""
        winner = self.gains[arm].winner if arm in self.gains else None
        return next((r for r in self.rows if r.trial == winner), None)


def gather(results: Path, study: StudyDir) -> Facts:
    """Read a study. Raises InputError where nothing has finished or a file is damaged."""
    file = study.study()
    if file is None:
        raise InputError(f"{study.path / 'study.json'} is damaged or was written by a newer version.")
    states = study.states()
    rows, found = rank(board(study)), study_gains(study, states)
    if not any(r.state == "finished" for r in rows):
        raise InputError(f"Study '{study.name}' has no finished trial yet, so there is nothing to report.")
    evaluation, final = final_evaluation(study, list(file.experiment.arms)), final_of(study)
    runs = {row.arm: row.runs for row in evaluation.representatives} if evaluation else {}
    mistakes = {one.arm: facts for one in found if (facts := validation_mistakes(study, one.winner))}
    answers = {arm: facts for arm, of_arm in runs.items() if (facts := tested(final, of_arm[0]))}
    for facts in (*mistakes.values(), *answers.values()):
        if len(facts.classes) != len(file.classes):
            raise InputError(
                f"Study '{study.name}' has {len(file.classes)} classes, but a validation.json or test.json in "
                f"{study.path} has {len(facts.classes)}: it is damaged."
            )
    measured, on_test = shifts(study), shifts(study, "test")
    of_best = {one.arm: measured[one.winner] for one in found if one.winner in measured}
    of_test = {
        row.arm: on_test[row.trial]
        for row in (evaluation.representatives if evaluation else [])
        if row.trial in on_test
    }
    curves = {state.id: state.curve for state in final.states() if state.curve}
    final_curves = {arm: [curves[run] for run in of_arm if run in curves] for arm, of_arm in runs.items()}
    return Facts(
        study=file,
        states=states,
        rows=rows,
        fronts=fronts(rows),
        gains={one.arm: one for one in found},
        costs=study_costs(results, study),
        importances=importances(file.experiment, states),
        mistakes=mistakes,
        explanations={one.arm: facts for one in found if (facts := explanations(study, one.winner))},
        evaluation=evaluation,
        test_was_read=bool(readings(study)),
        tested=answers,
        shifts=alike(of_best),
        test_shifts=alike(of_test),
        final_curves={arm: drawn for arm, drawn in final_curves.items() if drawn},
    )


def explanations(study: StudyDir, trial_id: str) -> Explanations | None:
    """What `mnist-suite explain` has kept of a trial; None where there is nothing, or it is about other weights."""
    directory = study.trial(trial_id)
    found, record = read_model(directory.path / EXPLANATIONS, Explanations), directory.record()
    same = found is not None and record is not None and found.artifact_sha256 == record.artifact_sha256
    return found if same and found is not None and found.explanations else None
