"""Evaluate the recorded nets in fp32 and write their accuracy into their configs: `python -m tools.evaluate`.

Everyone who loads the weights gets this accuracy. The command needs all of CIFAR-10.
"""

import click

from qathelpers.common import hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import Batches, load
from qathelpers.data.dataset import Dataset
from qathelpers.results import RECORDED
from qathelpers.training import History, checkpoint, evaluate
from qathelpers.training.run import differences

from . import commands


def note_accuracy(dataset: Dataset, data_name: str, arch: str, name: str) -> tuple[float, float]:
    """Evaluate one recorded net and write its loss and accuracy into its config, in both files of the run.

    Returns:
        The accuracy after the last epoch, as it was computed during the training, and that of the recorded weights.
    """
    history_path = RECORDED / "results" / data_name / arch / f"{name}.npy"
    weights_path = RECORDED / "checkpoints" / data_name / arch / f"{name}.safetensors"
    history, (tensors, header) = History.load(history_path), checkpoint.read(weights_path)
    if differences(history.config, header["config"]):
        raise CourseError(f"{weights_path} and {history_path} are from different runs")
    device = hardware.best_device()
    net = checkpoint.load(weights_path).to(device)
    test_loss, test_acc = evaluate(net, Batches(dataset.test_images, dataset.test_labels, 1000, device=device))
    accuracy = {"test_loss": test_loss, "test_acc": test_acc}
    history.config |= accuracy
    history.save(history_path)
    checkpoint.write(weights_path, tensors, header | {"config": header["config"] | accuracy})
    return float(history["test_acc"][-1]), test_acc


@click.command(cls=commands.Command)
def main() -> None:
    """Evaluate all recorded nets."""
    dataset = load("cifar10")
    if len(dataset.test_labels) != 10_000:
        raise CourseError("unset QAT_MAX_IMAGES: all 10,000 test images are needed")
    for path in sorted((RECORDED / "checkpoints" / "cifar10").glob("*/*.safetensors")):
        then, now = note_accuracy(dataset, "cifar10", path.parent.name, path.stem)
        print(f"{path.parent.name} {path.stem}: {then:.4f} in the last epoch, {now:.4f} in fp32", flush=True)


if __name__ == "__main__":
    main()
