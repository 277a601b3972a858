"""Convert runs that were recorded up to commit b4593ae to today's file format: `python -m tools.migrate data`.

This renames some settings of recipes to the terms of the field. The header of a checkpoint gets a "config" in place of
its "card", and a config gets the precision in which the test columns of its history were computed. Nothing else
changes; before a checkpoint is rewritten, its checksum is verified.
"""

import json
from pathlib import Path

import click
from safetensors import SafetensorError, safe_open

from qathelpers.common.errors import CourseError
from qathelpers.common.files import write_atomically
from qathelpers.training import checkpoint

from . import commands

RECIPE = {
    "vector_lr": "bias_lr",
    "final": "final_lr",
    "max_shift": "translate",
    "growing": "progressive_resizing",
}


def migrated(config: dict) -> dict:
    """Return a config with today's names."""
    result = dict(config)
    if isinstance(config.get("recipe"), dict):
        result["recipe"] = {RECIPE.get(key, key): value for key, value in config["recipe"].items()}
    # Training and evaluation used to share one precision.
    result.setdefault("evaluation", config.get("precision", "unknown"))
    return result


def migrate_config(path: Path) -> bool:
    """Rewrite the config of a history; return whether anything changed."""
    config = json.loads(path.read_text(encoding="utf-8"))
    result = migrated(config)
    if result != config:
        text = json.dumps(result, indent=1) + "\n"
        write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return result != config


def migrate_checkpoint(path: Path) -> bool:
    """Rewrite the header of a checkpoint; return whether anything changed."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is not a dictionary
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CourseError(f"{path} is damaged ({error}): restore it first.") from error
    if "config" in metadata:
        return False
    expected = metadata.pop("sha256", None)
    if expected != checkpoint.digest(tensors, metadata):
        raise CourseError(f"{path} is damaged (checksum mismatch): restore it first.")
    header = {key: json.loads(value) for key, value in metadata.items()}
    checkpoint.write(path, tensors, {"config": migrated(header.pop("card")), **header})
    return True


@click.command(cls=commands.Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Migrate all histories and checkpoints in FOLDER, which has the folders results/ and checkpoints/."""
    changed = [path for path in sorted(folder.glob("results/**/*.json")) if migrate_config(path)]
    changed += [path for path in sorted(folder.glob("checkpoints/**/*.safetensors")) if migrate_checkpoint(path)]
    print(f"{len(changed)} files migrated")


if __name__ == "__main__":
    main()
