"""Every callback of the widgets, without a browser; tests/browser has them in a real one."""

import io
import threading

import ipywidgets as ipw
import pytest
import torch
from PIL import Image

from qathelpers import checkpoints, nets, results
from qathelpers.history import History
from qathelpers.widgets import Comparison, PictureGuesser, QuantizerExplorer, TrainingPanel, training_panel
from qathelpers.widgets.explorer import Setting


@pytest.fixture
def panel(tiny):
    panel = TrainingPanel(tiny, name="TernaryNN", arch="lenet", epochs=2)
    panel.batch_size.value = 64
    yield panel
    panel.stop.click()
    assert panel.wait(60)


@pytest.fixture
def slow_panel(panel, monkeypatch):
    """A panel whose training waits after each batch until `panel.go` is set."""
    panel.go, panel.started = threading.Event(), threading.Event()
    after_batch = panel._after_batch

    def wait(share):
        panel.started.set()
        panel.go.wait(60)
        after_batch(share)

    monkeypatch.setattr(panel, "_after_batch", wait)
    yield panel
    panel.go.set()


def test_train_trains_saves_and_shows(panel):
    panel.train.click()
    assert panel.wait(120)
    assert len(panel.history) == 2 and "Done: TernaryNN" in panel.status.value
    assert panel.progress.value == 1 and bytes(panel.curves.value).startswith(b"\x89PNG")
    assert "features.0" in panel.levels.value and panel.lines.value.count("TernaryNN epoch") == 2
    assert History.load(panel.folder / "TernaryNN.npy").rows.tolist() == panel.history.rows.tolist()
    again = checkpoints.load(panel.folder / "TernaryNN.safetensors")
    assert torch.equal(again.features[0].weight, panel.net.features[0].weight)
    assert not panel.train.disabled and panel.stop.disabled and panel.resume.disabled


def test_stop_takes_effect_within_a_batch_and_resume_ends_as_if_never_stopped(panel, slow_panel):
    panel.train.click()
    assert panel.started.wait(60)
    assert panel.train.disabled and not panel.stop.disabled and panel.epochs.disabled
    panel.stop.click()
    panel.go.set()
    assert panel.wait(60)
    assert len(panel.history) == 0 and "Stopped; 0 of 2 epochs are kept" in panel.status.value
    assert not panel.resume.disabled and not panel.epochs.disabled
    panel.resume.click()
    assert panel.wait(120) and len(panel.history) == 2


def test_a_training_stopped_after_an_epoch_goes_on_to_the_same_result(panel, monkeypatch):
    panel.train.click()
    panel.wait(120)
    whole = panel.history.rows["test_loss"].tolist()
    after_epoch = panel._after_epoch
    monkeypatch.setattr(panel, "_after_epoch", lambda history: (panel._stop.set(), after_epoch(history)))
    panel.train.click()
    assert panel.wait(60) and len(panel.history) == 1 and "1 of 2 epochs are kept" in panel.status.value
    monkeypatch.setattr(panel, "_after_epoch", after_epoch)
    panel.resume.click()
    assert panel.wait(60) and "resumed after epoch 1" in panel.lines.value
    assert panel.history.rows["test_loss"].tolist() == whole


def test_a_second_click_starts_no_second_training(slow_panel):
    slow_panel.train.click()
    first = slow_panel._thread
    slow_panel.train.click()
    slow_panel.resume.click()
    assert slow_panel._thread is first
    assert sum(thread is first for thread in threading.enumerate()) == 1


@pytest.mark.parametrize(
    ("control", "value", "said"),
    [("epochs", 0, "choose a whole number from 1"), ("seed", -1, "from 0 to 4,294,967,295")],
)
def test_bad_values_are_a_sentence_and_start_nothing(panel, control, value, said):
    getattr(panel, control).value = value
    panel.train.click()
    assert said in panel.status.value and panel._thread is None and not panel.train.disabled


def test_an_error_in_the_training_is_a_sentence_and_the_panel_stays_usable(panel, monkeypatch):
    fit = training_panel.fit
    monkeypatch.setattr(training_panel, "fit", lambda *args, **options: 1 / 0)
    panel.train.click()
    assert panel.wait(60) and "ZeroDivisionError" in panel.status.value and not panel.train.disabled
    monkeypatch.setattr(training_panel, "fit", fit)
    panel.train.click()
    assert panel.wait(120) and "Done" in panel.status.value


def test_the_share_of_the_data_is_in_the_card_and_a_float_net_has_no_levels(panel):
    panel.share.value, panel.name.value, panel.epochs.value = 0.5, "PytorchNN", 1
    panel.train.click()
    assert panel.wait(120)
    assert (panel.history.card["train_images"], panel.history.card["test_images"]) == (200, 100)
    assert "no quantized weights" in panel.levels.value


def test_the_explorer_shows_what_each_knob_does():
    explorer = QuantizerExplorer(nets.build("PytorchNN", "lenet"))
    assert explorer.summary["levels"] == 3 and bytes(explorer.picture.value).startswith(b"\x89PNG")
    pictures = {bytes(explorer.picture.value)}
    for control, value in (
        (explorer.bits, 4),
        (explorer.base, "largest"),
        (explorer.factor, 1.5),
        (explorer.threshold, 0.1),
        (explorer.layer, "classifier.1"),
    ):
        control.value = value
        pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == 6
    explorer.per_channel.value = True
    assert "120 scales" in explorer.text.value
    explorer.bits.value = 1
    assert explorer.summary["levels"] == 2 and explorer.summary["zeros"] == 0 and explorer.threshold.disabled


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("bits", "name"), [(2, "TernaryNN"), (1, "BinaryNN")])
def test_the_explorer_computes_as_the_courses_quantizers_do(bits, name, per_channel):
    from qathelpers import weights

    layer = weights.first_layer(nets.build(name, "lenet"))
    setting = Setting(bits=bits, per_channel=per_channel)
    integers = setting.integers(layer.weight.detach() / setting.scale(layer.weight.detach()))
    same = torch.equal(integers.long(), weights.integers(layer))
    assert same or (per_channel and bits == 2)  # the course has one scale a layer; signs do not depend on it


def test_without_narrow_range_there_is_one_integer_more():
    scaled = torch.linspace(-5, 5, 101)
    assert Setting(bits=3, narrow=False).integers(scaled).unique().tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]
    assert Setting(bits=3).integers(scaled).unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


@pytest.fixture
def guesser(tiny):
    return PictureGuesser(tiny, {name: nets.build(name, "lenet") for name in ("PytorchNN", "BinaryNN")})


def test_the_guesser_shows_a_picture_and_steps_through_disagreements(guesser, tiny):
    assert set(guesser.guesses) == {"PytorchNN", "BinaryNN"} and len(guesser.guesses["BinaryNN"]) == 3
    assert tiny.classes[tiny.test_labels[0]] in guesser.status.value
    guesser.next.click()
    second = guesser.index.value
    assert second in guesser.disagreeing and guesser.guesses["PytorchNN"][0] != guesser.guesses["BinaryNN"][0]
    guesser.next.click()
    guesser.previous.click()
    assert guesser.index.value == second
    guesser.index.value = guesser.disagreeing[-1]
    guesser.next.click()
    assert "agree on all others" in guesser.status.value


def photograph(format="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("old", [False, True], ids=["ipywidgets 8", "ipywidgets 7"])
def test_the_guesser_takes_photographs_and_refuses_other_files(guesser, old):
    def value(content):
        return {"a.jpg": {"content": content}} if old else ({"name": "a.jpg", "content": memoryview(content)},)

    guesser._show_upload(value(photograph()))
    assert "Your photograph" in guesser.status.value
    before = guesser.answer.value
    guesser._show_upload(value(b"no picture"))
    assert "no picture that can be read" in guesser.status.value and guesser.answer.value == before
    guesser._show_upload({} if old else ())
    assert "no picture that can be read" in guesser.status.value


def test_the_comparison_follows_its_ticks(tiny):
    histories = [results.load_or_train(name, tiny, 1, arch="lenet")[1] for name in ("PytorchNN", "BinaryNN")]
    comparison = Comparison(histories)
    both = bytes(comparison.curves.value)
    assert comparison.table.value.count("<tr") == 3
    comparison.boxes[0].value = False
    assert [history.name for history in comparison.ticked] == ["BinaryNN"] and bytes(comparison.curves.value) != both
    assert "PytorchNN" not in comparison.table.value
    comparison.boxes[1].value = False
    assert "Tick a run" in comparison.status.value and comparison.curves.layout.visibility == "hidden"


def test_a_comparison_of_no_runs_says_so():
    comparison = Comparison([])
    assert isinstance(comparison, ipw.VBox) and "Tick a run" in comparison.status.value


def test_a_run_that_another_process_trains_is_left_alone(panel):
    files = checkpoints.Files(panel.folder, "TernaryNN")
    files.folder.mkdir(parents=True)
    files.resume.write_text("of the other process")
    with files.lock():
        panel.train.click()
        panel.wait(60)
    assert "is being trained in" in panel.status.value
    assert files.resume.read_text() == "of the other process"
