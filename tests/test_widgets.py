"""The widgets without a browser, through clicks and traits only; tests/browser has them in a real one."""

import io
from dataclasses import replace
from datetime import datetime, timezone

import ipywidgets
import pytest
import torch
from PIL import Image

from qathelpers import data, nets, results, training
from qathelpers.common.errors import CourseError
from qathelpers.nets import weights
from qathelpers.training.history import History
from qathelpers.widgets import Comparison, PictureGuesser, QuantizerExplorer, Setting, TrainingPanel
from qathelpers.widgets.guesser import uploaded_file

PNG = b"\x89PNG"


class OwnNet(torch.nn.Sequential):
    """A net of a reader: a plain class that takes a scheme."""

    def __init__(self, scheme, classes=10):
        super().__init__(
            scheme.conv(3, 8, 5, first_or_last=True, stride=4),
            torch.nn.BatchNorm2d(8),
            scheme.act(),
            torch.nn.Flatten(),
            scheme.linear(8 * 7 * 7, classes),
        )


TERNARY, BINARY = nets.quantizers.TernaryWeight, nets.quantizers.BinaryWeight
MINE = nets.Scheme("MyNN", "W1A32", BINARY, None, BINARY)
VARIANT = "TernaryNN" + nets.FIRST_LAST_SUFFIX


@pytest.fixture
def registered(monkeypatch):
    """Register a scheme and an architecture as a reader would."""
    monkeypatch.setitem(nets.SCHEMES, "MyNN", MINE)
    monkeypatch.setitem(nets.SCHEMES, "alias", nets.Scheme("Named otherwise", "W1.58A32", TERNARY, None, TERNARY))
    monkeypatch.setitem(nets.ARCHITECTURES, "own", nets.Architecture(OwnNet))


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


@pytest.mark.parametrize("widget", [TrainingPanel, PictureGuesser])
@pytest.mark.parametrize("dataset", [None, "cifar10", torch.zeros(3)])
def test_what_is_no_data_set_is_refused(widget, dataset):
    with pytest.raises(ValueError, match="dataset is a"):
        widget(dataset)


def broken(net):
    torch.nn.init.constant_(weights.first_layer(net).weight, float("nan"))
    return net


def own_net(name="BinaryNN", arch="own", **options):
    return nets.build(name, arch, **options)


def test_the_guesser_shows_nets_of_a_readers_own_schemes_and_architectures(registered, tiny):
    own, plain = own_net(MINE), OwnNet(nets.SCHEMES["PytorchNN"])
    guesser = PictureGuesser(tiny, {"MyNN": own, 7: own_net("alias"), "plain": plain})
    assert set(guesser.predictions) == {"MyNN", "7", "plain"} and guesser.predictions["MyNN"][0] in tiny.classes
    for net, name in ((own, "MyNN"), (plain, "OwnNet")):
        assert set(PictureGuesser(tiny, net).predictions) == {name}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: MINE, "nets.*Scheme"),
        (lambda: "MyNN", "nets.*str"),
        (lambda: ["MyNN"], "nets.*list"),
        (lambda: {"mine": "MyNN"}, "mine.*str"),
        (lambda: {"mine": MINE}, "mine.*Scheme"),
        (lambda: {"mine": (own_net(), None)}, "mine.*tuple"),
        (lambda: {"mine": own_net().state_dict()}, "mine.*OrderedDict"),
        (lambda: {1: own_net(), "1": own_net("PytorchNN")}, "same name"),
        (lambda: {"mine": own_net(classes=2)}, "mine.*10 classes"),
        (lambda: {"mine": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 10))}, "mine.*3 x 32 x 32"),
        (lambda: {"mine": torch.nn.Flatten()}, "mine"),
        (lambda: {"mine": torch.nn.Conv2d(3, 10, 3)}, "mine.*10 classes"),
        (lambda: {"mine": broken(own_net("PytorchNN"))}, "mine.*NaN"),
    ],
)
def test_the_guesser_refuses_what_it_cannot_show_in_a_sentence(registered, tiny, make, named):
    with pytest.raises((CourseError, ValueError), match=named):
        PictureGuesser(tiny, make())


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: torch.nn.Sequential(), "no layer"),
        (lambda: torch.nn.Flatten(), "no layer"),
        (lambda: torch.nn.Conv1d(3, 8, 3), "no layer"),
        (lambda: broken(nets.build("BinaryNN", "lenet")), "NaN"),
        (lambda: {"mine": nets.build("BinaryNN", "lenet")}, "net is a dict"),
        (lambda: "BinaryNN", "net is a str"),
        (lambda: MINE, "net is a Scheme"),
    ],
)
def test_the_explorer_refuses_what_it_cannot_show_in_a_sentence(make, named):
    with pytest.raises((CourseError, ValueError), match=named):
        QuantizerExplorer(make())


def test_the_explorer_offers_the_layers_of_a_readers_own_net(registered):
    explorer = QuantizerExplorer(own_net("alias"))
    assert list(explorer.layer.options) == ["0", "4"]
    explorer.layer.value = "4"
    assert explorer.summary["levels"] == 3


def test_the_explorer_shows_what_each_control_does():
    explorer = QuantizerExplorer(nets.build("PytorchNN", "lenet"))
    assert explorer.summary["levels"] == 3 and bytes(explorer.picture.value).startswith(PNG)
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


def test_the_explorers_summary_is_what_its_setting_does():
    net = nets.build("PytorchNN", "lenet")
    explorer = QuantizerExplorer(net)
    explorer.bits.value, explorer.base.value, explorer.factor.value = 3, "largest", 0.5
    weight = weights.latent(net.features[0])
    setting = explorer.setting
    assert (setting.bits, setting.base, setting.factor) == (3, "largest", 0.5)
    scale = setting.scale(weight)
    integers = setting.integers(weight / scale)
    error = (integers * scale - weight).square().sum() / weight.square().sum()
    assert explorer.summary["relative squared error"] == pytest.approx(error.item())
    assert explorer.summary["zeros"] == pytest.approx((integers == 0).float().mean().item())
    assert explorer.summary["levels"] == len(integers.unique())
    assert explorer.summary["scale"] == pytest.approx(scale.item())
    assert explorer.summary["gradient passes"] == pytest.approx(((weight / scale).abs() <= 3.5).float().mean().item())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("bits", "name"), [(2, "TernaryNN"), (1, "BinaryNN")])
def test_the_explorer_computes_as_the_courses_quantizers_do(bits, name, per_channel):
    layer = weights.first_layer(nets.build(name, "lenet"))
    setting = Setting(bits=bits, per_channel=per_channel)
    integers = setting.integers(layer.weight.detach() / setting.scale(layer.weight.detach()))
    same = torch.equal(integers.long(), weights.integers(layer))
    assert same or (per_channel and bits == 2)  # the course has one scale per layer; signs do not depend on it


def test_without_narrow_range_there_is_one_integer_more():
    scaled = torch.linspace(-5, 5, 101)
    assert Setting(bits=3, narrow=False).integers(scaled).unique().tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]
    assert Setting(bits=3).integers(scaled).unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


@pytest.fixture
def guesser(tiny):
    return PictureGuesser(tiny, {name: nets.build(name, "lenet") for name in ("PytorchNN", "BinaryNN")})


def test_the_guesser_shows_an_image_and_steps_through_disagreements(guesser, tiny):
    logits = {name: training.predict(net, tiny.test_images) for name, net in guesser.nets.items()}
    disagree = (logits["PytorchNN"].argmax(1) != logits["BinaryNN"].argmax(1)).nonzero().flatten().tolist()
    assert guesser.disagreeing == disagree and len(disagree) > 2
    assert set(guesser.predictions) == {"PytorchNN", "BinaryNN"} and len(guesser.predictions["BinaryNN"]) == 3
    assert guesser.predictions["BinaryNN"][0] == tiny.classes[logits["BinaryNN"][0].argmax()]
    assert tiny.classes[tiny.test_labels[0]] in guesser.status.value
    guesser.next.click()
    second = guesser.index.value
    assert second == next(index for index in disagree if index > 0)
    assert guesser.predictions["PytorchNN"][0] != guesser.predictions["BinaryNN"][0]
    guesser.next.click()
    assert guesser.index.value == next(index for index in disagree if index > second)
    guesser.previous.click()
    assert guesser.index.value == second
    guesser.index.value = disagree[-1]
    before = guesser.status.value
    guesser.next.click()
    assert guesser.index.value == disagree[-1] and guesser.status.value != before


def photo(format="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(file, format)
    return file.getvalue()


def upload(guesser, content, name="a.jpg"):
    """Set the value that a FileUpload has when the browser has sent a file: a dict in ipywidgets 7, a tuple in 8."""
    if ipywidgets.__version__.startswith("7."):
        guesser.upload.set_trait("value", {name: {"content": content}})
    else:
        file = {"name": name, "type": "", "size": len(content), "last_modified": datetime.now(timezone.utc)}
        guesser.upload.value = ({**file, "content": memoryview(content)},)


def test_the_guesser_takes_photos_and_refuses_other_files(guesser):
    test_image, of_test_image = bytes(guesser.image.value), guesser.status.value
    upload(guesser, photo())
    shown, of_photo = bytes(guesser.image.value), guesser.status.value
    assert shown != test_image and of_photo != of_test_image
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (192, 192) and all(
            abs(a - b) < 4 for a, b in zip(image.getpixel((96, 96)), (200, 30, 30), strict=True)
        )
    assert guesser.predictions and guesser.answer.value
    upload(guesser, b"not an image", "<b>.txt")
    refused = guesser.status.value
    assert "&lt;b&gt;.txt is not a picture" in refused
    assert guesser.predictions == {} and guesser.answer.value == "" and guesser.image.layout.visibility == "hidden"
    guesser.upload.set_trait("value", type(guesser.upload.value)())  # an empty dict or tuple
    assert guesser.status.value == refused
    upload(guesser, photo("PNG"))
    assert guesser.status.value == of_photo
    assert guesser.predictions and guesser.answer.value and guesser.image.layout.visibility == "visible"


def test_the_guesser_shows_grey_images_to_nets_for_grey_images(tiny):
    grey = replace(tiny, name="own", train_images=tiny.train_images[:, :1], test_images=tiny.test_images[:, :1])
    guesser = PictureGuesser(grey, nets.build("BinaryNN", "lenet", channels=1))
    with Image.open(io.BytesIO(guesser.image.value)) as image:
        assert image.size == (192, 192) and image.getpixel((0, 0)) == grey.test_images[0, 0, 0, 0]
    upload(guesser, photo())
    with Image.open(io.BytesIO(guesser.image.value)) as image:
        assert abs(image.getpixel((96, 96)) - (0.299 * 200 + 0.587 * 30 + 0.114 * 30)) < 4
    assert guesser.predictions["BinaryNN"]
    with pytest.raises(CourseError, match="channels=1"):
        PictureGuesser(grey, nets.build("BinaryNN", "lenet"))


def test_uploads_are_read_from_ipywidgets_7_and_8():
    assert uploaded_file({"a.jpg": {"content": b"seven"}}) == ("a.jpg", b"seven")
    assert uploaded_file(({"name": "a.jpg", "content": memoryview(b"eight")},)) == ("a.jpg", b"eight")


@pytest.mark.parametrize("given", ["a dict of one", "a net", "no nets"])
def test_the_guesser_takes_one_net_and_no_nets(tiny, given):
    net = nets.build("BinaryNN", "lenet")
    guesser = PictureGuesser(tiny, {"a dict of one": {"<mine>": net}, "a net": net, "no nets": {}}[given])
    names = {"a dict of one": {"<mine>"}, "a net": {"BinaryNN"}, "no nets": set()}[given]
    assert set(guesser.predictions) == names and guesser.disagreeing == []
    assert guesser.next.disabled and guesser.previous.disabled and "disagree" not in guesser.status.value
    guesser.index.value = 3
    assert "Test image 3" in guesser.status.value and "<mine>" not in guesser.answer.value
    upload(guesser, photo())
    assert "a.jpg" in guesser.status.value and set(guesser.predictions) == names


class Answer(torch.nn.Module):
    """A net that gives every image the same logits."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def own_data(classes, side=32):
    images, labels = torch.zeros(8, 3, side, side, dtype=torch.uint8), torch.arange(8) % len(classes)
    return data.from_tensors(images, labels, images, labels, classes, "pets")


def test_the_guesser_knows_a_readers_own_classes():
    guesser = PictureGuesser(own_data(["<cat>", "dog"], 40), {"mine": Answer(0.0, 1.0), "other": Answer(1.0, 0.0)})
    assert guesser.predictions == {"mine": ["dog", "<cat>"], "other": ["<cat>", "dog"]}
    assert "&lt;cat&gt;" in guesser.answer.value and len(guesser.disagreeing) == 8
    upload(guesser, photo())
    assert "40 x 40 pixels" in guesser.status.value
    more_outputs = PictureGuesser(own_data(["cat", "dog"]), {"mine": Answer(0.0, 1.0, 2.0)})
    assert more_outputs.predictions == {"mine": ["output 2", "dog"]}
    with pytest.raises(CourseError, match=r"mine .*2 classes"):
        PictureGuesser(own_data(["cat", "dog"]), {"mine": Answer(0.0)})
    with pytest.raises(CourseError, match=r"recorded nets .*pets"):
        PictureGuesser(own_data(["cat", "dog"]))
    with pytest.raises(ValueError, match="dict of nets by name"):
        PictureGuesser(own_data(["cat", "dog"]), [Answer(0.0, 1.0)])
    with pytest.raises(CourseError, match="0 images"):
        PictureGuesser(own_data(["cat", "dog"]).take(8, 0), Answer(0.0, 1.0))


def test_the_comparison_follows_its_ticks(tiny):
    histories = [results.load_or_train(name, tiny, 1, arch="lenet")[1] for name in ("PytorchNN", "BinaryNN")]
    comparison = Comparison(histories)
    both = bytes(comparison.curves.value)
    assert comparison.table.value.count("<tr") == 3 and comparison.status.value == ""
    comparison.boxes[0].value = False
    assert [history.name for history in comparison.ticked] == ["BinaryNN"] and bytes(comparison.curves.value) != both
    assert "PytorchNN" not in comparison.table.value and "BinaryNN" in comparison.table.value
    comparison.boxes[1].value = False
    assert comparison.status.value and comparison.table.value == "" and comparison.curves.layout.visibility == "hidden"
    comparison.boxes[0].value = True
    assert comparison.status.value == "" and comparison.curves.layout.visibility == "visible"


def test_a_comparison_of_no_runs_says_so():
    comparison = Comparison([])
    assert comparison.ticked == [] and comparison.status.value and comparison.curves.layout.visibility == "hidden"


def history_of(**changes):
    config = {"name": "MyNN", "arch": "own", "bits": "W1A32", "seed": 0, "data": "pets", "hardware": "a laptop"}
    history = History({key: value for key, value in (config | changes).items() if value is not ...})
    history.append(epoch=1, train_loss=1, train_acc=0.6, test_loss=1, test_acc=0.5, seconds=30)
    return history


def test_the_comparison_shows_runs_of_a_readers_own_schemes_and_architectures(registered, tiny):
    few = tiny.take(64, 32)
    histories = [results.load_or_train(name, few, 1, arch="own")[1] for name in ("MyNN", MINE, "alias")]
    comparison = Comparison(histories)
    assert [history.name for history in comparison.ticked] == ["MyNN", "MyNN", "Named otherwise"]
    assert "Named otherwise" in comparison.table.value and "MyNN" in comparison.table.value


@pytest.mark.parametrize("changes", [{}, {"kB": 12.5}, {"kB": None}, {"seed": 7}, {"test_acc": 0.25}])
def test_the_comparison_takes_one_run_with_or_without_a_size(changes):
    comparison = Comparison(history_of(**changes))
    assert len(comparison.ticked) == 1 and "MyNN" in comparison.table.value
    assert ("12.5" in comparison.table.value) == ("kB" in changes and changes["kB"] is not None)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: {"mine": history_of()}, "dict"),
        (lambda: 3, "int"),
        (lambda: "MyNN", "str"),
        (lambda: [nets.build("BinaryNN", "lenet")], "LeNet"),
        (lambda: [(nets.build("BinaryNN", "lenet"), history_of())], "tuple"),
        (lambda: [history_of(), history_of(data="shapes")], "pets and shapes"),
        (lambda: [History(history_of().config)], "MyNN has no epoch"),
        (lambda: [history_of(arch=...)], "MyNN.*arch"),
        (lambda: [history_of(bits=...)], "MyNN.*bits"),
        (lambda: [history_of(seed=...)], "MyNN.*seed"),
        (lambda: [history_of(hardware=...)], "MyNN.*hardware"),
        (lambda: [history_of(data=["pets"])], "MyNN.*data"),
    ],
)
def test_the_comparison_refuses_what_it_cannot_show_in_a_sentence(make, named):
    with pytest.raises((CourseError, ValueError), match=named):
        Comparison(make())


@pytest.mark.parametrize("arch", ["own", "no such architecture", None])
def test_an_architecture_without_recorded_runs_is_named(registered, arch):
    with pytest.raises(CourseError, match=f"No runs of {arch}"):
        Comparison(arch=arch)
