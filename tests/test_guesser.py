"""The picture guesser without a browser, through clicks and traits only."""

import io
from dataclasses import replace
from datetime import datetime, timezone

import ipywidgets
import pytest
import torch
from PIL import Image

from qathelpers import data, nets, training
from qathelpers.common.errors import CourseError
from qathelpers.widgets import PictureGuesser
from qathelpers.widgets.guesser import uploaded_file

from .own_nets import MINE, OwnNet, broken, own_net


@pytest.mark.parametrize("dataset", [None, "cifar10", torch.zeros(3)])
def test_what_is_no_data_set_is_refused(dataset):
    with pytest.raises(ValueError, match="dataset is a"):
        PictureGuesser(dataset)


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
        (lambda: {"mine": torch.nn.Conv2d(3, 10, 3)}, "mine.*10 classes"),
        (lambda: {"mine": broken(own_net("PytorchNN"))}, "mine.*NaN"),
    ],
)
def test_the_guesser_refuses_what_it_cannot_show_in_a_sentence(registered, tiny, make, named):
    with pytest.raises((CourseError, ValueError), match=named):
        PictureGuesser(tiny, make())


@pytest.fixture
def guesser(tiny):
    return PictureGuesser(tiny, {name: nets.build(name, "lenet") for name in ("PytorchNN", "BinaryNN")})


def test_the_guesser_shows_an_image_and_steps_through_disagreements(guesser, tiny):
    logits = {name: training.predict(net, tiny.test_images) for name, net in guesser.nets.items()}
    disagree = (logits["PytorchNN"].argmax(1) != logits["BinaryNN"].argmax(1)).nonzero().flatten().tolist()
    assert guesser.disagreeing == disagree and len(disagree) > 2
    assert guesser.matching == disagree and guesser.index.value == disagree[0]  # at first, these are stepped through
    assert set(guesser.predictions) == {"PytorchNN", "BinaryNN"} and len(guesser.predictions["BinaryNN"]) == 3
    assert guesser.predictions["BinaryNN"][0] == tiny.classes[logits["BinaryNN"][disagree[0]].argmax()]
    assert guesser.predictions["PytorchNN"][0] != guesser.predictions["BinaryNN"][0]
    assert tiny.classes[tiny.test_labels[disagree[0]]] in guesser.status.value
    guesser.next.click()
    assert guesser.index.value == disagree[1]
    guesser.next.click()
    guesser.previous.click()
    assert guesser.index.value == disagree[1]
    guesser.index.value = disagree[-1]
    before = guesser.status.value
    guesser.next.click()
    assert guesser.index.value == disagree[-1] and guesser.status.value != before


def expected(guesser, tiny, show, kind):
    """The test images that belong to a choice, computed one by one."""
    logits = {name: training.predict(net, tiny.test_images) for name, net in guesser.nets.items()}
    found = []
    for index, label in enumerate(tiny.test_labels.tolist()):
        answers = {name: values[index].argmax().item() for name, values in logits.items()}
        right = [name for name, answer in answers.items() if answer == label]
        belongs = {
            "all images": True,
            "the nets disagree": len(set(answers.values())) > 1,
            "all nets are wrong": not right,
            "only PytorchNN is right": right == ["PytorchNN"],
            "only BinaryNN is right": right == ["BinaryNN"],
        }[show]
        if belongs and kind in (-1, label):
            found.append(index)
    return found


def test_the_choices_show_their_images_and_their_counts(guesser, tiny):
    shows = [key for _, key in guesser.show.options]
    assert len(shows) == 5
    for show in shows:
        guesser.show.value = show
        for kind in (-1, 0, 7):
            guesser.kind.value = kind
            assert (guesser.show.value, guesser.kind.value) == (show, kind)
            assert guesser.matching == expected(guesser, tiny, show, kind)
            for options, chosen in ((guesser.show.options, show), (guesser.kind.options, kind)):
                label = next(label for label, key in options if key == chosen)
                assert label.endswith(f"({len(guesser.matching)})")
            assert not guesser.matching or guesser.index.value in guesser.matching
            assert guesser.next.disabled == (not guesser.matching)


def test_the_true_class_is_marked_and_each_net_is_right_or_wrong(guesser, tiny):
    for index in range(20):
        guesser.index.value = index
        truth = tiny.classes[tiny.test_labels[index]]
        assert guesser.answer.value.count("true class") == 2  # once per net, also below its three likeliest classes
        assert f"<b>{truth}</b>" in guesser.answer.value
        right = sum(classes[0] == truth for classes in guesser.predictions.values())
        assert guesser.answer.value.count("✓ right") == right and guesser.answer.value.count("✗ wrong") == 2 - right


def pixels(content):
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB").copy()


@pytest.mark.parametrize(("size", "shown"), [((300, 200), (288, 192)), ((100, 200), (96, 192)), ((50, 50), (192, 192))])
def test_the_photo_is_shown_with_the_frame_of_its_crop(guesser, size, shown):
    upload(guesser, photo("PNG", size))
    whole = pixels(guesser.whole.value)
    assert abs(whole.width - shown[0]) <= 1 and whole.height == shown[1] and guesser.whole.layout.display is None
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    for x, y in ((left, top), (left + side - 1, top + side - 1)):  # the outer corners of the frame
        assert whole.getpixel((x, y)) == (0, 0, 0)
    assert whole.getpixel((left + side // 2, top + side // 2)) == (200, 30, 30)
    assert "true class" not in guesser.answer.value and "right" not in guesser.answer.value
    guesser.back.click()
    assert guesser.whole.layout.display == "none" and "Test image" in guesser.status.value
    upload(guesser, photo("PNG", size))  # the same file once more
    assert guesser.whole.layout.display is None


def photo(format="JPEG", size=(300, 200)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, format)
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
    assert guesser.whole.layout.display == "none"
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
    assert guesser.matching == list(range(200)) and not any("disagree" in key for _, key in guesser.show.options)
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
