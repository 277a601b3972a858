import json

import pytest
from click.testing import CliRunner

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.data import Batches
from qathelpers.results import recorded
from qathelpers.training import History, checkpoint, evaluate, predict
from tools import record as tool


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RECORDED", tmp_path / "data")
    monkeypatch.setenv("QAT_MAX_IMAGES", "200")  # the test images of `tiny`
    return tmp_path / "data"


def test_a_recorded_run_is_found_and_computes_the_same(tiny, target):
    net, history = results.load_or_train("TernaryNN", tiny, 1, arch="lenet")
    written = tool.record("TernaryNN", "lenet", "shapes", target=target)
    assert all(path.is_relative_to(target) for path in written) and len(written) == 2
    again = results.recorded_net("TernaryNN", "lenet", "shapes")
    assert predict(again, tiny.test_images).allclose(predict(net.cpu(), tiny.test_images), atol=0.05)
    found = results.recorded_history("TernaryNN", "lenet", "shapes")
    assert (found.rows == history.rows).all() and found.config["recipe"] == history.config["recipe"]


def test_the_accuracy_in_the_config_is_that_of_the_recorded_weights(tiny, target):
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    tool.record("BinaryNN", "lenet", "shapes", target=target)
    net = results.recorded_net("BinaryNN", "lenet", "shapes")
    loss, accuracy = evaluate(net, Batches(tiny.test_images, tiny.test_labels, 1000))
    files = target / "results/shapes/lenet/BinaryNN.json", target / "checkpoints/shapes/lenet/BinaryNN.safetensors"
    for config in (json.loads(files[0].read_text(encoding="utf-8")), checkpoint.read_config(files[1])):
        assert (config["test_acc"], config["test_loss"]) == (accuracy, pytest.approx(loss))


def test_of_other_seeds_the_history_alone_is_recorded(tiny, target):
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=3)
    files = tool.record("BinaryNN", "lenet", "shapes", seed=3, target=target)
    assert [path.name for path in files] == ["BinaryNN-seed3.npy"] and files[0].exists()
    assert results.recorded_history("BinaryNN", "lenet", "shapes", seed=3).config["seed"] == 3
    with pytest.raises(CourseError, match=r"BinaryNN-seed1 .* there are: BinaryNN-seed3"):
        results.recorded_history("BinaryNN", "lenet", "shapes", seed=1)


def test_weights_of_another_seed_are_recorded_on_request(tiny, target):
    net, _ = results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=3)
    files = tool.record("BinaryNN", "lenet", "shapes", seed=3, target=target, keep_weights=True)
    assert [path.name for path in files] == ["BinaryNN-seed3.npy", "BinaryNN-seed3.safetensors"]
    again = results.recorded_net("BinaryNN", "lenet", "shapes", seed=3)
    assert again.spec.seed == 3
    assert predict(again, tiny.test_images).allclose(predict(net.cpu(), tiny.test_images), atol=0.05)
    history = results.recorded_history("BinaryNN", "lenet", "shapes", seed=3)
    _, accuracy = evaluate(again, Batches(tiny.test_images, tiny.test_labels, 1000))
    assert history.test_acc == checkpoint.read_config(files[1])["test_acc"] == accuracy
    with pytest.raises(CourseError, match=r"BinaryNN \(.* there are: BinaryNN-seed3"):
        results.recorded_net("BinaryNN", "lenet", "shapes")


def test_weights_never_stay_beside_the_history_of_another_run(tiny, target):
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=3)
    first = tool.record("BinaryNN", "lenet", "shapes", seed=3, target=target, keep_weights=True)
    assert tool.record("BinaryNN", "lenet", "shapes", seed=3, target=target) == first


def test_weights_of_one_seed_are_not_taken_for_those_of_another(tiny, target):
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    _, weights = tool.record("BinaryNN", "lenet", "shapes", target=target)
    weights.rename(weights.with_name("BinaryNN-seed1.safetensors"))
    with pytest.raises(CourseError, match=r"BinaryNN-seed1\.safetensors holds a BinaryNN:"):
        results.recorded_net("BinaryNN", "lenet", "shapes", seed=1)


def test_an_interrupted_run_is_not_recorded_and_leaves_what_was_there(tiny, target):
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    files = tool.record("BinaryNN", "lenet", "shapes", target=target)
    before = [path.read_bytes() for path in files]
    path = results.run_folder("shapes", "lenet") / "BinaryNN.npy"
    run = History.load(path)
    run.config["epochs"] = 2
    run.save(path)
    with pytest.raises(CourseError, match="one finished run"):
        tool.record("BinaryNN", "lenet", "shapes", target=target)
    assert [path.read_bytes() for path in files] == before


def test_a_net_that_packing_changes_is_not_recorded(tiny, target, monkeypatch):
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    load = checkpoint.load

    def load_changed(path, net=None):
        net = load(path, net)
        if path.name.startswith("packed"):
            net.classifier[-1].bias.data += 1
        return net

    monkeypatch.setattr(checkpoint, "load", load_changed)
    with pytest.raises(CourseError, match="not recorded"):
        tool.record("BinaryNN", "lenet", "shapes", target=target)
    assert not target.exists()


def test_tables_are_updated_between_their_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "markdown", lambda arch: f"| table of {arch} |")
    path = tmp_path / "README.md"
    old = "<!-- results: {} -->\nold\n<!-- end -->\n"
    path.write_text(
        f"a\n{old.format('convnet')}b\n<!-- results: sharpnet -->\n<!-- end -->\n{old.format('lenet')}c\n",
        encoding="utf-8",
    )
    tool.update_tables(path)
    first = path.read_text(encoding="utf-8")
    assert "old" not in first and first.startswith("a\n") and first.endswith("c\n") and "\nb\n" in first
    assert all(f"<!-- results: {arch} -->\n| table of {arch} |\n" in first for arch in ("convnet", "sharpnet", "lenet"))
    tool.update_tables(path)
    assert path.read_text(encoding="utf-8") == first


def test_the_command_names_the_run_that_is_missing():
    result = CliRunner().invoke(tool.main, ["BinaryNN", "--arch", "lenet"])
    assert result.exit_code == 1 and "BinaryNN.npy" in result.output and "Traceback" not in result.output
