"""Never replace a run without a word, neither a finished nor an interrupted one."""

import os
from pathlib import Path

from ..common.errors import CourseError, check_type
from ..common.files import PYTORCH, Unreadable, format_of
from ..common.words import counted
from . import checkpoint
from .history import History
from .run import Run, differences

WAY_OUT = (
    "choose another name, seed or folder (QAT_RESULTS_DIR, if the course chose this one), or pass overwrite=True (in a "
    "terminal: --overwrite)"
)


def refusal(run: Run) -> str:
    """Return a sentence if a training of `run` would replace a run that it must not replace, else "".

    A finished run may be replaced by one with the same settings and at least as many epochs. With more epochs, the
    training starts again: its learning rates depend on the number of epochs. The finished epochs of an interrupted run
    may only be continued with the same settings.

    Raises:
        Unreadable: If files exist but cannot be read now: a training would replace them.
    """
    try:
        check(run, overwrite=False)
    except Unreadable:
        raise
    except CourseError as error:
        return str(error)
    return ""


def check(run: Run, overwrite: bool) -> list[str]:
    """Check that a training of `run` replaces no run with other settings, unless `overwrite` is true.

    After this check, `run` keeps the files of a finished run until it is finished itself.

    Returns:
        A line of output for each file that the training will replace.

    Raises:
        Unreadable: If files exist but cannot be read now: a training would replace them.
        CourseError: If there is a finished run with other settings or with more epochs, an interrupted run with other
            settings, or a file of another program.
    """
    check_type("overwrite", overwrite, bool, "True or False")
    if run.folder is None:
        return []
    finished, lines = _finished(run)
    for path, config in finished.items():
        changes = _changes(config, run.config)
        if changes and not overwrite and not _is_longer(run.config, config):
            raise CourseError(f"{path} holds {_title(config)} with other settings ({changes}): {WAY_OUT}.")
        settings = f" with other settings ({changes})" if changes else ""
        lines.append(f"{path} holds {_title(config)}{settings}: it is replaced when this training is finished.")
    interrupted = _interrupted(run)
    if interrupted and not overwrite:
        raise CourseError(f"{interrupted}: finish it with its own settings, {WAY_OUT}.")
    if interrupted:
        lines.append(f"{interrupted}: they are replaced.")
    run.keeps_finished = bool(finished)
    return lines


def _interrupted(run: Run) -> str:
    """Say which epochs of an interrupted run with other settings are in the resume file of `run`; "" if there are none.

    `Run.read_resume` tells about a file that cannot be used.
    """
    if not os.path.exists(run.resume_path) or run.resume_path.is_dir():
        return ""
    try:
        header = checkpoint.read(run.resume_path)[1]
    except Unreadable:
        raise
    except CourseError:
        return ""
    config, rows = header["config"], header.get("rows")
    if not isinstance(rows, list) or not rows or "epochs" not in config:
        return ""
    changes = _changes(config, run.config)
    kept = (
        f"{len(rows)} of {counted(config['epochs'], 'epoch')} of an interrupted run of {config.get('name', run.name)}"
    )
    return f"{run.resume_path} holds {kept} with other settings ({changes})" if changes else ""


def _finished(run: Run) -> tuple[dict[Path, dict], list[str]]:
    """Return the configs of finished runs in the files of `run`, by file, and a line for each unusable file."""
    finished, lines = {}, []
    for path, read in ((run.weights_path, checkpoint.config_of_any), (run.history_path, _finished_config)):
        if not os.path.exists(path) or path.is_dir():  # a folder is refused by `Run.lock`
            continue
        try:
            config = read(path)
        except Unreadable:
            raise
        except CourseError as error:
            if format_of(path) == PYTORCH:
                raise CourseError(f"{path} is {PYTORCH}, which a training would replace: move it elsewhere.") from error
            lines.append(f"{error} This training replaces it.")
            continue
        if config is not None:
            finished[path] = config
    return finished, lines


def _finished_config(path: Path) -> dict | None:
    history = History.load(path)
    return history.config if len(history) and len(history) >= history.config.get("epochs", 0) else None


def _is_longer(config: dict, other: dict) -> bool:
    """Return whether two configs differ in nothing but the number of epochs, of which `config` has more."""
    return differences(config, other) == ["epochs"] and config["epochs"] > other.get("epochs", 0)


def _title(config: dict) -> str:
    if "name" not in config:
        return "a net of another program"
    accuracy = config.get("test_acc")
    kind = config.get("evaluated_on", "test")
    return f"a finished run of {config['name']}" + (f" ({kind} accuracy {accuracy:.4f})" if accuracy else "")


def _changes(config: dict, wanted: dict) -> str:
    """Return the settings in which two configs differ, with short values."""
    texts = []
    for key in differences(config, wanted):
        values = [other.get(key) for other in (config, wanted)]
        short = all(isinstance(value, int | str) and len(str(value)) <= 40 for value in values)
        texts.append(f"{key} {values[0]}, here {values[1]}" if short else key)
    return ", ".join(texts)
