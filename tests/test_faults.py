"""One table of faults: what goes wrong, what the user sees of it, and what is kept.

Every row starts from a course with two finished runs, BinaryNN and TernaryNN. `given` prepares the fault, `do` runs
into it. What is seen (a regular expression) is a CourseError's sentence, a command's output, or a printed line
(`raises=None`); a mistake in a program, such as a batch size of -1, is a ValueError that names the argument. `keeps`
compares the files of the runs before and after `do`; unless a row says otherwise, not a byte of them changes.
"""

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import nn

from qathelpers import (
    checkpoints,
    data,
    files,
    packing,
    plots,
    quantizers,
    reproduce,
    results,
    shapes,
    training,
    weights,
)
from qathelpers.__main__ import main
from qathelpers.batches import Batches
from qathelpers.checkpoints import Files
from qathelpers.errors import CourseError
from qathelpers.history import History
from qathelpers.nets import Scheme, build
from qathelpers.recipe import Recipe

from .conftest import forget_settings

IMAGES = 60  # of each split
EPOCHS = 2


@dataclass
class Course:
    """A user's course: two finished runs in `runs`, and room for files in `home`."""

    home: Path
    patch: pytest.MonkeyPatch
    data: data.Data

    @property
    def runs(self):
        return self.home / "runs" / "shapes" / "lenet"

    def files(self, name="BinaryNN"):
        return Files(self.runs, name)

    def fit(self, net="BinaryNN", epochs=EPOCHS, **options):
        net = build(net, "lenet") if isinstance(net, str | Scheme) else net
        return training.fit(net, self.data, epochs, **{"device": "cpu", "folder": self.runs} | options)


class Fault(NamedTuple):
    name: str
    sees: str
    do: Callable[[Course], object]
    given: Callable[[Course], object] = lambda course: None
    keeps: Callable[[Course, dict, dict], object] = lambda course, before, after: before == after
    raises: type | None = CourseError


def terminal(line):
    """Return a function that runs `python -m qathelpers LINE` and, if it fails, raises what it printed."""

    def call(course):
        result = CliRunner().invoke(main, line.split())
        if isinstance(result.exception, SystemExit):
            raise CourseError(result.output)
        if result.exception:
            raise result.exception  # the user would see a traceback
        print(result.output)

    return call


def setting(change):
    return terminal(f"{TRAIN} --set {change}")


def variable(name, value):
    """Return a function that sets an environment variable; {home} is the course's folder."""
    return lambda course: course.patch.setenv(name, value.format(home=course.home))


def content(path, change):
    """Return a function that changes the bytes of a run's file."""
    return lambda course: (course.runs / path).write_bytes(change((course.runs / path).read_bytes()))


def half(content):
    return content[: len(content) // 2]


def one_bit(content):
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


def swapped(*suffixes):
    """Return a function that puts BinaryNN's files with these suffixes in the place of TernaryNN's."""

    def swap(course):
        for suffix in suffixes:
            shutil.copy(course.runs / f"BinaryNN{suffix}", course.runs / f"TernaryNN{suffix}")

    return swap


def foreign(**metadata):
    """Return a function that puts another program's .safetensors in the place of BinaryNN's."""
    return lambda course: safetensors.torch.save_file({"x": torch.zeros(3)}, course.files().weights, metadata)


def foreign_card(**changes):
    """Return a function that writes a file as the course does, with a card that no training wrote."""
    card = {"name": "BinaryNN", "arch": "lenet"} | changes
    return lambda course: checkpoints.save(build("BinaryNN", "lenet"), course.files().weights, card)


def card(**changes):
    """Return a function that changes BinaryNN's card; None removes an entry."""

    def change(course):
        path = course.files().history.with_suffix(".json")
        changed = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))

    return change


def resume_file(change=lambda net: net, tail=b""):
    """Return a function that interrupts a training of 3 epochs after the first one, then spoils its resume file."""

    def write(course):
        stopped = course.fit("BinaryNN", 3, on_epoch=stop)
        net = change(build("BinaryNN", "lenet"))
        course.files().write_resume(stopped, net, [])
        if tail:
            course.files().resume.write_bytes(tail)

    return write


def stop(history):
    raise KeyboardInterrupt


def file_in_the_way(course):
    """Where the runs' folder should be there is a file."""
    shutil.move(course.home / "runs", course.home / "moved")
    (course.home / "runs").write_text("no folder")


def mount(course, options):
    """Put a file system of its own, in memory, where the runs are."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(course.home / "runs")]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")


def read_only(course):
    mount(course, "ro")


def disk_of_one_epoch(course):
    mount(course, "size=800k")


def no_rights(course):
    if not os.geteuid():
        pytest.skip("root may write everywhere")
    course.runs.chmod(0o500)


def disk_full(course):
    """From now on nothing can be written any more."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    course.patch.setattr(files.os, "replace", full)


def disk_full_after_an_epoch(course):
    course.fit(epochs=3, on_epoch=stop)
    disk_full(course)


def fit_beside_another_process(course):
    with course.files().lock():
        course.fit(epochs=3)


def no_locks(course):
    """The file system, such as that of a network, knows no locks."""

    def acquire(*arguments, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    course.patch.setattr(checkpoints.FileLock, "acquire", acquire)


def everything_but(*names):
    """Return a comparison that allows files of these names, and new plots, to change."""

    def others(contents):
        return {k: v for k, v in contents.items() if Path(k).name not in names and Path(k).suffix != ".png"}

    return lambda course, before, after: others(before) == others(after)


def all_but(name):
    """Return a comparison that allows the files of one run to change."""
    return everything_but(*(f"{name}{suffix}" for suffix in (".npy", ".json", ".safetensors", ".resume.safetensors")))


def the_first_epoch(course, before, after):
    """Once there is room again, the training goes on from the first epoch."""
    if os.path.ismount(course.home / "runs"):
        subprocess.run(["mount", "-o", "remount,size=10m", str(course.home / "runs")], check=True)
    course.patch.undo()
    forget_settings(course.patch)  # the undoing has brought those of the caller back
    lines = []
    course.fit(epochs=3, say=lines.append)
    return lines[0] == "BinaryNN: resumed after epoch 1 of 3" and not [p for p in after if ".npy." in p]


def pictures(count, **changes):
    kinds = {"images": torch.uint8, "labels": torch.int64} | changes
    return torch.zeros(count, 3, 32, 32, dtype=kinds["images"]), torch.zeros(count, dtype=kinds["labels"])


def pack(values, **alphabet):
    return packing.pack(torch.tensor(values), **{"lowest": -1, "step": 2, "levels": 2} | alphabet)


def own(name, **options):
    return Scheme(name, "W1A32", **{"weight": quantizers.BinaryWeight} | options)


def renamed(net, name):
    net.name = name
    return net


def wider(net):
    net.classifier[1], net.classifier[4] = nn.Linear(400, 130), nn.Linear(130, 84)
    return net


def load(course):
    return checkpoints.load(course.files().weights)


def load_history(course):
    return History.load(course.files().history)


def save_history(course):
    load_history(course).save(course.files().history)


def save_weights(course):
    checkpoints.save(build("BinaryNN", "lenet"), course.files().weights, {"name": "BinaryNN"})


def save_plot(course):
    plots.save(plots.loss([load_history(course)]), course.runs / "plot.png")


def record(course):
    course.patch.setattr(results, "RECORDED", course.home / "recorded")
    results.record("BinaryNN", "lenet", "shapes", seed=0)


def array(values):
    """Return a function that puts this array in the place of BinaryNN's history."""
    return lambda course: np.save(course.files().history, values)


def folder(name):
    """Return a function that puts a folder in the place of a run's file."""

    def replace_by_folder(course):
        (course.runs / name).unlink()
        (course.runs / name).mkdir()

    return replace_by_folder


def recorded_under_another_name(course):
    course.patch.setattr(results, "RECORDED", course.home / "recorded")
    target = course.home / "recorded" / "checkpoints" / "shapes" / "lenet" / "TernaryNN.safetensors"
    target.parent.mkdir(parents=True)
    shutil.copy(course.files().weights, target)


def fit_beside_a_process_on_another_run(course):
    with course.files().lock():
        course.fit("TernaryNN", 3)


def leftovers(course):
    """Leave files as a process leaves them that is killed while it writes."""
    for suffix in (".npy", ".json", ".safetensors", ".resume.safetensors"):
        (course.runs / f".BinaryNN{suffix}.abcd1234").write_bytes(b"half a fi")


def only_runs(course, before, after):
    return all_but("BinaryNN")(course, {k: v for k, v in before.items() if "abcd1234" not in k}, after)


def a_card(**changes):
    card = {"recipe": {}, "name": "BinaryNN", "arch": "lenet", "init_seed": 0, "data": "shapes", "seed": 0}
    return card | {"train_images": IMAGES, "test_images": IMAGES, "epochs": 1} | changes


# fmt: off
TRAIN = "train --arch lenet --name BinaryNN -n 2"
COMPARE = "compare --arch lenet --data shapes"
GONE = r"(?s).*\.npy is missing: train the net again, or name another history"

FAULTS = [
    # ------------------------------------------------------------------ names
    Fault("a net that there is not", r"no net 'FourNN': choose one of PytorchNN, Ternary", lambda c: build("FourNN")),
    Fault("a number as a net's name", r"no net 3: choose one of PytorchNN", lambda c: build(3)),
    Fault("a list of nets", r"no net \['BinaryNN'\]: choose", lambda c: build(["BinaryNN"])),
    Fault("an architecture that there is not", r"no architecture 'vgg': choose.* lenet",
          lambda c: build("XnorNN", "vgg")),
    Fault("a width that is none", r"convnet-xyz is no width: give a number", lambda c: build("XnorNN", "convnet-xyz")),
    Fault("a width of a net that has one", r"lenet has one width only", lambda c: build("XnorNN", "lenet-x2")),
    Fault("a data set that there is not", r"no data set 'mnist': choose.* shapes", lambda c: data.load("mnist")),
    Fault("a recorded net that there is not", r"No BinNN .* are: BinaryNN", lambda c: results.recorded_net("BinNN")),
    Fault("a recorded run that there is not", r"No run .* are: Pytorch", lambda c: results.recorded_history("BinNN")),
    Fault("a recorded architecture that is not", r"there are: none", lambda c: results.recorded_net("BinaryNN", "vgg")),
    Fault("the name of a scheme as a path", r"'\.\./mine' names no file: give", lambda c: c.fit(own("../mine"))),
    Fault("a scheme without a name", r"'' names no file: give the net a name", lambda c: c.fit(own(""))),
    Fault("a name too long for a file", r"'x+' names no file: .* up to 80", lambda c: c.fit(own("x" * 300))),
    Fault("a net's name that hides its files", r"'\.x' names no",
          lambda c: c.fit(renamed(build("XnorNN", "lenet"), ".x"))),
    Fault("an own scheme under a name of the course", r"BinaryNN is a scheme of the course: give your own another name",
          lambda c: build(own("BinaryNN", weight=quantizers.Int4Weight))),
    Fault("a path as the name to record", r"'\.\./x' names no file",
          lambda c: results.record("../x", "lenet", "shapes")),
    Fault("a column that there is not", r"has the columns epoch, train_loss", lambda c: c.fit()["acc"],
          keeps=all_but("BinaryNN"), raises=KeyError),
    # ------------------------------------------------------- types and ranges
    Fault("a quantizer's name in the place of its class", r"weight of My is 'binary': give a quantizer's class",
          lambda c: own("My", weight="binary")),
    Fault("a negative seed", r"seed is -1; it takes a whole number from 0 ", lambda c: build("XnorNN", seed=-1),
          raises=ValueError),
    Fault("half a seed", r"seed is 0\.5; it takes a whole", lambda c: build("XnorNN", seed=0.5), raises=ValueError),
    Fault("a seed too large", r"seed is 1\d+; .* to 4,294,967,295", lambda c: build("XnorNN", seed=10**20),
          raises=ValueError),
    Fault("a net's name to train", r"net is a str: give what `build` returns",
          lambda c: training.fit("BinaryNN", c.data, 1), raises=ValueError),
    Fault("a data set's name to train on", r"data is a str: give what `data.load` returns",
          lambda c: training.fit(build("XnorNN"), "shapes", 1), raises=ValueError),
    Fault("a recipe in a dictionary", r"recipe is a dict: give a `Recipe`", lambda c: c.fit(recipe={"lr": 0.1}),
          raises=ValueError),
    Fault("no epochs", r"epochs is 0; it takes a whole number from 1 up", lambda c: c.fit(epochs=0), raises=ValueError),
    Fault("half an epoch", r"epochs is 1\.5; it takes a whole", lambda c: c.fit(epochs=1.5), raises=ValueError),
    Fault("epochs in words", r"epochs is 'ten'; it takes a whole", lambda c: c.fit(epochs="ten"), raises=ValueError),
    Fault("a negative seed to train with", r"seed is -1; it", lambda c: c.fit(seed=-1), raises=ValueError),
    Fault("a device that there is not", r"no device 'tpu' here: leave the device out", lambda c: c.fit(device="tpu")),
    Fault("a training without images", r"at least 1 of each; got 0 images",
          lambda c: training.fit(build("XnorNN"), c.data.take(0), 1), raises=ValueError),
    Fault("fewer than no images", r"train is -5; it takes a whole", lambda c: c.data.take(-5), raises=ValueError),
    Fault("half an image", r"test is 0\.5; it takes a whole", lambda c: c.data.take(test=0.5), raises=ValueError),
    Fault("no image set aside", r"cannot set 0 of 60", lambda c: c.data.validation_split(0), raises=ValueError),
    Fault("all images set aside", r"cannot set 60 of 60", lambda c: c.data.validation_split(60), raises=ValueError),
    Fault("a share of the images set aside", r"cannot set 0\.1 of", lambda c: c.data.validation_split(0.1),
          raises=ValueError),
    Fault("fewer than no drawn images", r"negative", lambda c: shapes.make(-1), raises=ValueError),
    Fault("batches without images", r"at least 1 of each; got 0 images", lambda c: Batches(*pictures(0)),
          raises=ValueError),
    Fault("fewer labels than images", r"as many labels as images .* 3 images, 2 labels",
          lambda c: Batches(pictures(3)[0], pictures(2)[1]), raises=ValueError),
    Fault("empty batches", r"batch size is 0; it takes", lambda c: Batches(*pictures(3), 0), raises=ValueError),
    Fault("batches of half images", r"batch size is 2\.5", lambda c: Batches(*pictures(3), 2.5), raises=ValueError),
    Fault("shifts to the left alone", r"max_shift is -1; it takes", lambda c: Batches(*pictures(3), max_shift=-1),
          raises=ValueError),
    Fault("images of floats", r"images of uint8 .* got images of torch\.float32",
          lambda c: Batches(*pictures(3, images=torch.float32)), raises=ValueError),
    Fault("labels of floats", r"labels of int64 .* and labels of torch\.float32",
          lambda c: Batches(*pictures(3, labels=torch.float32)), raises=ValueError),
    Fault("an image that is no batch", r"\(n, 3, h, w\).* got images of torch\.uint8 \(3, 32, 32\)",
          lambda c: Batches(pictures(1)[0][0], pictures(1)[1]), raises=ValueError),
    Fault("an integer below the lowest", r"not all integers are of the 2 from -1 to 1", lambda c: pack([-3, 1]),
          raises=ValueError),
    Fault("an integer above the highest", r"not all .* from -1 to 1", lambda c: pack([1, 3]), raises=ValueError),
    Fault("an integer between the levels", r"not all .* from -1 to 1", lambda c: pack([0, 1]), raises=ValueError),
    Fault("a fraction to pack", r"not all .* from 0 to 1", lambda c: pack([0.5], lowest=0, step=1), raises=ValueError),
    Fault("not a number to pack", r"not all .* from 0 to 1", lambda c: pack([float("nan")], lowest=0, step=1),
          raises=ValueError),
    Fault("levels without a step", r"step is 0; it takes", lambda c: pack([1], step=0), raises=ValueError),
    Fault("a single level", r"2 to 256 values, not 1$", lambda c: pack([-1], levels=1), raises=ValueError),
    Fault("more levels than a byte has", r"2 to 256 values, not 257", lambda c: pack([1], levels=257),
          raises=ValueError),
    Fault("fewer bytes than packed integers need", r"2 bytes do not hold 17 integers of 2 levels",
          lambda c: packing.unpack(torch.zeros(2, dtype=torch.uint8), [17], 0, 1, 2), raises=ValueError),
    Fault("a first layer where there is none", r"no convolution and no linear layer",
          lambda c: weights.first_layer(nn.ReLU()), raises=ValueError),
    Fault("a table of two data sets", r"runs are of cifar10 and shapes: compare runs of one data set",
          lambda c: results.table([History({"data": kind}, np.zeros(1, training.History({}).rows.dtype))
                                   for kind in ("shapes", "cifar10")])),
    Fault("a table of a training stopped in its first epoch", r"MyNN has no epoch to show: its training was stopped",
          lambda c: results.table([History({"name": "MyNN", "data": "shapes"})])),
    # ------------------------------------------------- settings of the recipe
    Fault("a setting that there is not", r"no 'shift': set one of batch_size, op", setting("shift=2")),
    Fault("a setting without a value", r"lr takes a number, not ''", setting("lr")),
    Fault("half an image a batch", r"batch_size takes a whole number, not '1\.5'", setting("batch_size=1.5")),
    Fault("no image a batch", r"batch_size takes a whole number from 1 to inf, not 0", setting("batch_size=0")),
    Fault("yes for true", r"augment takes true or false, not 'yes'", setting("augment=yes")),
    Fault("an optimizer that there is not", r"optimizer takes one of muon, adam, not 'sgd'", setting("optimizer=sgd")),
    Fault("a learning rate that is no number", r"lr takes a number from 0 to 1e\+06, not nan", setting("lr=nan")),
    Fault("a learning rate without an end", r"lr takes .* not inf", setting("lr=inf")),
    Fault("a learning rate uphill", r"vector_lr takes .* not -0\.1", setting("vector_lr=-0.1")),
    Fault("a smoothing beyond all labels", r"label_smoothing takes a number from 0 to 1, not 2",
          setting("label_smoothing=2")),
    Fault("shifts out of the image", r"max_shift takes a whole number from 0 to 8, not 40", setting("max_shift=40")),
    Fault("images that grow for twice the training", r"growing takes .* from 0 to 1, not 2", setting("growing=2")),
    Fault("weights clipped to nothing", r"latent_clip takes .* not 0", setting("latent_clip=0")),
    Fault("a text as a learning rate", r"lr takes a number, not '0\.1'", lambda c: Recipe(lr="0.1")),
    Fault("a switch as a number", r"batch_size takes a whole number, not True", lambda c: Recipe(batch_size=True)),
    # ---------------------------------------------------------------- commands
    Fault("a command that there is not", r"No such command 'trian'", terminal("trian")),
    Fault("train: no epochs", r"0 is not in the range x>=1", terminal("train --name BinaryNN -n 0")),
    Fault("train: epochs in words", r"'ten' is not a valid integer", terminal("train --name BinaryNN -n ten")),
    Fault("train: a net that there is not", r"'FourNN' is not one of 'PytorchNN'",
          terminal("train --name FourNN -n 1")),
    Fault("train: an architecture that there is not", r"no architecture 'vgg': choose one of lenet, con",
          terminal(f"{TRAIN} --arch vgg")),
    Fault("train: a data set that there is not", r"'mnist' is not one of 'auto', 'cif",
          terminal(f"{TRAIN} --data mnist")),
    Fault("train: a negative seed", r"-1 is not in the range 0<=x<=4294967295", terminal(f"{TRAIN} --seed -1")),
    Fault("train: a seed too large", r"is not in the range 0<=x<=4294967295",
          terminal(f"{TRAIN} --seed 99999999999999999999")),
    Fault("run: no epochs", r"0 is not in the range x>=1", terminal("run -n 0")),
    Fault("compare: an empty folder", r"There are no runs in .*convnet: run `make run`",
          terminal("compare --data shapes")),
    Fault("compare: a folder that there is not", r"There are no runs in nowhere: run", terminal("compare nowhere")),
    Fault("compare: a file in the place of a folder", r"There are no runs in README.md", terminal("compare README.md")),
    Fault("record: a run that there is not", GONE, terminal("record BinaryNN")),
    Fault("record: a net that there is not", GONE, terminal("record FourNN")),
    Fault("record: no name", r"Missing argument 'NAMES", terminal("record")),
    Fault("reproduce: a run that there is not", r"No run of MyNN .* there are: PytorchNN", terminal("reproduce MyNN")),
    Fault("reproduce: a data set without runs", r"there are: none", terminal("reproduce BinaryNN --data shapes")),
    Fault("notebooks: a file that there is not", r"'x\.ipynb' does not exist", terminal("notebooks x.ipynb")),
    Fault("notebooks: a file that is none", r"README.md is not a notebook", terminal("notebooks README.md")),
    Fault("bench: an architecture that there is not", r"no architecture 'vgg'", terminal("bench sizes --arch vgg")),
    # --------------------------------------------------- environment variables
    Fault("QAT_MAX_EPOCHS in words", r"QAT_MAX_EPOCHS is 'few'; set it to a whole number", lambda c: c.fit(),
          given=variable("QAT_MAX_EPOCHS", "few")),
    Fault("QAT_MAX_EPOCHS of 0", r"QAT_MAX_EPOCHS is '0'; set it to a whole number", terminal(TRAIN),
          given=variable("QAT_MAX_EPOCHS", "0")),
    Fault("QAT_MAX_IMAGES in words", r"QAT_MAX_IMAGES is 'many'; set it to a whole", lambda c: data.load("shapes"),
          given=variable("QAT_MAX_IMAGES", "many")),
    Fault("QAT_DATA of another course", r"There is no data set 'mnist': choose one of auto", lambda c: data.load(),
          given=variable("QAT_DATA", "mnist")),
    Fault("QAT_DATA_DIR without a copy", r"runs holds no CIFAR-10: set QAT_DATA_DIR to a folder",
          terminal("data --data cifar10"),
          given=variable("QAT_DATA_DIR", "{home}/runs")),
    Fault("QAT_DATA_DIR that there is not", r"nowhere holds no CIFAR-10: set QAT_DATA_DIR",
          lambda c: data.load("cifar10"),
          given=variable("QAT_DATA_DIR", "/nowhere")),
    Fault("QAT_DATA_DIR too long for a path", r"x could not be read \(.*File name too long",
          lambda c: data.load("cifar10"),
          given=variable("QAT_DATA_DIR", "/" + 300 * "x")),
    Fault("QAT_DATA_DIR of nobody", r"QAT_DATA_DIR is '~nobody-here/x', which is no path .* set it",
          lambda c: data.load("cifar10"),
          given=variable("QAT_DATA_DIR", "~nobody-here/x")),
    # --------------------------------------------------------------- histories
    Fault("a history that there is not", GONE, lambda c: History.load(c.runs / "XnorNN.npy")),
    Fault("half a history", r"BinaryNN\.npy is damaged .* delete it and train", load_history,
          given=content("BinaryNN.npy", half)),
    Fault("an empty history", r"BinaryNN\.npy is damaged", load_history, given=content("BinaryNN.npy", lambda c: b"")),
    Fault("a history with another bit", r"BinaryNN\.npy and BinaryNN\.json are not of one run, or one is damaged",
          load_history, given=content("BinaryNN.npy", one_bit)),
    Fault("another program's .npy", r"not a history of this course: it needs the columns epoch", load_history,
          given=array(np.zeros(3))),
    Fault("a .npy of pickled objects", r"BinaryNN\.npy is damaged .*allow_pickle=False", load_history,
          given=array(np.array([{"a": 1}]))),
    Fault("an archive of arrays", r"BinaryNN\.npy is damaged", load_history,
          given=lambda c: np.savez(open(c.files().history, "wb"), np.zeros(3))),  # noqa: SIM115
    Fault("a folder in the place of a history", r"BinaryNN\.npy is damaged .*Is a directory", load_history,
          given=folder("BinaryNN.npy")),
    Fault("a history of another run", r"TernaryNN\.npy and TernaryNN\.json are not of one run",
          lambda c: History.load(c.runs / "TernaryNN.npy"), given=swapped(".npy")),
    Fault("a card of another run", r"TernaryNN\.npy and TernaryNN\.json are not of one run",
          lambda c: History.load(c.runs / "TernaryNN.npy"), given=swapped(".json")),
    Fault("a history without a card", r"BinaryNN\.json is missing: train the net again", load_history,
          given=lambda c: (c.runs / "BinaryNN.json").unlink()),
    Fault("half a card", r"BinaryNN\.npy is damaged", load_history, given=content("BinaryNN.json", half)),
    Fault("a card that is a list", r"not a history of this course", load_history,
          given=content("BinaryNN.json", lambda c: b"[]")),
    Fault("a card of a thousand brackets", r"BinaryNN\.npy is damaged", load_history,
          given=content("BinaryNN.json", lambda c: b"[" * 100_000)),
    Fault("a card without its seed", r"card of .*BinaryNN\.npy lacks seed: move it",
          lambda c: results.find_histories(c.runs),
          given=card(seed=None)),
    Fault("compare: a foreign file among the runs", r"(?s)^Error: .*BinaryNN.npy is not a history", terminal(COMPARE),
          given=array(np.zeros(3))),
    Fault("compare: half a history among the runs", r"(?s)^Error: .*BinaryNN.npy is damaged", terminal(COMPARE),
          given=content("BinaryNN.npy", half)),
    Fault("compare: runs of two data sets", r"runs are of cifar10 and shapes: compare runs of one", terminal(COMPARE),
          given=card(data="cifar10")),
    # ------------------------------------------------------------- checkpoints
    Fault("a checkpoint that there is not", r"XnorNN\.safetensors is missing: train the net first, or name another",
          lambda c: checkpoints.load(c.files("XnorNN").weights)),
    Fault("half a checkpoint", r"BinaryNN\.safetensors is damaged .* delete it and train", load,
          given=content("BinaryNN.safetensors", half)),
    Fault("an empty checkpoint", r"BinaryNN\.safetensors is damaged", load,
          given=content("BinaryNN.safetensors", lambda c: b"")),
    Fault("a checkpoint with another bit", r"is damaged \(its checksum is another\): delete it", load,
          given=content("BinaryNN.safetensors", one_bit)),
    Fault("a pickle in the place of a checkpoint", r"BinaryNN\.safetensors is damaged", load,
          given=lambda c: torch.save({"x": torch.zeros(3)}, c.files().weights)),
    Fault("a folder in the place of a checkpoint", r"BinaryNN\.safetensors is damaged", load,
          given=folder("BinaryNN.safetensors")),
    Fault("another program's checkpoint", r"not a checkpoint of this course: it has no card", load, given=foreign()),
    Fault("a checkpoint of Hugging Face", r"not a checkpoint of this course: it has no card", load,
          given=foreign(format="pt")),
    Fault("another program's card", r"is damaged \(its checksum", load, given=foreign(card="King of Hearts")),
    Fault("a checkpoint of another architecture",
          r"holds a BinaryNN \(lenet\), which does not fit this BinaryNN \(convnet\): .*; build the net",
          lambda c: checkpoints.load(c.files().weights, build("BinaryNN"))),
    Fault("a checkpoint of a wider net", r"weight is \(120, 400\) in the file and \(130, 400\) in the net",
          lambda c: checkpoints.load(c.files().weights, wider(build("BinaryNN", "lenet")))),
    Fault("a checkpoint under another net's name", r"it is quantized as BinaryNN, not as TernaryNN",
          lambda c: checkpoints.load(c.files("TernaryNN").weights, build("TernaryNN", "lenet")),
          given=swapped(".safetensors")),
    Fault("a checkpoint of a net of one's own", r"holds a MyNN \(lenet\), .*: build the net that the file is for", load,
          given=foreign_card(name="MyNN")),
    Fault("a checkpoint of a nameless net", r"holds a None \(lenet\), which is not of the course", load,
          given=foreign_card(name=None)),
    Fault("a recorded checkpoint under another net's name", r"TernaryNN\.safetensors holds a BinaryNN: replace it",
          lambda c: results.recorded_net("TernaryNN", "lenet", "shapes"), given=recorded_under_another_name),
    Fault("to record a run under another net's name", r"are not of one finished run: train to the end first",
          lambda c: results.record("TernaryNN", "lenet", "shapes"), given=swapped(".npy", ".json", ".safetensors")),
    Fault("to record weights of another run", r"are not of one finished run: train to the end first",
          lambda c: results.record("TernaryNN", "lenet", "shapes"), given=swapped(".safetensors")),
    # ---------------------------- a run that cannot be used is named and trained
    Fault("to train where half a history is", r"BinaryNN\.npy is damaged .*\n.*training for 2 epochs", terminal(TRAIN),
          given=content("BinaryNN.npy", half), keeps=all_but("BinaryNN"), raises=None),
    Fault("to train where another run's weights are", r"is of another run than TernaryNN\.npy\.\n.*training",
          terminal(TRAIN.replace("Binary", "Ternary")), given=swapped(".safetensors"), keeps=all_but("TernaryNN"),
          raises=None),
    Fault("to train for other epochs than before", r"with other settings \(epochs\) and will be replaced\.\n.*training",
          terminal(TRAIN + " -n 1"), keeps=all_but("BinaryNN"), raises=None),
    Fault("half a resume file", r"resume\.safetensors is of no use, the training starts anew \(",
          lambda c: c.fit(epochs=3),
          given=resume_file(tail=b"half a fi"), keeps=all_but("BinaryNN"), raises=None),
    Fault("a resume file of other settings", r"of a training with other settings; this one starts",
          lambda c: c.fit(epochs=4),
          given=resume_file(), keeps=all_but("BinaryNN"), raises=None),
    Fault("a resume file of other layers", r"of a net of other layers \(classifier\.1.*\); this one starts anew",
          lambda c: c.fit(epochs=3), given=resume_file(wider), keeps=all_but("BinaryNN"), raises=None),
    # ----------------------------------------------- no place, or none any more
    Fault("a file in the place of the folder", r"runs/.* could not be written .* set QAT_RESULTS_DIR to a folder",
          terminal(TRAIN), given=file_in_the_way),
    Fault("a disk that is read-only", r"could not be written \(Read-only file system\): .* QAT_RESULTS_DIR",
          terminal(TRAIN), given=read_only),
    Fault("a folder without the right to write", r"could not be written \(Permission denied\): .* QAT_RESULTS_DIR",
          lambda c: c.fit(epochs=3), given=no_rights),
    Fault("a disk full in the second epoch", r"could not be written \(.*No space left on device.*\): free some space",
          lambda c: c.fit(epochs=3), given=disk_of_one_epoch, keeps=the_first_epoch),
    Fault("a disk full after a resumed epoch", r"could not be written \(No space left on device\): free some space",
          lambda c: c.fit(epochs=3), given=disk_full_after_an_epoch, keeps=the_first_epoch),
    Fault("a disk full while a history is saved", r"BinaryNN\.npy could not be written \(No space", save_history,
          given=disk_full),
    Fault("a disk full while weights are saved", r"BinaryNN\.safetensors could not be written \(No space", save_weights,
          given=disk_full),
    Fault("a disk full while a plot is saved", r"plot\.png could not be written \(No space left", save_plot,
          given=disk_full),
    Fault("a disk full while a run is recorded", r"could not be written \(No space", record, given=disk_full),
    # --------------------------------------------------------- other processes
    Fault("a second process on the same run", r"BinaryNN is being trained in .*lenet by another process: wait for it",
          fit_beside_another_process),
    Fault("a second process on another run", r"TernaryNN epoch 3/3", fit_beside_a_process_on_another_run,
          keeps=all_but("TernaryNN"), raises=None),
    Fault("a file system without locks", r"BinaryNN epoch 3/3", lambda c: c.fit(epochs=3), given=no_locks,
          keeps=all_but("BinaryNN"), raises=None),
    Fault("what a killed process left", r"BinaryNN epoch 3/3", lambda c: c.fit(epochs=3), given=leftovers,
          keeps=only_runs, raises=None),
    # ----------------------------------------------------------- reproduction
    Fault("a card of unknown settings", r"of another version of the course .*colour.* record the run again",
          lambda c: reproduce.reproduce(a_card() | {"recipe": {"colour": 1}})),
    Fault("a card without a recipe", r"of another version of the course", lambda c: reproduce.reproduce({})),
    Fault("a card with an impossible seed", r"of another version", lambda c: reproduce.reproduce(a_card(init_seed=-1))),
    Fault("a reproduction of fewer images", r"had 20,000 training and 5,000 test images, here are 60 and 60: unset",
          lambda c: reproduce.reproduce(a_card(train_images=20_000, test_images=5_000))),
]
# fmt: on


@pytest.fixture(scope="session")
def small():
    return data.Data(*shapes.make(IMAGES, IMAGES), shapes.CLASSES, "shapes")


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        for name in ("BinaryNN", "TernaryNN"):
            training.fit(build(name, "lenet"), small, EPOCHS, device="cpu", folder=folder)
    return folder


@pytest.fixture
def course(small, trained, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(trained, home / "runs" / "shapes" / "lenet")
    monkeypatch.setenv("QAT_RESULTS_DIR", str(home / "runs"))
    monkeypatch.setenv("QAT_DATA", "shapes")
    monkeypatch.setenv("QAT_MAX_IMAGES", str(IMAGES))
    yield Course(home, monkeypatch, small)
    if os.path.ismount(home / "runs"):
        subprocess.run(["umount", str(home / "runs")], check=True)


def contents(folder):
    """Return the bytes of all files in a folder, by path; locks are no content."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_user_sees_a_sentence_and_keeps_what_was_there(course, capsys, fault):
    fault.given(course)
    before = contents(course.home)
    capsys.readouterr()
    if fault.raises:
        with pytest.raises(fault.raises, match=fault.sees) as raised:
            fault.do(course)
        assert raised.type is fault.raises
    else:
        fault.do(course)
        assert re.search(fault.sees, capsys.readouterr().out)
    assert fault.keeps(course, before, contents(course.home))


def test_no_two_rows_are_of_one_name():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
