"""Files compiled for Google Coral's Edge TPU: tflite-runtime with libedgetpu, or pycoral where it is installed."""

import ctypes
import importlib.util
import os
import re
import sys
from typing import Any, Dict, List, Optional, Tuple

from .interpreted import Interpreted

MODULES = ("tflite_runtime.interpreter",)
DISTRIBUTIONS: Tuple[str, ...] = ()
INSTALL = (
    "it comes with Coral's apt, not from PyPI: on the device, with the package source of "
    "https://coral.ai/software/#debian-packages, sudo apt-get install python3-tflite-runtime libedgetpu1-std"
)
LIBRARY = "libedgetpu.so.1"
CUSTOM_OP = b"edgetpu-custom-op"
TOO_NEW = (2, 12)
"""From this version on, tflite-runtime crashes with the libedgetpu that Google built."""
SYSTEM = "/usr/lib/python3/dist-packages"
DEVICE = re.compile(r"(usb|pci)?(:\d+)?")
OPTIONS = ("device", "rebuilt")
SINGLE = True
"""The library opens the device for one process alone."""


def version() -> Optional[str]:
    """Name tflite-runtime and the Edge TPU's runtime; None where one of them is missing."""
    found, label = candidates(), library_label()
    return "tflite-runtime %s, libedgetpu %s" % (found[0][1], label) if found and label else None


def reason() -> Optional[str]:
    """Say what is missing, or None."""
    missing = []
    if not candidates():
        other = "; the pycoral here is another package of that name" if wrong_pycoral() else ""
        missing.append("no module named 'tflite_runtime'" + other)
    if library_label() is None:
        missing.append("no library %s" % LIBRARY)
    return " and ".join(missing) or None


def candidates() -> List[Tuple[str, str]]:
    """List folders with a tflite_runtime, and its version, in the order in which they are tried.

    apt's comes first: it belongs to apt's libedgetpu, and an environment may hide it behind another.
    """
    ours = [path for path in sys.path if path and os.path.basename(path) == "dist-packages"]
    if sys.base_prefix == "/usr":
        ours.append(SYSTEM)
    folders = dict.fromkeys(ours + [path or "." for path in sys.path])
    found = [(folder, _stated(folder)) for folder in folders]
    return [(folder, stated) for folder, stated in found if stated is not None]


def _stated(folder: str) -> Optional[str]:
    """Read a version without importing anything: other runtimes may want another."""
    try:
        with open(os.path.join(folder, "tflite_runtime", "__init__.py"), encoding="utf-8") as stream:
            found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", stream.read(), re.M)
    except (OSError, ValueError):
        return None
    return found.group(1) if found else "unknown"


def library_label() -> Optional[str]:
    """Return how libedgetpu calls itself (`RuntimeVersion(14)`); None where it cannot be opened."""
    try:
        ask = ctypes.CDLL(LIBRARY).edgetpu_version
    except (OSError, AttributeError):
        return None
    ask.restype = ctypes.c_char_p
    described = (ask() or b"").decode("utf-8", "replace")
    found = re.search(r"RuntimeVersion\(\d+\)", described)
    return found.group(0) if found else described or "unknown"


def _pycoral_utils() -> Optional[str]:
    """Find the folder `utils` of a pycoral; None where there is no pycoral, empty where it is PyPI's, which is another."""
    spec = importlib.util.find_spec("pycoral")
    places = list(spec.submodule_search_locations or []) if spec else None
    if places is None:
        return None
    return next((place for place in places if os.path.exists(os.path.join(place, "utils", "edgetpu.py"))), "")


def wrong_pycoral() -> bool:
    """Return whether what is called pycoral here is PyPI's package of that name, which has nothing to do with Coral."""
    return _pycoral_utils() == ""


class Runtime(Interpreted):
    """One interpreter whose custom operator runs on the Edge TPU; the others run on the processor."""

    OFFERS = ()  # type: Tuple[str, ...]

    def __init__(self, job: Dict[str, Any]) -> None:
        import numpy

        super(Runtime, self).__init__(numpy, job)
        self._options = job["options"]
        self._check_options()
        self._interpreter_module, self._version = self._imported()

    def _check_options(self) -> None:
        device = str(self._options.get("device", ""))
        if not DEVICE.fullmatch(device):
            raise ValueError("device %r: give usb, pci, or with a number usb:0, pci:1 or :0" % device)
        if self._options.get("rebuilt") not in (None, True, False):
            raise ValueError("rebuilt is true or false, not %r" % (self._options["rebuilt"],))

    def _imported(self) -> Tuple[Any, str]:
        """Import the first tflite_runtime that works with this Python, apt's before others; refuse what would crash."""
        broken = []
        for folder, stated in candidates():
            sys.path.insert(0, folder)
            try:
                from tflite_runtime import interpreter
            except ImportError as error:  # another Python's
                broken.append("%s: %s" % (folder, error))
                for name in [name for name in sys.modules if name.partition(".")[0] == "tflite_runtime"]:
                    del sys.modules[name]
                continue
            finally:
                sys.path.remove(folder)
            self._refuse_too_new(stated)
            return interpreter, stated
        why = "; ".join(broken) or reason()
        raise ImportError("%s; %s" % (why, INSTALL))

    def _refuse_too_new(self, stated: str) -> None:
        numbers = tuple(int(part) for part in re.findall(r"\d+", stated)[:2])
        if numbers >= TOO_NEW and not self._options.get("rebuilt"):
            raise ValueError(
                "tflite-runtime %s crashes with the libedgetpu that Google built: 2.5.0.post1 belongs to its 16.0; install that "
                "by apt (python3-tflite-runtime), or say --option rebuilt=true if your libedgetpu was built for %s"
                % (stated, stated)
            )

    def load(self, path: str, threads: int) -> None:
        """Load the delegate, open the file, and make sure that the Edge TPU takes its part."""
        with open(path, "rb") as stream:
            if CUSTOM_OP not in stream.read():
                raise ValueError("%s has no operator for the Edge TPU; export it with --format edgetpu" % os.path.basename(path))
        self._last_words(
            "tflite-runtime %s was loading %s: versions that do not belong together crash; 2.5.0.post1 and libedgetpu 16.0 do"
            % (self._version, LIBRARY)
        )
        self._delegate = self._load_delegate()
        module = self._interpreter_module
        self._allocate(module.Interpreter(model_path=path, experimental_delegates=[self._delegate], num_threads=threads))
        self._last_words("")

    def _last_words(self, text: str) -> None:
        """Leave on standard error what the supervisor tells if this process dies."""
        sys.stderr.write("edgebench: %s\n" % text)
        sys.stderr.flush()

    def _load_delegate(self) -> Any:
        """Open the Edge TPU through pycoral where it is there, else directly; a missing library or stick is one clear reason."""
        device = str(self._options.get("device", ""))
        wanted = {"device": device} if device else {}
        try:
            if _pycoral_utils():
                from pycoral.utils import edgetpu

                return edgetpu.load_edgetpu_delegate(wanted)
            return self._interpreter_module.load_delegate(LIBRARY, wanted)
        except OSError as error:
            raise OSError("%s is not installed (%s); sudo apt-get install libedgetpu1-std" % (LIBRARY, error))
        except ValueError as error:
            message = " ".join(str(error).split())
            where = "Edge TPU %s" % device if device else "Edge TPU"
            raise ValueError(
                "no %s answers (%s); plug it in, look for it with lsusb (1a6e:089a or 18d1:9302) or ls /dev/apex_*, let nothing "
                "else use it, and let the user be in the group plugdev or apex" % (where, message)
            )
