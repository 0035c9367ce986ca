"""One page about a study: everything is read from the results directory, nothing from the network.

`report.html` is one self-contained file; `report.md` has its pictures as PNGs in a folder beside it.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import optuna
from optuna.trial import TrialState as Outcome
from optuna.trial import create_trial

from suite.errors import InputError
from suite.ranking import leaderboard as ranking_leaderboard
from suite.ranking.final import outcome, readings, tested_facts
from suite.ranking.pareto import fronts
from suite.ranking.study_costs import study_costs
from suite.reporting import plots
from suite.reporting.document import Facts, Gallery, Picture, Section
from suite.reporting.sections import sections, summary
from suite.search.sampler import distribution
from suite.spec import Experiment
from suite.store.files import read_bytes, write_atomic
from suite.store.study import StudyDir, final_of
from suite.store.trial import TrialState

ENOUGH = 4  # finished trials that an arm needs before importances are worth a picture

OnPicture = Callable[[int, int], None]  # drawn so far, in all


def gather(results: Path, study: StudyDir) -> Facts:
    """Read a study. Raises InputError where nothing has finished."""
    file = study.study()
    if file is None:
        raise InputError(f"{study.path / 'study.json'} is damaged or was written by a newer version.")
    states = study.states()
    rows = ranking_leaderboard.rank([ranking_leaderboard.row(study.name, state) for state in states])
    if not any(r.state == "finished" for r in rows):
        raise InputError(f"Study '{study.name}' has no finished trial yet, so there is nothing to report.")
    best: dict[str, str] = {}
    for r in rows:
        if r.state == "finished":
            best.setdefault(r.arm, r.trial)
    errors = {arm: found for arm, trial in best.items() if (found := _errors(study, trial)) is not None}
    found, final = outcome(study), final_of(study)
    chosen = [row for row in found["finalists"] if row["represents_arm"]] if found else []
    curves = {state.id: state.curve for state in final.states()}
    tested = {row["arm"]: facts for row in chosen if (facts := tested_facts(final, row["runs"][0])) is not None}
    return Facts(
        study=file,
        states=states,
        rows=rows,
        fronts=fronts(rows),
        costs=study_costs(results, study),
        importances=importances(file.experiment, states),
        errors=errors,
        outcome=found,
        read=bool(readings(study)),
        tested=tested,
        final_curves={row["arm"]: [curves[run] for run in row["runs"] if run in curves] for row in chosen},
    )


def _errors(study: StudyDir, trial_id: str) -> dict[str, Any] | None:
    """validation.json of a finished trial; None where it is missing or damaged."""
    try:
        found = json.loads(read_bytes(study.trial(trial_id).path / "validation.json"))
        return found if {"classes", "confusion", "worst"} <= set(found) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def importances(experiment: Experiment, states: Sequence[TrialState]) -> dict[str, dict[str, float]]:
    """fANOVA's share of every hyperparameter in the variation of accuracy, by arm, from the files alone."""
    found: dict[str, dict[str, float]] = {}
    for name, arm in experiment.arms.items():
        space = {path: distribution(choices) for path, choices in {**experiment.space, **arm.space}.items()}
        done = [s for s in states if s.trial.arm == name and s.state == "finished" and s.trial.params]
        done = [s for s in done if set(s.trial.canonical_params) == set(space)]
        if len(space) < 2 or len(done) < ENOUGH or len({s.best for s in done}) < 2:
            continue
        study = optuna.create_study(direction="maximize")
        for s in done:
            one = create_trial(
                state=Outcome.COMPLETE, value=s.best, params=s.trial.canonical_params, distributions=dict(space)
            )
            study.add_trial(one)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found[name] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


# --- writing ------------------------------------------------------------------------------------------------------


def write(results: Path, study: StudyDir, to: Path, *, on_picture: OnPicture = lambda *_: None) -> Path:
    """Write report.html or report.md, as `to` ends. Raises InputError."""
    writers = {".html": _html, ".htm": _html, ".md": _markdown}
    writer = writers.get(to.suffix.lower())
    if writer is None:
        raise InputError(f"A report is .html or .md; {to.name!r} is neither.")
    try:
        facts = gather(results, study)
        parts = sections(facts)
        to.parent.mkdir(parents=True, exist_ok=True)
        text = writer(facts, parts, to, on_picture)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # validation.json, test.json and evaluation.json have no strict model: whatever fails first in a strange one
        raise InputError(
            f"Study '{study.name}' cannot be reported on: validation.json of a trial, or what its final evaluation "
            f"left in {final_of(study).path}, is damaged ({type(error).__name__}: {error})."
        ) from error
    write_atomic(to, text)
    return to


def _pictures(parts: Sequence[Section]) -> list[Picture]:
    blocks = [block for section in parts for block in section.blocks]
    return [picture for block in blocks if isinstance(block, Gallery) for picture in block.pictures]


def _render(
    template: str, facts: Facts, parts: Sequence[Section], source: Callable[[Picture], str], **more: Any
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("suite.reporting", package_path="templates"),
        autoescape=template.endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    plan = facts.study.experiment
    return environment.get_template(template).render(
        title=f"{facts.study.study}: {plan.question}",
        study=facts.study.study,
        question=plan.question,
        dataset=plan.dataset,
        made=time.strftime("%Y-%m-%d %H:%M"),
        summary=summary(facts),
        sections=parts,
        source=source,
        **more,
    )


def _html(facts: Facts, parts: Sequence[Section], to: Path, on_picture: OnPicture) -> str:
    pictures = _pictures(parts)
    sources: dict[int, str] = {}
    for done, picture in enumerate(pictures):
        on_picture(done, len(pictures))
        encoded = base64.b64encode(plots.as_svg(picture.draw())).decode()
        sources[id(picture)] = f"data:image/svg+xml;base64,{encoded}"
    on_picture(len(pictures), len(pictures))
    return _render("report.html.jinja", facts, parts, lambda picture: sources[id(picture)])


def _markdown(facts: Facts, parts: Sequence[Section], to: Path, on_picture: OnPicture) -> str:
    folder = to.parent / f"{to.stem}-figures"
    folder.mkdir(exist_ok=True)
    link = quote(os.fsencode(folder.name))
    pictures = _pictures(parts)
    for done, picture in enumerate(pictures):
        on_picture(done, len(pictures))
        write_atomic(folder / f"{picture.name}.png", plots.as_png(picture.draw()), durable=False)
    on_picture(len(pictures), len(pictures))
    return _render("report.md.jinja", facts, parts, lambda picture: f"{link}/{picture.name}.png")
