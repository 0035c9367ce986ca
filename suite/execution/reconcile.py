"""Before a study goes on: damaged files are mended, and the sampler's database is made to agree with the trials.

The trial directories are authoritative. The database is what the sampler remembers of them, and can be rebuilt.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from suite.errors import InputError
from suite.execution.opening import Opening, refuse_newer
from suite.execution.options import Options
from suite.execution.resolution import TrialResolver, check_fit
from suite.search.sampler import Search
from suite.search.storage import DamagedDatabase, close_storage, open_storage, set_aside
from suite.store import repair
from suite.store.study import StudyDir
from suite.store.trial import TrialDir, TrialState
from suite.training.checkpoint import clear


def open_searches(opening: Opening, options: Options, *, parallel: bool) -> tuple[dict[str, Search], list[str]]:
    """The search of each arm, by its name, and a note if optuna.db was damaged: it is then set aside and made anew.

    Raises InputError where an external database holds another study of this name.
    """
    try:
        return _open_searches(opening, options, parallel), []
    except DamagedDatabase:
        if options.storage is not None:
            raise
    kept = set_aside(opening.directory.database)
    note = f"optuna.db was damaged: it is now {kept.name}, rebuilt from the trials"
    return _open_searches(opening, options, parallel), [note]


def _open_searches(opening: Opening, options: Options, parallel: bool) -> dict[str, Search]:
    storage = open_storage(opening.directory.database, options.storage)
    experiment = opening.file.experiment
    try:
        searches = {
            name: Search(storage, f"{opening.directory.name}/{name}", experiment, name, parallel=parallel)
            for name in experiment.arms
        }
    except DamagedDatabase:
        close_storage(storage)
        raise
    if options.storage is not None:
        for search in searches.values():
            search.claim(opening.owner, force=opening.lost)
    return searches


def reconcile(opening: Opening, searches: Mapping[str, Search], resolver: TrialResolver) -> list[str]:
    """Mend the study's files and make the searches agree with them; returns notes of what was found.

    Raises InputError where a trial does not fit the experiment, or was written by a newer version.
    """
    directory, experiment = opening.directory, opening.file.experiment
    notes = ["study.json was damaged or gone: written anew from the experiment"] if opening.lost else []
    for place in directory.trials():
        notes += _mend(directory, place, searches, resolver)
    states = directory.states()
    for state in states:
        check_fit(experiment, state.trial, directory)
    disagreed = [arm for arm, search in searches.items() if _agree(search, [s for s in states if s.trial.arm == arm])]
    if disagreed and not notes:
        arms = ", ".join(f"'{arm}'" for arm in disagreed)
        notes.append(f"optuna.db did not agree with the trials of {arms}: written anew from them")
    return notes


def _agree(search: Search, states: list[TrialState]) -> bool:
    """Returns whether the database had to be written anew."""
    records = {s.id: s.record for s in states if s.record is not None}
    return search.reconcile(records, {s.id: s.trial.params for s in states}, {s.id: s.rungs for s in states})


def _mend(directory: StudyDir, place: TrialDir, searches: Mapping[str, Search], resolver: TrialResolver) -> list[str]:
    """Mend one trial's files, or set them aside; returns a note if there was something."""
    if not place.sound():
        refuse_newer(place.path / "trial.json")
        if _restored(place, searches, resolver):
            return [f"trial.json of {place.id} was damaged: written anew", *_mend_result(place)]
        if _only_begun(place.path):
            shutil.rmtree(place.path)
            return []
        kept = repair.move_to_damaged(directory, place)
        return [f"trial {place.id} was damaged beyond repair: it is in {kept}"]
    return _mend_result(place)


def _mend_result(place: TrialDir) -> list[str]:
    if fault := repair.result_fault(place):
        refuse_newer(place.path / "result.json")
        repair.set_aside(place.path / "result.json")
        return [f"result.json of {place.id} {fault}: the trial runs again"]
    if place.record() is not None:
        clear(place.path)  # its worker may have died after it wrote the result, before it removed its checkpoint
    return []


def _only_begun(path: Path) -> bool:
    """Whether a controller died while it made this directory: there is nothing in it but a part of trial.json."""
    return all(file.name.lstrip(".").startswith("trial.json") for file in path.iterdir())


def _restored(place: TrialDir, searches: Mapping[str, Search], resolver: TrialResolver) -> bool:
    """Write a damaged trial.json anew from the database; the directory's name, a hash, proves that it is the same."""
    number = place.id.partition("-")[0]
    for arm, search in searches.items():
        params = search.params_of(place.id)
        if params is not None and number.isdigit():
            with contextlib.suppress(InputError):
                trial = resolver.trial(arm, params, int(number))
                if trial.id == place.id:
                    place.create(trial)
                    return True
    return False
