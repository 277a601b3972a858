"""The training panel without a browser, through clicks and traits only; tests/browser has it in a real one."""

import asyncio
import base64
import threading
import time
import types

import pytest
import torch
import zmq
from jupyter_client.session import Session
from PIL import Image

from qathelpers import nets, training
from qathelpers.common.errors import CourseError
from qathelpers.data import Dataset, shapes
from qathelpers.nets import weights
from qathelpers.training import checkpoint
from qathelpers.training.history import History
from qathelpers.widgets import TrainingPanel, preview, training_panel
from qathelpers.widgets.panel import messages, monitor, svg
from qathelpers.widgets.panel.settings import whole_number
from qathelpers.widgets.panel.training import place

from .own_nets import BINARY, MINE, TERNARY, OwnNet

VARIANT = "TernaryNN" + nets.FIRST_LAST_SUFFIX
PATIENCE = 300  # seconds: a busy machine is not a fault


@pytest.fixture(scope="module")
def tiny():
    """Return images for two batches per epoch: a run of the panel then takes a third of a second."""
    return Dataset(*shapes.make(128, 60), shapes.CLASSES, "shapes")


@pytest.fixture(autouse=True)
def new_kernel(monkeypatch):
    """Let each test start as a kernel does: without earlier runs, and with no wait after a click."""
    monkeypatch.setattr(monitor, "LIVE", [])
    monkeypatch.setattr(training_panel, "LIVE", monitor.LIVE)
    monkeypatch.setattr(monitor, "EARLIER", {})
    monkeypatch.setattr(training_panel, "DOUBLE_CLICK", 0)


@pytest.fixture
def panel(tiny):
    panel = TrainingPanel(tiny, name="TernaryNN", arch="lenet", epochs=2)
    panel.batch_size.value = 64
    yield panel
    panel.stop.click()
    assert panel.wait(PATIENCE)


class Brake:
    """Hold a training where its progress is shown, from `started` until `release`."""

    def __init__(self, panel):
        self.started, self._released = threading.Event(), threading.Event()
        panel.progress.observe(self._hold, names="value")

    def _hold(self, change):
        if change["new"]:  # not when the bar is emptied
            self.started.set()
            self._released.wait(PATIENCE)

    def release(self):
        self._released.set()


@pytest.fixture
def brake(panel):
    brake = Brake(panel)
    yield brake
    brake.release()


def stop_after_an_epoch(panel):
    """Train, and press Stop when the first epoch is shown."""

    def stop(change):
        if "epoch 1 of" in change["new"]:
            panel.monitor.title.unobserve(stop, names="value")
            panel.stop.click()

    panel.monitor.title.observe(stop, names="value")
    panel.train.click()
    assert panel.wait(PATIENCE) and len(panel.history) == 1


def is_error(status):
    return "qat-error" in status.value


def logged_epochs(panel):
    return panel.lines.value.count("TernaryNN epoch")


def files(panel):
    """The content of all files below the panel's folder, by path."""
    base = panel.folder if panel.folder.name == "panel" else panel.folder.parent
    return {path: path.read_bytes() for path in base.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_train_trains_saves_and_shows(panel, tiny):
    panel.train.click()
    assert panel.wait(PATIENCE) and not panel.running
    accuracy = panel.history["test_acc"][-1]
    assert len(panel.history) == 2 and f"{accuracy:.4f}" in panel.status.value and not is_error(panel.status)
    assert panel.progress.value == 1 and "<svg" in panel.curves.value
    assert all(name in panel.levels.value for name in weights.report(panel.net).index)
    assert logged_epochs(panel) == 2
    assert History.load(panel.folder / "TernaryNN.npy").rows.tolist() == panel.history.rows.tolist()
    again = checkpoint.load(panel.folder / "TernaryNN.safetensors")
    assert torch.equal(again.features[0].weight, panel.net.features[0].weight)
    assert not panel.train.disabled and panel.stop.disabled and panel.resume.disabled
    assert not any(module._forward_pre_hooks for module in panel.net.modules())


def test_the_panel_trains_as_fit_does(panel, tiny):
    panel.train.click()
    assert panel.wait(PATIENCE)
    net = nets.build("TernaryNN", "lenet")
    recipe = nets.Recipe(**(panel.history.config["recipe"]))
    assert recipe.batch_size == 64
    history = training.fit(net, tiny, 2, recipe=recipe)
    assert history["train_loss"].tolist() == panel.history["train_loss"].tolist()


def test_stop_takes_effect_within_a_batch_and_keeps_nothing_of_an_unfinished_epoch(panel, brake):
    panel.train.click()
    assert brake.started.wait(PATIENCE) and panel.running
    assert panel.train.disabled and not panel.stop.disabled and panel.epochs.disabled
    assert panel.primary.description == "Stop"
    panel.stop.click()
    brake.release()
    assert panel.wait(PATIENCE)
    assert len(panel.history) == 0 and not is_error(panel.status) and panel.resume.disabled
    assert panel.primary.description == "Train" and not panel.epochs.disabled and panel.progress.value == 0
    panel.primary.click()
    assert panel.wait(PATIENCE) and len(panel.history) == 2 and panel.folder.name == "panel"


def test_stop_ends_the_evaluation_too(panel, monkeypatch):
    evaluated = []

    def stop_in_evaluation(module, inputs):
        if not module.training and inputs[0].shape[0] == 60:  # the test images
            evaluated.append(True)
            panel.stop.click()

    original = monitor.Monitor._on_begin

    def begin(self):
        self.training.net.register_forward_pre_hook(stop_in_evaluation)
        original(self)

    monkeypatch.setattr(monitor.Monitor, "_on_begin", begin)
    panel.train.click()
    assert panel.wait(PATIENCE) and evaluated == [True] and len(panel.history) == 0


def test_a_stopped_run_keeps_its_settings_and_goes_on_to_the_same_result(panel):
    panel.train.click()
    assert panel.wait(PATIENCE)
    whole, before = panel.history["test_loss"].tolist(), files(panel)
    stop_after_an_epoch(panel)
    assert "1 of 2" in panel.status.value and "epoch 1 of 2" in panel.primary.description
    panel.epochs.value, panel.batch_size.value, panel.name.value, panel.seed.value = 5, 128, "BinaryNN", 3
    panel.primary.click()
    assert panel.wait(PATIENCE) and panel.history["test_loss"].tolist() == whole
    assert logged_epochs(panel) == 2  # the first epoch was not trained again
    config = panel.history.config
    assert (config["name"], config["epochs"], config["recipe"]["batch_size"], config["seed"]) == ("TernaryNN", 2, 64, 0)
    assert {path: content for path, content in files(panel).items() if path in before} == before


def test_other_settings_are_a_new_run_and_the_stopped_one_stays(panel):
    stop_after_an_epoch(panel)
    kept, said = files(panel), panel.again.description
    panel.batch_size.value = 128
    assert panel.again.description != said and "epoch 1 of 2" in panel.primary.description
    panel.again.click()
    assert panel.wait(PATIENCE) and panel.training.label == "TernaryNN 2" and len(panel.history) == 2
    assert panel.history.config["recipe"]["batch_size"] == 128
    assert {path: content for path, content in files(panel).items() if path in kept} == kept
    assert (panel.folder / "TernaryNN.safetensors").exists() and panel.folder.name == "TernaryNN 2"
    assert "TernaryNN 2" in panel.monitor.title.value


def test_a_finished_run_is_never_replaced(panel):
    folders = set()
    for count in range(1, 4):
        panel.epochs.value = 1 + count % 2
        before = files(panel) if folders else {}
        panel.train.click()
        assert panel.wait(PATIENCE) and not is_error(panel.status)
        folders.add(panel.folder)
        assert len(folders) == count and before.items() <= files(panel).items()


def test_the_files_of_a_stopped_run_that_are_gone_are_named_and_nothing_is_trained(panel):
    stop_after_an_epoch(panel)
    resume = place(panel.training).with_name("TernaryNN.resume.safetensors")
    resume.unlink()
    panel.resume.click()
    assert panel.wait(PATIENCE) and is_error(panel.status) and str(resume) in panel.status.value
    assert len(panel.history) == 1 and not panel.train.disabled


def test_accuracy_on_validation_images_is_called_that(tiny):
    panel = TrainingPanel(tiny.validation_split(100), name="TernaryNN", arch="lenet", epochs=1)
    panel.batch_size.value = 64
    panel.train.click()
    assert panel.wait(60) and len(panel.history) == 1
    for shown in (panel.status, panel.monitor.title, panel.monitor.curves):
        assert "validation" in shown.value and "test accuracy" not in shown.value


def test_a_second_click_starts_no_second_training(panel, brake):
    threads = threading.active_count()
    panel.train.click()
    assert brake.started.wait(PATIENCE) and threading.active_count() == threads + 1
    panel.train.click()
    panel.resume.click()
    assert threading.active_count() == threads + 1
    brake.release()
    assert panel.wait(PATIENCE)
    assert logged_epochs(panel) == 2 and not is_error(panel.status)


def test_a_double_click_does_not_stop_what_it_has_started(panel, monkeypatch):
    monkeypatch.setattr(training_panel, "DOUBLE_CLICK", 30)
    panel.primary.click()
    panel.primary.click()
    assert panel.wait(PATIENCE) and len(panel.history) == 2


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("epochs", 0),
        ("epochs", 10_001),
        ("epochs", "2.7"),
        ("epochs", "1e3"),
        ("epochs", "<b>"),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", "0x1"),
        ("seed", "٣"),
    ],
)
def test_bad_values_are_a_sentence_and_start_nothing(panel, control, value):
    getattr(panel, control).value = value
    shown = str(value).replace("<b>", "&lt;b&gt;")
    assert control in panel.form.expected.value and shown in panel.form.expected.value
    panel.primary.click()
    assert not panel.running and panel.net is None and not panel.folder.exists()
    assert is_error(panel.status) and control in panel.status.value and shown in panel.status.value
    assert not panel.train.disabled


@pytest.mark.parametrize("typed", ["", "  ", "2.7", "1e3", "1,000", "+3", "--1", "³", "1 0", "nan"])
def test_only_digits_are_numbers(typed):
    with pytest.raises(CourseError, match="epochs"):
        whole_number("epochs", typed, 1, 10_000)


def test_numbers_are_read_with_spaces_around_them():
    assert whole_number("epochs", " 040 ", 1, 10_000) == 40


def test_an_error_in_the_training_is_shown_and_the_panel_stays_usable(panel):
    def fail(change):
        panel.progress.unobserve(fail, names="value")
        raise ZeroDivisionError("of the test")

    panel.progress.observe(fail, names="value")
    panel.train.click()
    assert panel.wait(PATIENCE)
    assert is_error(panel.status) and "ZeroDivisionError: of the test" in panel.status.value
    assert not panel.train.disabled and panel.stop.disabled
    panel.train.click()
    assert panel.wait(PATIENCE) and len(panel.history) == 2 and not is_error(panel.status)


def test_a_folder_that_cannot_be_written_is_named(panel, monkeypatch, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("QAT_RESULTS_DIR", str(blocked))
    panel.train.click()
    assert panel.wait(PATIENCE)
    assert is_error(panel.status) and str(blocked) in panel.status.value and "QAT_RESULTS_DIR" in panel.status.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory"),
        (OSError(5, "Input/output error", "/drive/x"), "/drive/x cannot be used"),
        (UnicodeEncodeError("ascii", "Läufe", 1, 2, "no"), "PYTHONUTF8"),
    ],
)
@pytest.mark.parametrize("place", ["qathelpers.training.loop.train", "qathelpers.widgets.training_panel.new_training"])
def test_an_error_of_the_machine_is_a_sentence(panel, monkeypatch, place, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(place, fail)
    panel.train.click()
    assert panel.wait(PATIENCE)
    assert is_error(panel.status) and words in panel.status.value and "Error:" not in panel.status.value
    assert not panel.train.disabled


def test_the_share_of_the_data_is_in_the_config_and_a_float_net_has_no_levels(panel):
    panel.share.value, panel.name.value, panel.epochs.value = 0.5, "PytorchNN", 1
    assert "64 training images" in panel.form.expected.value
    panel.train.click()
    assert panel.wait(PATIENCE)
    assert (panel.history.config["train_images"], panel.history.config["test_images"]) == (64, 30)
    assert "PytorchNN" in panel.levels.value and "<table" not in panel.levels.value
    assert "Histogram" in panel.monitor.histogram.value and "weights that are zero" not in panel.monitor.histogram.value


def test_a_run_that_another_process_has_begun_is_left_alone(panel, tiny):
    net = nets.build("TernaryNN", "lenet")
    run = training.Run.plan(net, tiny, 2, folder=panel.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.lock():
        panel.train.click()
        assert panel.wait(PATIENCE)
        assert is_error(panel.status) and "TernaryNN" in panel.status.value
        run.resume_path.write_text("of the other process", encoding="utf-8")
        panel.train.click()
        assert panel.wait(PATIENCE) and panel.training.label == "TernaryNN 2" and not is_error(panel.status)
    assert run.resume_path.read_text(encoding="utf-8") == "of the other process"


def test_a_new_panel_adopts_the_running_training(panel, brake, tiny):
    panel.train.click()
    assert brake.started.wait(PATIENCE)
    again = TrainingPanel(tiny.take(64, 32), name="BinaryNN", arch="lenet", epochs=1)
    assert again.running and again.history is panel.history and "TernaryNN" in again.status.value
    assert again.primary.description == "Stop" and again.train.disabled and again.epochs.disabled
    again.primary.click()
    brake.release()
    assert again.wait(PATIENCE) and not panel.running
    assert panel.primary.description == again.primary.description == "Train"


def test_a_new_panel_offers_to_resume_the_run_that_was_stopped(panel, tiny):
    stop_after_an_epoch(panel)
    again = TrainingPanel(tiny, name="BinaryNN", arch="lenet", epochs=7)
    assert "epoch 1 of 2" in again.primary.description
    again.primary.click()
    assert again.wait(PATIENCE) and again.history.name == "TernaryNN" and len(again.history) == 2
    other = TrainingPanel(tiny.take(64, 32), name="BinaryNN", arch="lenet")
    assert other.history is None and other.primary.description == "Train"


def test_a_new_run_begins_without_anything_of_the_last_one(panel, brake):
    brake.release()
    panel.train.click()
    assert panel.wait(PATIENCE) and panel.progress.value == 1
    second = Brake(panel)
    panel.name.value = "BinaryNN"
    seen = []
    panel.status.observe(lambda change: seen.append((panel.progress.value, panel.levels.value)), names="value")
    panel.train.click()
    assert second.started.wait(PATIENCE)
    assert seen[0] == (0, "") and "BinaryNN" in panel.monitor.title.value and logged_epochs(panel) == 0
    assert "epoch 0 of 2" in panel.monitor.title.value and "TernaryNN (lenet" in panel.curves.value
    second.release()
    assert panel.wait(PATIENCE)


def test_the_last_three_runs_stay(panel):
    panel.epochs.value = 1
    labels = []
    for seed in range(5):
        panel.seed.value = seed
        panel.train.click()
        assert panel.wait(PATIENCE)
        labels.append(panel.training.label)
    assert len(set(labels)) == 5
    assert [f"{label} (lenet" in panel.curves.value for label in labels] == [False, True, True, True, True]


def test_the_time_left_counts_from_the_resume(tiny, monkeypatch):
    panel = TrainingPanel(tiny, name="TernaryNN", arch="lenet", epochs=3)
    panel.batch_size.value = 64
    stop_after_an_epoch(panel)
    seen = []
    original = monitor.Monitor._on_progress

    def slow(self, done, left):
        seen.append((time.monotonic(), done, left))
        original(self, done, left)
        time.sleep(0.25)

    monkeypatch.setattr(monitor.Monitor, "_on_progress", slow)
    panel.resume.click()
    assert panel.wait(PATIENCE)
    began, first, left = seen[0]
    assert first > 1 / 3 and left is None and len(seen) == 4
    for now, done, left in seen[1:]:
        assert left == pytest.approx((now - began) * (1 - done) / (done - first), rel=0.3, abs=0.01)


def test_interrupting_a_cell_that_waits_ends_the_training_with_one_sentence(panel, brake, capsys, monkeypatch):
    def interrupt():
        brake.release()
        raise KeyboardInterrupt

    panel.train.click()
    assert brake.started.wait(PATIENCE)
    monkeypatch.setattr(training_panel, "handle_pending", interrupt)
    assert panel.wait() and not panel.running
    assert len(capsys.readouterr().out.strip().splitlines()) == 1


def test_wait_returns_after_its_time(panel, brake):
    panel.train.click()
    assert brake.started.wait(PATIENCE)
    assert panel.wait(0.2) is False and panel.running
    brake.release()
    assert panel.wait(PATIENCE)


class AllZero(TERNARY):
    """A quantizer whose scale is so large that every weight is rounded to zero."""

    scaling_impl_type = "const"
    scaling_init = 1e9


def test_dead_layers_say_so(tiny):
    dead = nets.Scheme("DeadNN", "W1.58A32", AllZero, None, TERNARY)
    panel = TrainingPanel(tiny.take(128, 32), name=dead, arch="lenet", epochs=1)
    panel.train.click()
    assert panel.wait(PATIENCE)
    report = weights.report(panel.net)
    names = [name for name in report.index if report.zeros[name] == 1]
    assert names and all(name in panel.monitor.dead.value for name in names)


def test_shares_over_the_epochs_are_those_of_the_net(panel):
    panel.train.click()
    assert panel.wait(PATIENCE)
    report = weights.report(panel.net)
    zeros = (report.zeros * report.weights).sum() / report.weights.sum()
    looks = panel.monitor._looks
    assert [look.epoch for look in looks] == [0, 1, 2] and looks[0].flipped is None
    assert looks[-1].zeros == pytest.approx(zeros, abs=1e-3)
    fresh = nets.build("TernaryNN", "lenet", 0)
    first = weights.latent(next(iter(weights.quantized_layers(fresh).values()))).flatten()
    assert torch.equal(torch.from_numpy(looks[0].latent), first)
    assert 0 < looks[1].flipped < 0.5


@pytest.mark.slow
def test_drawing_takes_little_of_the_training(panel):
    panel.epochs.value = 6
    start = time.perf_counter()
    panel.train.click()
    assert panel.wait(PATIENCE)
    assert panel.monitor._spent < 0.1 * (time.perf_counter() - start)


def test_the_panel_offers_every_architecture_and_no_variants_of_schemes(panel):
    assert set(panel.arch.options) == set(nets.ARCHITECTURES)
    assert {"PytorchNN", "TernaryNN", "BinaryNN", "XnorNN"} <= set(panel.name.options) <= set(nets.SCHEMES)
    assert not any(name.endswith(nets.FIRST_LAST_SUFFIX) for name in panel.name.options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OwnNet(nets.SCHEMES["BinaryNN"]),
        pytest.param(lambda: nets.build("XnorNN", "lenet", 3), marks=pytest.mark.slow),
    ],
)
def test_a_net_of_the_readers_own_is_trained_as_a_copy(tiny, make):
    net = make()
    few, before = tiny.take(128, 32), {key: value.clone() for key, value in net.state_dict().items()}
    panel = TrainingPanel(few, net, epochs=2)
    stop_after_an_epoch(panel)
    panel.primary.click()
    assert panel.wait(PATIENCE) and not is_error(panel.status) and len(panel.history) == 2
    assert type(panel.net) is type(net) and panel.history.name == nets.spec_of(net).name and panel.arch.disabled
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
    history = training.fit(weights.initialize_scales(net), few, 2, recipe=nets.Recipe(**panel.history.config["recipe"]))
    assert history["train_loss"].tolist() == panel.history["train_loss"].tolist()
    panel.name.value = "BinaryNN"
    assert not panel.arch.disabled


def test_the_output_of_a_cell_holds_a_still_picture(panel, tmp_path):
    data, metadata = panel._repr_mimebundle_()
    assert data[preview.VIEW]["model_id"] == panel.model_id
    (tmp_path / "still.png").write_bytes(base64.b64decode(data["image/png"]))
    with Image.open(tmp_path / "still.png") as picture:
        assert picture.width > 500 and picture.height > 200
    alt = metadata["image/png"]["alt"]
    assert "TernaryNN" in alt and data["text/plain"] == alt


class Kernel:
    """A kernel with the parts of ipykernel that hold messages, and what it was asked to do."""

    def __init__(self, session):
        self.session, self.handled, self.later = session, [], []
        self.shell_handlers = {"comm_msg": lambda stream, _, message: self.handled.append(message["content"]["data"])}

    def _publish_status(self, status, channel, parent=None):
        pass


def message(session, kind, content):
    return [zmq.Message(part) for part in session.serialize(session.msg(kind, content))]


def test_clicks_are_handled_and_cells_wait_in_their_order_on_ipykernel_6(monkeypatch):
    session = Session(key=b"of the test")
    kernel = Kernel(session)
    kernel.msg_queue = asyncio.Queue()
    kernel.shell_stream = types.SimpleNamespace(flush=lambda _: None)
    kinds = [("execute_request", 1), ("comm_msg", 2), ("execute_request", 3), ("comm_msg", 4), ("comm_info_request", 5)]
    for number, (kind, data) in enumerate(kinds):
        kernel.msg_queue.put_nowait((number, "dispatch", (message(session, kind, {"data": data}),)))
    monkeypatch.setattr(messages, "get_ipython", lambda: types.SimpleNamespace(kernel=kernel))
    messages.handle_pending()
    assert kernel.handled == [2, 4]
    rest = [kernel.msg_queue.get_nowait() for _ in range(kernel.msg_queue.qsize())]
    assert [number for number, _, _ in rest] == [0, 2, 4]
    for _, _, (frames,) in rest:  # ipykernel can still read them: a message is accepted only once
        session.deserialize(session.feed_identities(frames, copy=False)[1], copy=False)


def test_clicks_are_handled_and_cells_run_later_in_their_order_on_ipykernel_7(monkeypatch):
    session = Session(key=b"of the test")
    kernel = Kernel(session)
    kinds = [("execute_request", 1), ("comm_msg", 2), ("execute_request", 3)]
    waiting = [message(session, kind, {"data": data}) for kind, data in kinds]
    socket = types.SimpleNamespace(poll=lambda _: bool(waiting), recv_multipart=lambda copy: waiting.pop(0))
    kernel.shell_channel_thread, kernel.shell_stream = None, types.SimpleNamespace(socket=socket)

    async def shell_main(subshell, frames):
        content = session.deserialize(session.feed_identities(frames, copy=False)[1], copy=False)["content"]
        kernel.later.append(content["data"])

    kernel.shell_main = shell_main
    monkeypatch.setattr(messages, "get_ipython", lambda: types.SimpleNamespace(kernel=kernel))

    async def cell():
        messages.handle_pending()
        assert kernel.handled == [2] and kernel.later == []

    async def main():
        await cell()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert kernel.later == [1, 3]


def test_a_kernel_of_an_unknown_kind_and_plain_python_are_left_alone(monkeypatch):
    messages.handle_pending()
    monkeypatch.setattr(messages, "get_ipython", lambda: types.SimpleNamespace(kernel=types.SimpleNamespace()))
    messages.handle_pending()


@pytest.mark.parametrize(("value", "expected"), [(0.13, 0.15), (0.2, 0.2), (3, 3), (8, 10), (0, 1), (float("nan"), 1)])
def test_axes_end_at_round_numbers(value, expected):
    assert svg.rounded_up(value) == pytest.approx(expected)


@pytest.mark.parametrize("epochs", [1, 2, 6, 7, 40, 999, 10_000])
def test_ticks_are_few_whole_epochs(epochs):
    ticks = list(svg.epoch_ticks(epochs))
    assert 2 <= len(ticks) <= 7 and ticks[0] == 0 and ticks[-1] <= epochs and all(isinstance(t, int) for t in ticks)


@pytest.mark.parametrize(
    ("name", "arch", "trained"),
    [
        ("MyNN", "own", "MyNN"),
        ("MyNN", "lenet", "MyNN"),
        ("TernaryNN", "own", "TernaryNN"),
        ("alias", "own", "Named otherwise"),
        (VARIANT, "own", VARIANT),
        (MINE, "own", "MyNN"),
        (nets.Scheme("Unregistered", "W1A32", BINARY, None, BINARY), "own", "Unregistered"),
        (nets.SCHEMES["BinaryNN"], "own", "BinaryNN"),
        ("BinaryNN", "convnet-x0.05", "BinaryNN"),
    ],
)
def test_the_panel_trains_a_readers_own_schemes_and_architectures(registered, tiny, name, arch, trained):
    panel = TrainingPanel(tiny.take(64, 32), name=name, arch=arch, epochs=1)
    assert panel.arch.value == arch and {"own", "lenet", arch} <= set(panel.arch.options)
    assert {"MyNN", "alias", "TernaryNN"} <= set(panel.name.options) and len(set(panel.name.options)) == len(
        panel.name.options
    )
    panel.train.click()
    assert panel.wait(PATIENCE) and not is_error(panel.status)
    assert (panel.history.name, panel.history.config["arch"]) == (trained, arch) and len(panel.history) == 1
    assert panel.net.spec.name == trained and trained in panel.status.value
    assert "<table" in panel.levels.value and (panel.folder / f"{trained}.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "NoNN"}, "NoNN.*MyNN"),
        ({"name": None}, "None"),
        ({"name": TERNARY}, "TernaryWeight"),
        ({"name": ["TernaryNN"]}, "TernaryNN"),
        ({"name": nets.Scheme("TernaryNN", "W1A32", BINARY, None, BINARY)}, "TernaryNN.*another name"),
        ({"name": nets.Scheme("MyNN", "W32A32")}, "MyNN.*another name"),
        ({"arch": "resnet"}, "resnet.*own"),
        ({"arch": "lenet-x2"}, "lenet"),
        ({"arch": "convnet-xwide"}, "convnet-xwide"),
        ({"arch": nets.Architecture(OwnNet)}, "arch.*Architecture"),
        ({"arch": OwnNet}, "arch"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"epochs": "3"}, "epochs"),
        ({"share": 0}, "share"),
        ({"share": 50}, "share"),
        ({"share": "all"}, "share"),
    ],
)
def test_the_panel_refuses_what_it_cannot_train_in_a_sentence(registered, tiny, options, named):
    with pytest.raises((CourseError, ValueError), match=named):
        TrainingPanel(tiny, **{"name": "TernaryNN", "arch": "lenet"} | options)


@pytest.mark.parametrize(
    ("registry", "entry", "named"),
    [
        (nets.SCHEMES, TERNARY, "mine.*Scheme"),
        (nets.SCHEMES, "TernaryNN", "mine.*Scheme"),
        (nets.ARCHITECTURES, OwnNet, "mine.*Architecture"),
        (nets.ARCHITECTURES, "lenet", "mine.*Architecture"),
    ],
)
def test_the_panel_names_an_entry_that_is_no_scheme_or_architecture(tiny, monkeypatch, registry, entry, named):
    monkeypatch.setitem(registry, "mine", entry)
    with pytest.raises(CourseError, match=named):
        TrainingPanel(tiny)


@pytest.mark.parametrize("dataset", [None, "cifar10", torch.zeros(3)])
def test_what_is_no_data_set_is_refused(dataset):
    with pytest.raises(ValueError, match="dataset is a"):
        TrainingPanel(dataset)
