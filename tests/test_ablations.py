"""The list of what was tried: complete, and about nets that the course has."""

from pathlib import Path

import pandas as pd

from qathelpers import nets

FOLDER = Path(__file__).parent.parent / "docs" / "results"
TABLE = pd.read_csv(FOLDER / "ablations.csv")


def test_every_row_says_what_was_trained_and_on_which_images_it_was_measured():
    known = ["question", "change", "net", "architecture", "epochs", "seeds", "accuracy", "measured on", "hardware"]
    assert list(TABLE.columns) == [*known[:-1], "training accuracy", "hardware", "source"]
    assert not TABLE[known].isna().any(axis=None) and not TABLE.duplicated().any()
    assert TABLE["accuracy"].between(0.5, 1).all() and (TABLE["epochs"] > 0).all() and (TABLE["seeds"] > 0).all()
    assert set(TABLE["measured on"]) == {"validation", "test"}
    assert set(TABLE["net"]) <= set(nets.SCHEMES)


def test_accuracies_on_the_test_images_have_a_source_and_no_row_was_chosen_by_them():
    on_test = TABLE[TABLE["measured on"] == "test"]
    assert on_test["source"].str.fullmatch(r"[0-9a-f]{7}:data/results/cifar10/[\w.-]+/\w+\.npy").all()
    assert not on_test["change"].str.contains("chosen").any()
    assert TABLE[TABLE["measured on"] == "validation"]["source"].isna().all()


def test_every_architecture_can_be_built():
    for arch in TABLE["architecture"].unique():
        assert nets.build("BinaryNN", arch).spec.arch == arch


def test_the_page_explains_every_column_and_names_only_questions_that_are_there():
    page = (FOLDER / "ablations.md").read_text(encoding="utf-8")
    assert all(column in page for column in TABLE.columns)
    assert "recipe of XnorNN" in set(TABLE["question"])
