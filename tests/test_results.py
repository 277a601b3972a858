import pytest

from qathelpers import results
from qathelpers.errors import CourseError
from qathelpers.history import History


def history(name, data="shapes", accuracy=0.5):
    card = {"name": name, "arch": "lenet", "bits": "W1A32", "data": data, "seed": 0, "hardware": "a laptop"}
    result = History(card)
    for epoch, test_acc in enumerate((0.9, accuracy)):
        result.append(epoch=epoch + 1, train_loss=1, train_acc=0.6, test_loss=1, test_acc=test_acc, seconds=30)
    return result


def test_the_table_shows_the_last_epoch_not_the_best():
    row = results.table([history("BinaryNN", accuracy=0.51)]).loc["BinaryNN"]
    assert (row["train"], row["test"], row["epochs"], row["minutes"]) == (0.6, 0.51, 2, 1.0)
    assert row["hardware"] == "a laptop" and row["data"] == "shapes"


def test_several_runs_of_a_net_have_a_mean_and_a_deviation():
    runs = [history("BinaryNN", accuracy=0.5), history("BinaryNN", accuracy=0.6), history("TernaryNN", accuracy=0.7)]
    spread = results.spread(runs)
    assert spread.loc["BinaryNN", ["runs", "test", "test std"]].tolist() == [2, 0.55, 0.0707]
    assert spread.loc["TernaryNN", "runs"] == 1 and spread["test std"].isna().tolist() == [False, True]


def test_runs_with_other_seeds_lie_beside_each_other(tiny):
    folder = results.run_folder("shapes", "lenet")
    for seed in (0, 2):
        results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=seed)
    assert sorted(path.name for path in folder.glob("*.npy")) == ["BinaryNN-seed2.npy", "BinaryNN.npy"]
    assert [h.card["seed"] for h in results.find_histories(folder)] == [0, 2]


def test_histories_are_found_in_the_order_of_the_course(tmp_path):
    for name in ("BinaryNN", "Mine", "PytorchNN", "TernaryNN"):
        history(name).save(tmp_path / f"{name}.npy")
    names = [h.name for h in results.find_histories(tmp_path)]
    assert names == ["PytorchNN", "TernaryNN", "BinaryNN", "Mine"]


def test_a_finished_run_is_loaded_and_other_settings_are_trained(tiny, capsys):
    first_net, first = results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    assert "training for 1 epochs" in capsys.readouterr().out
    net, again = results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    assert "loaded from" in capsys.readouterr().out
    assert (again.rows == first.rows).all()
    images = tiny.test_images
    assert (results.predict(net, images) == results.predict(first_net, images)).all()
    _, other = results.load_or_train("BinaryNN", tiny, 2, arch="lenet")
    assert len(other) == 2


def test_what_comes_with_the_course_is_readable():
    three = {"PytorchNN", "TernaryNN", "BinaryNN"}
    six = three | {"XnorNN", "Int2NN", "Int4NN"}
    compared = {"convnet": six | {"Int8NN"}, "sharpnet": six, "sharpnet-x2": six, "lenet": three}
    assert set(compared) == set(results.recorded_archs())
    for arch, expected in compared.items():
        assert expected <= {history.name for history in results.recorded_histories(arch)}
    table = results.table(results.recorded_histories("convnet"))
    assert (table["data"] == "cifar10").all()


@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "BinaryNN"])
def test_recorded_nets_are_those_of_the_recorded_histories(name):
    net = results.recorded_net(name)
    assert net.name == name and not net.training


@pytest.mark.parametrize("arch", results.recorded_archs())
def test_every_recorded_net_is_that_of_a_recorded_history(arch):
    recorded = {history.name: history.card for history in results.recorded_histories(arch)}
    names = [path.stem for path in (results.RECORDED / "checkpoints" / "cifar10" / arch).glob("*.safetensors")]
    assert names and set(names) <= set(recorded)
    assert {"TernaryNN", "BinaryNN"} & set(recorded) <= set(names)
    for name in names:
        net = results.recorded_net(name, arch)
        assert (net.name, net.arch, net.seed) == (name, arch, recorded[name]["init_seed"]) and not net.training


@pytest.mark.parametrize("arch", results.recorded_archs())
def test_the_readme_shows_the_recorded_runs(arch):
    assert results.markdown(arch) in (results.RECORDED.parent / "README.md").read_text()


def test_a_row_of_one_run_has_no_deviation(monkeypatch):
    runs = [history("PytorchNN", accuracy=0.5), history("PytorchNN", accuracy=0.6), history("BinaryNN")]
    monkeypatch.setattr(results, "recorded_histories", lambda arch, data, seed: runs)
    lines = results.markdown("convnet").splitlines()
    assert lines[2] == "| PytorchNN | W1A32 | 2 | 2 | 0.6000 ± 0.0000 | 0.5500 ± 0.0707 |"
    assert lines[3] == "| BinaryNN | W1A32 | 1 | 2 | 0.6000 | 0.5000 |"


def test_the_readme_is_updated_between_its_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "recorded_histories", lambda arch, data, seed: [history("BinaryNN")])
    path = tmp_path / "README.md"
    empty, old = "<!-- results: sharpnet -->\n<!-- end -->\n", "<!-- results: {} -->\nold\n<!-- end -->\n"
    text = f"a\n{old.format('convnet')}b\n{empty}{old.format('lenet')}c\n"
    path.write_text(text)
    results.update_readme(path)
    first = path.read_text()
    assert "old" not in first and first.startswith("a\n") and first.endswith("c\n") and "\nb\n" in first
    assert first.count("| BinaryNN |") == 3
    results.update_readme(path)
    assert path.read_text() == first


def test_a_recorded_run_is_found_and_computes_the_same(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", tmp_path / "data")
    net, history = results.load_or_train("TernaryNN", tiny, 1, arch="lenet")
    results.record("TernaryNN", "lenet", "shapes")
    again = results.recorded_net("TernaryNN", "lenet", "shapes")
    assert (results.predict(again, tiny.test_images) == results.predict(net, tiny.test_images)).all()
    recorded = results.recorded_history("TernaryNN", "lenet", "shapes")
    assert (recorded.rows == history.rows).all() and recorded.card == history.card
    with pytest.raises(CourseError, match="there are: TernaryNN"):
        results.recorded_history("BinaryNN", "lenet", "shapes")
    results.load_or_train("TernaryNN", tiny, 1, arch="lenet", seed=3)
    results.record("TernaryNN", "lenet", "shapes", seed=3)
    assert results.recorded_history("TernaryNN", "lenet", "shapes", seed=3).card["seed"] == 3
    with pytest.raises(CourseError, match=r"TernaryNN-seed1 .* there are: TernaryNN, TernaryNN-seed3"):
        results.recorded_history("TernaryNN", "lenet", "shapes", seed=1)


def test_an_interrupted_run_is_not_recorded_and_leaves_what_was_there(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", tmp_path / "data")
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    files = results.record("BinaryNN", "lenet", "shapes")
    before = [path.read_bytes() for path in files]
    run = History.load(results.run_folder("shapes", "lenet") / "BinaryNN.npy")
    run.card["epochs"] = 2
    run.save(results.run_folder("shapes", "lenet") / "BinaryNN.npy")
    with pytest.raises(CourseError, match="one finished run"):
        results.record("BinaryNN", "lenet", "shapes")
    assert [path.read_bytes() for path in files] == before


def test_of_other_seeds_the_history_alone_is_recorded(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORDED", tmp_path / "data")
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=3)
    files = results.record("BinaryNN", "lenet", "shapes", seed=3)
    assert [path.name for path in files] == ["BinaryNN-seed3.npy"] and files[0].exists()


def test_the_leaderboard_has_the_runs_within_the_budget_the_best_first(tmp_path):
    assert results.leaderboard("shapes").empty
    sizes = {"PytorchNN": 250.0, "TernaryNN": 20.0, "BinaryNN": 15.0}
    for (name, size), accuracy in zip(sizes.items(), (0.9, 0.6, 0.7), strict=True):
        run = history(name, accuracy=accuracy)
        run.card["kB"] = size
        run.save(results.run_folder("shapes", f"arch{name}") / f"{name}.npy")
    board = results.leaderboard("shapes", 100)
    assert list(board.index) == ["BinaryNN", "TernaryNN"] and board["arch"].iloc[0] == "lenet"
    assert list(results.leaderboard("shapes").index) == ["PytorchNN", "BinaryNN", "TernaryNN"]
    assert results.leaderboard("cifar10").empty


def test_the_recorded_nets_stay_small():
    files = (results.RECORDED / "checkpoints").rglob("*.safetensors")
    assert 0 < sum(file.stat().st_size for file in files) < 15e6
