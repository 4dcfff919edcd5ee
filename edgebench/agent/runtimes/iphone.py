"""Core ML packages on an iPhone behind this Mac, through coremltools' remote device: each request is a round trip of files.

What tells whose phone it is (its name, its numbers, the signing team) stays out
of everything that is said: `told` takes it out of messages.
"""

import asyncio
import atexit
import contextlib
import importlib
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from . import tensors

PRIVATE = ("device", "team", "bundle_identifier", "provisioning_profile")
OPTIONS = ("phone", "samples")
SAMPLES = 64
"""Predictions of a trial, and samples that are compared unless the option `samples` says: each takes a second or more."""
CAP_SECONDS = 600.0
PLACE = "coremltools.models.ml_program.experimental."
NO_MEMORY = "coremltools does not tell what a model takes of an iPhone's memory"
FEW = "an iPhone predicts through files that a Mac sends, a second or more each: accuracy is not measured on the whole split"
XCODE = "add /Applications/Xcode.app/Contents/Developer/usr/bin to the PATH of the Mac's ssh sessions"

CONVERTED = ("executorch", "sklearn", "tensorflow", "torch", "torchao", "torchaudio", "torchvision", "transformers", "xgboost")
"""What coremltools imports to convert from it, where it is installed: seconds and hundreds of MiB of each pass's process."""


def coremltools() -> Any:
    """Import coremltools; in a pass, which only predicts, without what it converts from."""
    modules: Any = sys.modules
    hidden = [name for name in CONVERTED if name not in modules and not __name__.startswith("edgebench.")]
    modules.update(dict.fromkeys(hidden))  # None there is an ImportError
    try:
        return importlib.import_module("coremltools")
    finally:
        for name in hidden:
            modules.pop(name)


def wished(options: Dict[str, Any]) -> bool:
    """Tell whether an iPhone is to predict; ValueError where it is not said which model of iPhone that is."""
    if options.get("device") is None:
        stray = [name for name in PRIVATE + OPTIONS if name in options]
        if stray:
            raise ValueError("%s goes with device, which names an iPhone" % stray[0])
        return False
    if not isinstance(options.get("phone"), str) or not options["phone"].strip():
        raise ValueError("say which model of iPhone it is, as tables shall call it: --option phone='iPhone 15 Pro'")
    return True


def few(options: Dict[str, Any]) -> Any:
    """Say how many samples are inferred at most, and why; None: any number."""
    if options.get("device") is None:
        return None
    count = options.get("samples", SAMPLES)
    if type(count) is not int or count < 1:
        raise ValueError("samples is a whole number from 1, not %r" % (count,))
    return count, FEW


def chosen(devices: Sequence[Any], named: Any, iphone: Any, connected: Any) -> Any:
    """Find the iPhone that is meant: by its name or a number of it, or the only one; ValueError says what to do."""
    phones = [each for each in devices if each.type == iphone]
    if named is not True:
        phones = [each for each in phones if named in (each.name, each.udid, each.identifier)]
        if not phones:
            raise ValueError("no iPhone of that name or number is paired with this Mac; look at `xcrun devicectl list devices`")
    usable = [each for each in phones if each.state == connected]
    if not usable:
        state = "none is paired with this Mac" if not phones else "its state is %s" % phones[0].state.value
        raise ValueError("no iPhone is connected (%s): plug it in, unlock it, and trust this Mac on its screen" % state)
    if len(usable) > 1:
        raise ValueError("%d iPhones are connected; say which: --option device=NAME or UDID" % len(usable))
    if usable[0].developer_mode_state not in ("", "enabled"):
        raise ValueError("the iPhone's developer mode is off: Settings, Privacy & Security, Developer Mode")
    return usable[0]


class Runtime(object):
    """One package on one iPhone; the clock is the phone's."""

    OFFERS = ("take", "footprint")

    def __init__(self, job: Dict[str, Any], units: str) -> None:
        self._options = job["options"]
        self._np = importlib.import_module("numpy")
        self._job = job
        self._units = units
        self._names = [spec["name"] for spec in job["outputs"]]
        self._secrets = [str(self._options[name]) for name in PRIVATE if isinstance(self._options.get(name), str)]
        self._device: Any = None
        self._wrapper: Any = None
        self._loop: Any = None
        if tensors.carried(job):
            raise ValueError("coremltools keeps no state of a model on an iPhone; measure it on a Mac")

    def load(self, path: str, threads: int) -> None:
        """Read the package; it is compiled here, and loaded on the phone when that is first asked."""
        ct = coremltools()
        self._remote = importlib.import_module(PLACE + "remote_device")
        logging.getLogger(ct.__name__).setLevel(logging.CRITICAL)  # it logs the numbers of phones
        units = ct.ComputeUnit[self._units]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._model = ct.models.MLModel(os.path.dirname(path), compute_units=units, skip_model_load=True)

    def _prepared(self) -> Any:
        """Return the phone with coremltools' app running on it, which is built once for this Mac."""
        if self._device is None:
            devices = self._remote.Device.get_devices()
            self._secrets += [text for each in devices for text in (each.udid, each.identifier, each.name)]
            found = chosen(devices, self._options["device"], self._remote.DeviceType.IPHONE, self._remote.DeviceState.CONNECTED)
            credentials = self._remote.AppSigningCredentials(
                development_team=self._options.get("team", ""),
                provisioning_profile_uuid=self._options.get("provisioning_profile"),
                bundle_identifier=self._options.get("bundle_identifier"),
            )
            folder = Path(tempfile.gettempdir()) / ("edgebench-modelrunner-%d" % os.getuid())
            folder.mkdir(mode=0o700, exist_ok=True)
            self._device = self._waited(found.prepare_for_model_debugging(credentials, folder))
            atexit.register(self._device.session.stop)
        return self._device

    @contextlib.contextmanager
    def _discreet(self) -> Iterator[None]:
        """Let nothing out that tells whose phone it is, in messages or on standard error."""
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                yield
        except Exception as error:  # coremltools raises plain exceptions, with the phone's numbers in them
            raise ValueError(told(error, self._secrets)) from None

    def _waited(self, asked: Any) -> Any:
        """Wait for what coremltools was asked, on one loop from first to last."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            atexit.register(self._loop.close)
        return self._loop.run_until_complete(asked)

    def prepare(self, raws: Sequence[bytes], count: int) -> Any:
        """Turn a sample into tensors by name; ValueError for pixels, which coremltools does not send."""
        for spec in self._job["inputs"]:
            if spec["dtype"] == "uint8":
                raise ValueError(
                    "coremltools sends no images to an iPhone; export for the target iphone, or with `input: tensor`"
                )
        return {spec["name"]: tensors.tensor(self._np, raw, spec) for raw, spec in zip(raws, self._job["inputs"])}

    def infer(self, feed: Any) -> Any:
        """Predict on the phone; outputs by name."""
        with self._discreet():
            if self._wrapper is None:
                remote = importlib.import_module(PLACE + "async_wrapper").RemoteMLModelAsyncWrapper
                self._wrapper = remote(
                    self._model.get_spec(),
                    self._model.weights_dir,
                    device=self._prepared(),
                    compute_units=self._model.compute_unit,
                )
            return self._waited(self._wrapper.predict(feed))

    def scores(self, outputs: Any) -> bytes:
        """Return the scored outputs as float32 bytes."""
        return tensors.scores(self._np, self.tensors(outputs), self._job)

    def tensors(self, outputs: Any) -> List[Any]:
        """Return the outputs that the bundle names as arrays."""
        return [self._np.asarray(outputs[name]) for name in self._names]

    def take(
        self, path: str, threads: int, feeds: List[Any], mode: Dict[str, Any], begun: Callable[[int], None]
    ) -> Dict[str, Any]:
        """Let MLModelBenchmarker load and predict on the phone; between predictions it idles, so that none is under load."""
        from .rt_coreml import benchmarked

        if not mode["adaptive"]:
            raise ValueError("an iPhone idles between predictions that a Mac asks for: nothing sustained can be measured on it")
        self.load(path, threads)
        limits = {"min_samples": min(mode["min_samples"], SAMPLES), "min_seconds": 0.0, "cap_seconds": CAP_SECONDS}
        benchmarker = importlib.import_module(PLACE + "perf_utils").MLModelBenchmarker
        with self._discreet():
            asked = benchmarker(self._model, device=self._prepared())
            found: Dict[str, Any] = self._waited(benchmarked(asked, feeds, dict(mode, **limits), begun))
            return found

    def footprint(self, path: str, feed: Any) -> Dict[str, Any]:
        """Say why there is no memory."""
        names = ("baseline_bytes", "loaded_bytes", "peak_bytes", "device_bytes", "method")
        return dict(dict.fromkeys(names), reason=NO_MEMORY)


def told(error: Exception, secrets: Sequence[Optional[str]]) -> str:
    """Write an error in one line without what tells whose phone it is."""
    text = getattr(error, "message", None) or error
    line = " ".join((text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).split())
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        line = line.replace(secret, "…")
    if "devicectl" in line and shutil.which("devicectl") is None:
        return "Xcode's devicectl is not on the PATH: " + XCODE
    return line[:600]
