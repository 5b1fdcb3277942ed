"""A search for settings: runs of one configuration with changes, chosen by Optuna, judged on validation alone.

Layout of a study::

    STUDY/study.json      what is searched, on which data
    STUDY/journal.log     Optuna's own record, from which the same command goes on
    STUDY/trial-0007/     the run of a trial
    STUDY/trials.csv      settings, validation metric, epochs, seconds, how it ended
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from rich.table import Table

from mmrec.config import to_dict
from mmrec.distributed import rank
from mmrec.errors import ConfigError, unknown_name
from mmrec.training.assembly import start_processes
from mmrec.training.config import TrainConfig
from mmrec.training.trainer import Trainer
from mmrec.training.validation import SELECTION_METRIC

if TYPE_CHECKING:
    import optuna

__all__ = ["Range", "Study", "default_space", "parse_range", "with_settings"]

logger = logging.getLogger(__name__)

# Trials that are never ended early, from which it is known what is bad; and epochs after which one may be.
SETTLED_TRIALS, SETTLED_EPOCHS = 4, 3


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values of one setting: a choice of some, or all between two numbers.

    Attributes:
        choices: given, these and no others.
        low, high: bounds, both included.
        log: drawn evenly on a logarithmic scale.
        whole: whole numbers alone.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def draw(self, trial: optuna.Trial, name: str) -> Any:
        """A value for a trial."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


def parse_range(text: str) -> tuple[str, Range]:
    """``name=1,2,4`` (choices), ``name=0.1:0.5``, ``name=log:1e-4:1e-2`` or ``name=int:1:4``.

    Raises: ConfigError if the text is none of these.
    """
    name, equals, values = text.partition("=")
    form = "give NAME=a,b,c (choices), NAME=low:high, NAME=log:low:high or NAME=int:low:high"
    if not equals or not name or not values:
        raise ConfigError(f"cannot search {text!r}; {form}")
    parts = values.split(":")
    kind = parts.pop(0) if parts[0] in ("log", "int") else ""
    if not kind and len(parts) == 1:
        return name, Range(choices=tuple(map(_value, values.split(","))))
    try:
        low, high = (float(part) for part in parts)
    except ValueError as error:
        raise ConfigError(f"cannot search {text!r}; {form}") from error
    if not low < high or (kind == "log" and low <= 0) or not math.isfinite(high - low):
        raise ConfigError(f"cannot search {text!r}: the bounds must ascend, and be above 0 for log")
    return name, Range(low=low, high=high, log=kind == "log", whole=kind == "int")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def default_space(config: TrainConfig) -> dict[str, Range]:
    """What usually matters, for a configuration's own parts."""
    space = {
        "learning_rate": Range(low=3e-4, high=3e-3, log=True),
        "model.temperature": Range(low=0.03, high=0.15, log=True),
        "model.user_encoder.dropout": Range(low=0.1, high=0.6),
    }
    encoder, encoders = config.model.user_encoder, config.model.item_encoder.encoders
    if hasattr(encoder, "num_blocks"):
        space["model.user_encoder.num_blocks"] = Range(low=1, high=3, whole=True)
    if "item_id" in encoders:
        space["model.item_encoder.encoders.item_id.dropout"] = Range(low=0.1, high=0.7)
    if len(encoders) > 1:
        space["id_dropout" if "item_id" in encoders else "modality_dropout"] = Range(low=0.0, high=0.5)
        space["model.contrastive.weight"] = Range(choices=(0.0, 0.1, 0.3))
    return space


def with_settings(config: Any, settings: Mapping[str, Any], where: str = "") -> Any:
    """The configuration with other values at dotted names, ``model.user_encoder.dropout``.

    Raises: ConfigError if there is no such setting, or a value is refused.
    """
    changes: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        first, dot, rest = name.partition(".")
        known = list(config) if isinstance(config, dict) else [field.name for field in dataclasses.fields(config)]
        if first not in known:
            raise ConfigError(f"{where or 'the configuration'}: {unknown_name('setting', first, known)}")
        if dot:
            nested.setdefault(first, {})[rest] = value
        else:
            changes[first] = value
    for first, inner in nested.items():
        part = config[first] if isinstance(config, dict) else getattr(config, first)
        path = f"{where}.{first}" if where else first
        if not (isinstance(part, dict) or dataclasses.is_dataclass(part)):
            raise ConfigError(f"{path} is {part!r} and has no parts; it is a setting itself")
        changes[first] = with_settings(part, inner, path)
    return {**config, **changes} if isinstance(config, dict) else dataclasses.replace(config, **changes)


class Study:
    """A search that goes on where it was.

    Args:
        config: what every trial starts from.
        space: by setting, where to look.
        folder: of the study.
        seed: of Optuna's draws; each trial trains with the configuration's own seed.

    Raises: ConfigError if a setting is unknown, the folder holds another study, or Optuna is not installed.
    """

    def __init__(self, config: TrainConfig, space: Mapping[str, Range], folder: Path, *, seed: int = 0) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("mmrec tune needs Optuna; pip install 'mmrec[tune]'") from error
        for name, values in space.items():  # say now what is wrong with a name
            probe = values.choices[0] if values.choices else int(values.low) if values.whole else values.low
            with_settings(config, {name: probe})
        self.config, self.space, self.folder = config, dict(space), folder
        self.accelerator = start_processes(config)
        self._pruned = optuna.TrialPruned
        self._study: optuna.Study | None = None
        if rank() != 0:
            return
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "data": str(config.data),
            "space": {name: dataclasses.asdict(values) for name, values in space.items()},
            "metric": f"validation {SELECTION_METRIC}",
            "config": {key: value for key, value in to_dict(config).items() if key != "out"},
        }
        stored = folder / "study.json"
        if stored.exists() and json.loads(stored.read_text()) != json.loads(json.dumps(record)):
            raise ConfigError(f"{folder} holds another study; give the same settings and --search, or another --out")
        stored.write_text(json.dumps(record, indent=1))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
            study_name="mmrec",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=SETTLED_TRIALS + 1),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=SETTLED_TRIALS, n_warmup_steps=SETTLED_EPOCHS),
        )
        self._drop_unfinished()

    def _drop_unfinished(self) -> None:
        """A trial that was killed is no result; its settings are tried again."""
        import optuna

        assert self._study is not None
        for trial in self._study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(trial.params)

    def run(self, num_trials: int) -> None:
        """Trials until there are ``num_trials`` with a result; the first one has the configuration's own settings."""
        while True:
            number, settings = self._ask(num_trials)
            if number < 0:
                return
            run = self.folder / f"trial-{number:04d}"
            trainer = Trainer(
                dataclasses.replace(with_settings(self.config, settings), out=run), after_epoch=self._is_hopeless
            )
            trainer.fit()
            self._tell(trainer.state.best_metric, trainer.stopped_early)

    def _ask(self, num_trials: int) -> tuple[int, dict[str, Any]]:
        """The next trial's number and settings, the same on every rank; -1 if there are enough."""
        asked: list[Any] = [-1, {}]
        if self._study is not None:
            import optuna

            done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
            if not self._study.trials:
                own = {name: _setting(self.config, name) for name in self.space}
                self._study.enqueue_trial(own, skip_if_exists=True)
            if len(self._study.get_trials(states=done)) < num_trials:
                self._trial = self._study.ask()
                drawn = {name: values.draw(self._trial, name) for name, values in self.space.items()}
                asked = [self._trial.number, drawn]
                logger.info("trial %d: %s", asked[0], ", ".join(f"{k} {_short(v)}" for k, v in drawn.items()))
        number, settings = broadcast_object_list(asked)
        return number, settings

    def _is_hopeless(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether a trial is worse than the median of the others at this epoch; asked after each validation."""
        answer = [False]
        if self._study is not None:
            self._trial.report(metrics[SELECTION_METRIC], epoch)
            answer[0] = self._trial.should_prune()
        return bool(broadcast_object_list(answer)[0])

    def _tell(self, best: float, stopped_early: bool) -> None:
        if self._study is None:
            return
        import optuna

        state = optuna.trial.TrialState.PRUNED if stopped_early else optuna.trial.TrialState.COMPLETE
        self._study.tell(self._trial, None if stopped_early else best, state=state)
        logger.info("trial %d: %s %.4f%s", self._trial.number, SELECTION_METRIC, best, " (ended early)" * stopped_early)
        self._write_trials()

    def results(self) -> list[dict[str, Any]]:
        """One record a trial with a result, the best first: number, run, metric, state, seconds, settings."""
        if self._study is None:
            return []
        found = []
        for trial in self._study.trials:
            if not trial.state.is_finished() or trial.state.name == "FAIL":
                continue
            value = trial.value if trial.value is not None else max(trial.intermediate_values.values(), default=0.0)
            seconds = trial.duration.total_seconds() if trial.duration else 0.0
            run = f"trial-{trial.number:04d}"
            found.append(
                {"trial": trial.number, "run": run, SELECTION_METRIC: value, "state": trial.state.name.lower(),
                 "epochs": len(trial.intermediate_values), "seconds": round(seconds, 1), **trial.params}
            )  # fmt: skip
        return sorted(found, key=lambda record: (record["state"] != "complete", -record[SELECTION_METRIC]))

    def _write_trials(self) -> None:
        records = self.results()
        with (self.folder / "trials.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(records[0]))
            writer.writeheader()
            writer.writerows(records)


def trials_table(records: Sequence[Mapping[str, Any]], most: int = 10) -> Table:
    """The best trials, as a table."""
    shown = records[:most]
    table = Table(title=f"{len(records)} trials, validation {SELECTION_METRIC}; the test part was not read")
    for name in shown[0]:
        table.add_column(name.rpartition(".")[2] if "." in name else name, justify="left" if name == "run" else "right")
    for record in shown:
        table.add_row(*(_short(value) for value in record.values()))
    return table


def _setting(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
