"""Optuna's part of a search: a study for each fold, in one journal that all processes append to.

TPE chooses what a trial tries, a median rule what is not worth going on with. What is drawn depends on the seed, the
fold, the number of the trial, and what the journal knows at that moment: with one worker that is always the same.
"""

import warnings
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from unifocal.lab.training.history import Judge, Row
from unifocal.lab.tuning.space import Candidate, Range, Space, Values

LOSS = "loss"
TRIAL = "trial"  # our number of a trial, which is Optuna's only if nothing was ever interrupted
STARTUP = 5  # whole trials before any is cut short
DRAWS = 20  # for a trial, until one is new; few are needed but where nearly everything has been tried
WARM_UP = 1 / 3  # of the epochs, during which nothing is

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Pruned(BaseException):
    """A trial is not worth going on with: no failure of its run, hence no Exception."""


class FoldStudy:
    """What has been tried on one fold, and what to try next."""

    def __init__(self, journal: Path, fold: int, space: Space, seed: int, epochs: int) -> None:
        self.space, self.seed, self.fold, self.epochs = space, seed, fold, epochs
        pruner = optuna.pruners.MedianPruner(STARTUP, round(epochs * WARM_UP), n_min_trials=STARTUP)
        self.study = optuna.create_study(
            storage=_storage(str(journal)),
            study_name=f"fold {fold}",
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )

    def ask(self, trial: int, tried: Collection[str] = ()) -> tuple[int, Candidate, Values]:
        """What a trial is to try: Optuna's number, the loss and the values of what varies of it.

        What gives one of the losses `tried` is drawn again, as often as `DRAWS` allows: Optuna knows nothing of
        repeats, and what it drew in vain counts as failed, which TPE takes no notice of.

        Whoever asks holds the trial's claim. What was asked for it before, by a process that died too soon to write the
        answer down, is given up.
        """
        for lost in self._trials(TrialState.RUNNING):
            if lost.user_attrs.get(TRIAL) == trial:
                self.study.tell(lost.number, state=TrialState.FAIL)
        seed = np.random.SeedSequence((self.seed, self.fold, trial)).generate_state(1)[0]
        self.study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        for _ in range(DRAWS - 1):
            number, candidate, values = self._draw(trial)
            if candidate.loss(values).label not in tried:
                return number, candidate, values
            self.study.tell(number, state=TrialState.FAIL)
        return self._draw(trial)

    def _draw(self, trial: int) -> tuple[int, Candidate, Values]:
        asked = self.study.ask()
        asked.set_user_attr(TRIAL, trial)
        candidates = self.space.candidates
        name = candidates[0].name
        if len(candidates) > 1:
            name = asked.suggest_categorical(LOSS, [candidate.name for candidate in candidates])
        candidate = self.space.named(name)
        return asked.number, candidate, {key: _drawn(asked, candidate, key) for key in sorted(candidate.free)}

    def tell(self, number: int, value: float | None) -> None:
        """How well a trial did; None: it was cut short. What is known already is left as it is."""
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self.study.tell(number, value, state, skip_if_finished=True)

    def add(self, trial: int, candidate: Candidate, value: float, dice: Sequence[float]) -> None:
        """A trial that nobody asked for: a loss at its defaults, how well it did in the end and after each epoch."""
        if any(known.user_attrs.get(TRIAL) == trial for known in self._trials()):
            return
        distributions: dict[str, BaseDistribution] = {}
        params: dict[str, Any] = {}
        if len(self.space.candidates) > 1:
            distributions[LOSS] = CategoricalDistribution([each.name for each in self.space.candidates])
            params[LOSS] = candidate.name
        for key in sorted(candidate.free):
            distributions[_key(candidate, key)] = _distribution(candidate, key)
            params[_key(candidate, key)] = _stored(candidate, key, candidate.defaults[key])
        self.study.add_trial(
            create_trial(
                value=value,
                params=params,
                distributions=distributions,
                user_attrs={TRIAL: trial},
                intermediate_values=dict(enumerate(dice)),
            )
        )

    def judge(self, number: int) -> Judge:
        """Raises Pruned after an epoch in which a trial is worse at its best than half of the others were by then."""
        [known] = [trial for trial in self._trials() if trial.number == number]
        trial = Trial(self.study, known._trial_id)

        def judge(row: Row) -> None:
            epoch = int(row["epoch"])
            if epoch not in known.intermediate_values:  # as it is for an epoch that is done again
                trial.report(row["validation_dice"], epoch)
            if epoch + 1 < self.epochs and trial.should_prune():  # after its last epoch a trial is whole
                raise Pruned

        return judge

    def importances(self, candidate: Candidate) -> dict[str, float]:
        """The share of each parameter in what makes the best trials of a loss differ from the others (PED-ANOVA)."""
        trials = [trial for trial in self._trials(TrialState.COMPLETE) if self._is_of(trial, candidate)]
        part = optuna.create_study(direction="maximize")
        part.add_trials([_only(trial, candidate) for trial in trials])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PED-ANOVA is said to be experimental
            found = optuna.importance.get_param_importances(part)
        return {key: found[_key(candidate, key)] for key in sorted(candidate.free)}

    def _is_of(self, trial: FrozenTrial, candidate: Candidate) -> bool:
        return all(_key(candidate, key) in trial.params for key in candidate.free)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)


@lru_cache(maxsize=1)
def _storage(journal: str) -> JournalStorage:
    """The journal, kept open: from then on only what is new in it is read."""
    return JournalStorage(JournalFileBackend(journal))


def _key(candidate: Candidate, name: str) -> str:
    return f"{candidate.name} {name}"


def _distribution(candidate: Candidate, name: str) -> BaseDistribution:
    domain = candidate.free[name]
    if isinstance(domain, Range):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return CategoricalDistribution([str(value) for value in domain.values])


def _stored(candidate: Candidate, name: str, value: Any) -> Any:
    """A value as Optuna keeps it: it knows no lists."""
    return value if isinstance(candidate.free[name], Range) else str(value)


def _drawn(trial: Trial, candidate: Candidate, name: str) -> Any:
    """What Optuna suggests, as the loss takes it."""
    domain, key = candidate.free[name], _key(candidate, name)
    if isinstance(domain, Range):
        return domain.taken(trial.suggest_float(key, domain.low, domain.high, log=domain.log))
    word = trial.suggest_categorical(key, [str(value) for value in domain.values])
    return next(value for value in domain.values if str(value) == word)


def _only(trial: FrozenTrial, candidate: Candidate) -> FrozenTrial:
    """A trial without the parameters that choose the loss."""
    keys = [_key(candidate, name) for name in candidate.free]
    return create_trial(
        value=trial.value,
        params={key: trial.params[key] for key in keys},
        distributions={key: trial.distributions[key] for key in keys},
    )
