import os
import re
import shutil
import subprocess

import pytest
import torch
from brevitas import nn as qnn
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import c
from qathelpers.nets import quantizers as q
from qathelpers.results import recorded_net
from qathelpers.training import predict
from tools import cortex_m

needs_compiler = pytest.mark.skipif(c.compiler() is None, reason="needs a C compiler: cc, gcc or clang")
STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror")
SANITIZE = (*STRICT, "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SCHEMES = ("XnorNN", "BinaryNN", "TernaryNN")
ARCHS = ("lenet", "convnet", "sharpnet", "sharpnet-x2")
RECORDED = [(a, s) for a in ARCHS for s in SCHEMES if (a, s) != ("lenet", "XnorNN")]

FAST = (("lenet", "BinaryNN"), ("convnet", "XnorNN"), ("convnet", "TernaryNN"))


def noise(count, channels=3, side=32, seed=2):
    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def trained(scheme, arch="lenet", **options):
    """A net whose BatchNorms have statistics."""
    net = nets.build(scheme, arch, **options)
    update_bn([normalize(noise(64, *net.spec.image[:2], seed=1))], net)
    return net.eval()


def agree(found, expected, share=1.0):
    """Whether scores are equal but for rounding; rounding at a threshold may change those of a few images."""
    assert found.shape == expected.shape and found.isfinite().all()
    gaps = (found - expected).abs().amax(1)
    return (gaps < 1e-4).float().mean() >= share


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "name"),
    [
        pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow)
        for pair in RECORDED
        if pair[0] != "sharpnet-x2"
    ],
)
def test_recorded_nets_compute_the_same(arch, name, tiny, tmp_path):
    net, images = recorded_net(name, arch), tiny.test_images[:50]
    path = c.export_c(net, tmp_path / "net.c")
    expected = predict(net, images)
    found = c.run_c(path, images)
    assert agree(found, expected, 0.95 if name == "XnorNN" else 1)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.98


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("arch", "name"), RECORDED)
def test_predictions_for_all_test_images_of_cifar10_are_those_of_pytorch(arch, name, cifar10, tmp_path):
    net, images = recorded_net(name, arch), cifar10.test_images
    found = c.run_c(c.export_c(net, tmp_path / "net.c"), images, options=("-std=c99", "-O3", "-march=native"))
    expected = predict(net, images)
    different = found.argmax(1) != expected.argmax(1)
    # Either two classes are nearly equal, or a sum at a threshold was rounded to the other side (binary activations).
    assert different.sum() <= (10 if name == "XnorNN" else 2)
    if name != "XnorNN":
        best = expected.topk(2).values
        assert ((best[:, 0] - best[:, 1])[different] < 1e-4).all()


@needs_compiler
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize(
    ("arch", "name"), [("lenet", "TernaryNN"), pytest.param("convnet", "XnorNN", marks=pytest.mark.slow)]
)
def test_the_code_is_standard_c_without_undefined_behaviour(compiler, bits, arch, name, tmp_path):
    options = buildable(compiler, tmp_path, f"-m{bits}")
    net, images = trained(name, arch), noise(3)
    path = c.export_c(net, tmp_path / "net.c")
    assert agree(c.run_c(path, images, options=options, command=compiler), predict(net, images), 0.6)


def buildable(compiler, folder, option):
    """Return strict options with which a compiler builds programs here, with sanitizers if they are installed."""
    (folder / "probe.c").write_text("#include <stdio.h>\nint main(void) { return 0; }\n", encoding="utf-8")
    for options in (SANITIZE, STRICT):
        command = [compiler, *options, option, str(folder / "probe.c"), "-o", str(folder / "probe")]
        if shutil.which(compiler) and not subprocess.run(command, capture_output=True).returncode:
            return (*options, option)
    pytest.skip(f"{compiler} {option} cannot build programs here: install it, and its libraries for this word size")


@needs_compiler
@pytest.mark.parametrize("name", ["XnorNN", "TernaryNN"])
def test_the_file_needs_no_library_and_no_allocation(name, tmp_path):
    path = c.export_c(recorded_net(name, "convnet"), tmp_path / "net.c")
    assert re.findall(r"#include (\S+)", path.read_text(encoding="utf-8").partition("#ifdef NET_MAIN")[0]) == [
        "<stdint.h>"
    ]
    subprocess.run([c.compiler(), "-std=c99", "-O2", "-c", path, "-o", tmp_path / "net.o"], check=True)
    symbols = subprocess.run(["nm", tmp_path / "net.o"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r" U (\w+)", symbols)) <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}
    assert set(re.findall(r" T (\w+)", symbols)) == {"net_scores", "net_class"}


@needs_compiler
def test_weights_are_packed(tmp_path):
    sizes = {}
    for name in SCHEMES:
        path = c.export_c(recorded_net(name, "convnet"), tmp_path / "net.c")
        subprocess.run([c.compiler(), "-std=c99", "-Os", "-c", path, "-o", tmp_path / "net.o"], check=True)
        sizes[name] = int(subprocess.check_output(["size", tmp_path / "net.o"], text=True).split()[6])
    weights = 515_000  # of the convnet
    assert sizes["XnorNN"] < 1.4 * weights / 8 and sizes["BinaryNN"] < 1.2 * weights / 8
    assert sizes["TernaryNN"] < 1.1 * weights / 4


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "channels", "side", "name"),
    [
        ("lenet", 1, 28, "XnorNN"),
        ("convnet", 1, 28, "TernaryNN"),
        pytest.param("sharpnet", 3, 20, "XnorNN", marks=pytest.mark.slow),
    ],
)
def test_nets_for_other_images_and_classes_are_written(arch, channels, side, name, tmp_path):
    net = trained(name, arch, classes=7, image_size=side, channels=channels)
    path, images = c.export_c(net, tmp_path / "digits.c", "digits", classes="abcdefg"), noise(6, channels, side)
    found = c.run_c(path, images, "digits")
    assert found.shape == (6, 7) and agree(found, predict(net, images), 0.6)
    assert "a, b, c, d, e, f, g" in path.read_text(encoding="utf-8")
    with pytest.raises(CourseError, match="incomplete"):
        c.run_c(path, images[:, :, :-1], "digits")


@needs_compiler
@pytest.mark.parametrize(
    ("arch", "name"),
    [("lenet", "XnorNN"), ("lenet", "BinaryNN"), pytest.param("convnet", "XnorNN", marks=pytest.mark.slow)],
)
def test_batchnorms_with_negative_and_zero_weights_are_written(arch, name, tmp_path):
    net, images = trained(name, arch), noise(8)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data[::2] *= -1
            module.weight.data[1] = 0
    assert agree(c.run_c(c.export_c(net, tmp_path / "net.c"), images), predict(net, images), 0.6)


@needs_compiler
def test_a_scheme_of_your_own_is_written(tmp_path):
    for scheme in (
        nets.Scheme("Mine", "W4A32", q.Int4Weight, first_last=q.BinaryWeight),
        nets.Scheme("Signs", "W1A1", q.BinaryWeight, q.BinaryActivation, q.BinaryWeight),
        nets.SCHEMES["TernaryNN-8bit-first-last"],
    ):
        net, images = trained(scheme), noise(8)
        assert agree(c.run_c(c.export_c(net, tmp_path / "net.c"), images), predict(net, images), 0.6)


@needs_compiler
def test_names_cannot_end_the_comment_that_they_are_in(tmp_path):
    scheme = nets.Scheme("Mine */ int x;", "W1A1\n*/", q.BinaryWeight, q.BinaryActivation, q.BinaryWeight)
    net, images = trained(scheme, classes=4), noise(4)
    path = c.export_c(net, tmp_path / "net.c", classes=("a*/b", "/*", "two\nlines\r\u2028", "*/*/ \\ Äpfel"))
    found = c.run_c(path, images, options=STRICT)
    assert agree(found, predict(net, images), 0.6) and "Äpfel" in path.read_text(encoding="utf-8")


@needs_compiler
@pytest.mark.parametrize(("size", "stride"), [((2, 2), None), (2, (2, 2)), ([2, 2], 2)])
def test_pooling_windows_are_written_however_they_are_given(size, stride, tmp_path):
    net, images = trained("TernaryNN"), noise(4)
    net.features[1] = nn.MaxPool2d(size, stride)
    assert agree(c.run_c(c.export_c(net, tmp_path / "net.c"), images), predict(net, images))


def test_other_pooling_windows_are_refused(tmp_path):
    for size, stride in (((2, 1), None), (2, (2, 1)), ((2, 2), 1)):
        net = trained("TernaryNN")
        net.features[1] = nn.MaxPool2d(size, stride)
        with pytest.raises(CourseError, match=r"features\.1 \(MaxPool2d\)"):
            c.export_c(net, tmp_path / "net.c")
    assert not list(tmp_path.iterdir())


class Other(nets.ConvNet):
    """Computes something else than a ConvNet."""

    def forward(self, images):
        return -super().forward(images)


def with_a_hook():
    net = trained("XnorNN")
    net.features[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def with_another_layer():
    net = trained("TernaryNN")
    net.classifier[1] = qnn.QuantLinear(400, 120, False, weight_quant=None)
    return net


REFUSED = {
    "QuantReLU.*activations": lambda: trained("Int4NN"),
    "not integers": lambda: trained("PytorchNN"),
    "not binary": lambda: trained("XnorNN-8bit-first-last"),
    "Other": lambda: Other(nets.SCHEMES["XnorNN"]),
    "hook": with_a_hook,
    "classifier.1": with_another_layer,
    "Sequential": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
}


@pytest.mark.parametrize(("reason", "make"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_written_is_refused(reason, make, tmp_path):
    with pytest.raises(CourseError, match=reason):
        c.export_c(make(), tmp_path / "net.c")
    assert not list(tmp_path.iterdir())


def test_bad_names_and_images_are_refused(tmp_path):
    net = trained("XnorNN")
    for name in ("my net", "1st", ""):
        with pytest.raises(CourseError, match="letters"):
            c.export_c(net, tmp_path / "net.c", name)
    with pytest.raises(CourseError, match="uint8"):
        c.run_c(tmp_path / "net.c", noise(1).float())
    with pytest.raises(CourseError, match=r"10 logits.*2 names"):
        c.export_c(net, tmp_path / "net.c", classes=("cat", "dog"))


def test_without_a_compiler_the_file_is_written_and_cannot_be_run(monkeypatch, tmp_path):
    monkeypatch.setattr(c, "compiler", lambda: None)
    path = c.export_c(trained("XnorNN"), tmp_path / "net.c")
    assert "net_scores" in path.read_text(encoding="utf-8")
    with pytest.raises(CourseError, match="compiler"):
        c.run_c(path, noise(1))


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the command")
def test_a_command_that_only_says_how_to_install_a_compiler_is_none(monkeypatch, tmp_path):
    for name in c.COMPILERS:
        (tmp_path / name).write_text("#!/bin/sh\necho no developer tools were found >&2\nexit 1\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert c.compiler() is None


@needs_compiler
def test_a_library_is_found_by_its_name_in_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    c.export_c(trained("XnorNN", "lenet"), "net.c")
    run = c.load_library(c.build_library("net.c", "net.so"))
    assert run(noise(2)).shape == (2, 10)
    with pytest.raises(CourseError, match="other"):
        c.load_library("other.so")
    with pytest.raises(CourseError, match=r"net\.so"):
        c.load_library("net.so", "another")


@needs_compiler
def test_a_library_computes_the_same_and_refuses_other_images(tmp_path):
    net, images = trained("XnorNN", "convnet", channels=1, image_size=28, classes=7), noise(3, 1, 28)
    path = c.build_library(c.export_c(net, tmp_path / "net.c", "digits"), tmp_path / "net.so")
    run = c.load_library(path, "digits", classes=7, shape=(1, 28, 28))
    assert agree(run(images), predict(net, images), 0.6)
    assert torch.equal(run(images.transpose(2, 3).contiguous().transpose(2, 3)), run(images))
    for wrong in (images.float(), images[:, :, 1:], images[0]):
        with pytest.raises(CourseError):
            run(wrong)
    with pytest.raises(CourseError, match="nothing"):
        c.build_library(tmp_path / "nothing.c", tmp_path / "other.so")


@needs_compiler
def test_a_program_that_computes_something_else_is_not_kept(monkeypatch, tmp_path):
    wrong = tmp_path / "layers.c"
    text = c.LAYERS.read_text(encoding="utf-8")
    assert "value * layer->gain" in text or "layer->shift[o]" in text
    wrong.write_text(text.replace("+ layer->shift[o]", "- layer->shift[o]"), encoding="utf-8")
    monkeypatch.setattr(c, "LAYERS", wrong)
    with pytest.raises(CourseError, match="C conversion"):
        c.export_c(recorded_net("TernaryNN", "lenet"), tmp_path / "out" / "net.c")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(
    bool(cortex_m.missing()), reason=f"needs Debian's packages: apt-get install {' '.join(cortex_m.missing())}"
)
@pytest.mark.parametrize(("arch", "name", "flash"), [("convnet", "XnorNN", 85_000), ("lenet", "BinaryNN", 15_000)])
def test_an_emulated_microcontroller_gives_the_same_answers(arch, name, flash, tiny, tmp_path):
    net, images = recorded_net(name, arch), tiny.test_images[:5]
    found = cortex_m.run(c.export_c(net, tmp_path / "net.c"), images)
    assert found.classes == predict(net, images).argmax(1).tolist()
    assert 5_000 < found.flash < flash and 10_000 < found.ram < 64_000
    assert 1_000_000 < found.instructions < 30_000_000
