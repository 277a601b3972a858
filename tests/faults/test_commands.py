"""Commands that cannot be carried out end with an exit status and a sentence, without a traceback."""

import pytest
from click.testing import CliRunner

from qathelpers.__main__ import main as qat
from tools import notebooks, record

from .conftest import assert_names, contents

PROGRAMS = {"qat": qat, "notebooks": notebooks.main, "record": record.main}
TRAIN = "qat train -n 2 --name BinaryNN --arch lenet"

# A command ({runs} is the folder of the user's runs), its exit status, what its output names.
COMMANDS = [
    (f"{TRAIN} --data mnist", 2, ["--data", "'mnist'", "cifar10"]),
    (f"{TRAIN} --seed -1", 2, ["--seed", "-1"]),
    (f"{TRAIN} --seed 4294967296", 2, ["--seed", "4294967296"]),
    ("qat run -n 0", 2, ["--epochs", "0"]),
    ("qat compare --data shapes", 1, ["convnet", "qat run"]),
    ("qat compare {runs}/nowhere", 1, ["nowhere"]),
    ("qat compare {runs}/BinaryNN.json", 1, ["BinaryNN.json"]),
    ("qat reproduce MyNN", 1, ["MyNN", "PytorchNN"]),
    ("qat reproduce BinaryNN --data shapes", 1, ["BinaryNN", "shapes", "none"]),
    ("qat bench sizes --arch vgg", 1, ["'vgg'", "lenet"]),
    ("record", 2, ["NAMES"]),
    ("notebooks {runs}/x.ipynb", 2, ["x.ipynb"]),
    ("notebooks {runs}/BinaryNN.npy", 1, ["BinaryNN.npy", ".ipynb"]),
    ("notebooks {runs}/BinaryNN.json", 1, ["BinaryNN.json", ".ipynb"]),
]


@pytest.mark.parametrize(("line", "status", "named"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_a_wrong_command_says_what_is_wrong(runs, line, status, named):
    before = contents(runs)
    program, *arguments = line.format(runs=runs).split()
    result = CliRunner().invoke(PROGRAMS[program], arguments)
    assert isinstance(result.exception, SystemExit), result.exception  # anything else would be a traceback
    assert result.exit_code == status
    assert_names(result.output, named)
    assert contents(runs) == before
