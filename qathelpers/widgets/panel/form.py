"""The form of the training panel: what the next run is."""

import copy
import html
from numbers import Real

import ipywidgets as ipw
import traitlets
from torch import nn

from ... import nets
from ...common.errors import MAX_SEED, CourseError, check_whole
from ...data.dataset import Dataset
from ...nets import weights
from ..style import announced, narrow, row
from .estimate import Estimates
from .settings import Settings, duration, whole_number

MAX_EPOCHS = 10_000
BATCH_SIZES = (64, 128, 256, 512, 1024)


class NumberField(ipw.Text):
    """A field for a number that keeps what was typed, so that the panel can say what is wrong with it.

    Fields for whole numbers drop the characters that they do not expect, which turns 2.7 into 27.
    """

    value = traitlets.CUnicode("", help="What was typed; numbers are converted.").tag(sync=True)


class Form(ipw.VBox):
    """The settings of the next run, with the number of images and the expected time.

    Args:
        dataset: The data set to train on.
        name: The net that is selected at first.
        arch: The architecture that is selected at first.
        epochs: Number of epochs that is entered at first.
        share: Share of the images that is selected at first.
        estimates: Where training times are remembered.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str | nets.Scheme | nn.Module,
        arch: str,
        epochs: int,
        share: float,
        estimates: Estimates,
    ):
        """Check the arguments and create the controls."""
        check_whole("epochs", epochs, 1, MAX_EPOCHS)
        if not isinstance(share, Real) or not 0.01 <= share <= 1:
            raise ValueError(f"share must be a number from 0.01 to 1; got {share!r}")
        self._own = own_net(name) if isinstance(name, nn.Module) else None
        if self._own is not None:
            name, arch = nets.spec_of(self._own).name, next(iter(nets.ARCHITECTURES))
            self._schemes, selected = {name: None} | schemes_with("PytorchNN")[0] | {name: None}, name
        else:
            self._schemes, selected = schemes_with(name)
        archs = archs_with(arch)
        self._dataset, self._estimates, self._busy = dataset, estimates, False
        self.name = narrow(ipw.Dropdown(options=list(self._schemes), value=selected, description="net"), 190)
        self.arch = narrow(ipw.Dropdown(options=archs, value=arch, description="architecture"), 230)
        self.epochs = narrow(NumberField(value=epochs, description="epochs"), 120)
        self.batch_size = narrow(ipw.Dropdown(options=BATCH_SIZES, value=256, description="batch size"), 150)
        slider = ipw.FloatSlider(share, min=0.01, max=1, step=0.01, readout_format=".0%", description="data used")
        self.share = narrow(slider, 290)
        self.seed = narrow(NumberField(value=0, description="seed"), 120)
        self.expected = ipw.HTML()
        self.controls = (self.name, self.arch, self.epochs, self.batch_size, self.share, self.seed)
        for one in self.controls:
            one.observe(lambda _: self.show_expected(), names="value")
        heading = ipw.HTML('<span class="qat-quiet">Next run</span>')
        super().__init__([heading, row(*self.controls), self.expected])
        self.show_expected()

    def settings(self) -> Settings:
        """Return what is selected and typed.

        Raises:
            CourseError: If what was typed is not a number, or is out of range.
        """
        epochs = whole_number("epochs", self.epochs.value, 1, MAX_EPOCHS)
        seed = whole_number("seed", self.seed.value, 0, MAX_SEED)
        own = self._own if self._is_own else None
        scheme = self._schemes[self.name.value] if own is None else nets.spec_of(own).scheme
        return Settings(scheme, self.selected_arch, epochs, self.batch_size.value, self.share.value, seed, own)

    def enable(self, enabled: bool) -> None:
        """Enable all controls, or disable them while a training runs."""
        for one in self.controls:
            one.disabled = not enabled
        self.arch.disabled = not enabled or self._is_own
        if self._busy == enabled:
            self._busy = not enabled
            self.show_expected()

    @property
    def selected_arch(self) -> str:
        """The architecture of the next run."""
        return nets.spec_of(self._own).arch if self._is_own else self.arch.value

    @property
    def _is_own(self) -> bool:
        """Whether the reader's own net is selected, which has its architecture already."""
        return self._schemes[self.name.value] is None

    def show_expected(self) -> None:
        """Show how many images the next run has, and how long it will take."""
        self.arch.disabled = self._busy or self._is_own
        try:
            settings = self.settings()
        except CourseError as error:
            self.expected.value = announced(str(error), "error")
            return
        train, test = (
            max(1, round(settings.share * len(labels)))
            for labels in (self._dataset.train_labels, self._dataset.test_labels)
        )
        images = f"{train:,} training images and {test:,} test images"
        if not self._busy and not self._estimates.known(self._dataset, settings):
            self._show(f"{images}; measuring how fast this net is ...")
        self._show(f"{images}{self._time(settings, train, test)}")

    def _time(self, settings: Settings, train: int, test: int) -> str:
        if self._busy and not self._estimates.known(self._dataset, settings):  # a measurement would disturb a training
            return ""
        try:
            return f"; about {duration(self._estimates.seconds(self._dataset, settings, train, test))}"
        except Exception:  # a net of the reader's own can raise anything; the training will say what is wrong
            return "; the time is not known yet"

    def _show(self, text: str) -> None:
        self.expected.value = f'<div class="qat-quiet">{html.escape(text)}</div>'


def own_net(net: nn.Module) -> nn.Module:
    """Return a copy of a reader's own net, in the state in which each run of the panel begins."""
    weights.initialize_scales(net)  # Brevitas damages a net that is copied before it has all of its scales
    return copy.deepcopy(net)


def schemes_with(chosen: str | nets.Scheme) -> tuple[dict[str, nets.Scheme], str]:
    """Return the schemes to offer, by the name that is shown, and the name of `chosen`, which is one of them.

    The variants with 8-bit first and last layers would double the list, so a variant is only offered if it is chosen.

    Raises:
        CourseError: If there is no such scheme, or if an entry of `SCHEMES` is not a scheme.
    """
    for name, scheme in nets.SCHEMES.items():
        if not isinstance(scheme, nets.Scheme):
            raise CourseError(f"SCHEMES[{name!r}] is a {type(scheme).__name__}: register a Scheme.")
    offered = {str(name): scheme for name, scheme in nets.SCHEMES.items() if not _is_variant(name)}
    if isinstance(chosen, nets.Scheme):
        if nets.SCHEMES.get(chosen.name, chosen) != chosen:
            raise CourseError(f"The course already has a scheme {chosen.name}: give yours another name.")
        return offered | {chosen.name: chosen}, chosen.name
    if not isinstance(chosen, str) or chosen not in nets.SCHEMES:
        raise CourseError(f"There is no net {chosen!r}: pass a Scheme, or choose one of {', '.join(offered)}.")
    return offered | {chosen: nets.SCHEMES[chosen]}, chosen


def archs_with(chosen: str) -> list[str]:
    """Return the names of the architectures to offer, with `chosen`, which can be a wider or narrower one.

    Raises:
        CourseError: If there is no such architecture, or if an entry of `ARCHITECTURES` is not an architecture.
    """
    for name, preset in nets.ARCHITECTURES.items():
        if not isinstance(preset, nets.Architecture):
            raise CourseError(
                f"ARCHITECTURES[{name!r}] is a {type(preset).__name__}: register an Architecture, such as "
                "Architecture(MyNet)."
            )
    if not isinstance(chosen, str):
        raise CourseError(f"arch is a {type(chosen).__name__}: pass the name of an entry of ARCHITECTURES.")
    nets.architecture(chosen)
    return list(dict.fromkeys([*map(str, nets.ARCHITECTURES), chosen]))


def _is_variant(name: str) -> bool:
    return str(name).endswith(nets.FIRST_LAST_SUFFIX)
