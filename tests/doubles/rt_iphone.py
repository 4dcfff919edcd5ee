"""An iPhone behind a Mac, played here: the agent's runtime, on coremltools' own remote device, benchmarker and wrapper.

What lies below them is played: `devicectl`, the app that Xcode builds, its
session, and the compiler of packages. The MIL interpreter predicts.
`EDGEBENCH_DOUBLE_PHONES` says which phones there are, and what is wrong with them.
"""

import os
import shutil
import sys
import time

UDID, IDENTIFIER, NAME, TEAM = "00008130-000A1B2C3D4E001C", "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "Own iPhone", "A1B2C3D4E5"
PHONES = os.environ.get("EDGEBENCH_DOUBLE_PHONES", "one")


def play():  # noqa: C901
    """Put the phone below coremltools, once a process needs it."""
    from coremltools.models.ml_program.experimental import async_wrapper as _wrapper
    from coremltools.models.ml_program.experimental import remote_device as _remote

    from . import rt_mac

    def _phone(**changes):
        facts = {
            "name": NAME,
            "type": _remote.DeviceType.IPHONE,
            "identifier": IDENTIFIER,
            "udid": UDID,
            "os_version": "18.5",
            "os_build_number": "22F76",
            "developer_mode_state": "enabled",
            "state": _remote.DeviceState.CONNECTED,
            "session": None,
        }
        return _remote.Device(**{**facts, **changes})

    def _devices():
        if PHONES == "no Xcode":
            raise ValueError("The 'devicectl' command is required. Please ensure that you have the latest version of Xcode.")
        return {
            "none": [],
            "locked": [_phone(state=_remote.DeviceState.UNAVAILABLE)],
            "two": [_phone(), _phone(name="Other", udid="1", identifier="2")],
            "no developer mode": [_phone(developer_mode_state="disabled")],
        }.get(PHONES, [_phone(), _phone(type=_remote.DeviceType.IPAD, name="Pad", udid="3", identifier="4")])

    class _Session:
        is_alive = True

        def stop(self):
            sys.stderr.write("stopped the app\n")

    def _build(self, build_directory, working_directory, credentials=None, clean=False):
        if PHONES == "unsigned" or credentials.development_team != TEAM:
            raise _remote._DeviceCtlError(b"No profiles for '%s' on device %s" % (TEAM.encode(), UDID.encode()), error_code=65)
        return _Session()

    class _Service:
        """What coremltools asks the app on the phone."""

        def __init__(self, path, units):
            self._proxy = rt_mac._MLModelProxy(str(path), units.name, None, {}, None)
            self.load_duration_in_nano_seconds = self._proxy.get_load_duration_in_nano_seconds()
            self.last_predict_duration_in_nano_seconds = None

        @staticmethod
        async def load_on_device(device, compiled_model_path, compute_units, **_):
            assert device.session.is_alive
            return _Service(compiled_model_path, compute_units)

        async def predict(self, inputs):
            time.sleep(0.005)  # files go to the phone and back
            for value in inputs.values():
                _remote._TensorDescriptor._to_multi_array_dtype(value.dtype)  # refuses what it cannot send
            found = self._proxy.predict(inputs, None)
            self.last_predict_duration_in_nano_seconds = self._proxy.get_last_predict_duration_in_nano_seconds()
            return {"scores": found["scores"]}

        async def unload(self):
            pass

    def _compile(model, destination_path):
        shutil.copytree(model, destination_path)

    _remote._DeviceCtl.get_devices = staticmethod(_devices)
    _remote.Device._build_and_launch_model_runner_app = _build
    _wrapper._RemoteMLModelService = _Service
    _wrapper.compile_model = _compile


def version():
    return "coremltools 9.0"


from . import iphone  # noqa: E402
from .rt_coreml import DISTRIBUTIONS, MODULES, OPTIONS, PRIVATE, Runtime, few  # noqa: E402, F401

_prepared = iphone.Runtime._prepared


def _playing(self):
    play()
    return _prepared(self)


iphone.Runtime._prepared = _playing
