"""A phone's files below a folder: doubles of its programs, what they say, and its battery; by `python tests/handset.py ROOT` too.

The texts are written in the forms that phones print. `Phone` changes what is said, also while something runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAMS = {path.name: path.read_text() for path in (Path(__file__).parent / "doubles" / "android").iterdir()}
"""Of /system/bin. They keep their state in system/phone/, where that is there, else in /data/local/phone/."""
SERIAL = "R5CT12345AB"
"""Planted in properties that nobody may read."""
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G3",
    "ro.board.platform": "zuma",
    "ro.build.version.release": "15",
    "ro.build.version.release_or_codename": "15",
    "ro.build.version.sdk": "35",
    "ro.product.cpu.abilist": "arm64-v8a",
    "ro.product.cpu.abilist64": "arm64-v8a",
    "ro.serialno": SERIAL,
    "ro.boot.serialno": SERIAL,
    "persist.radio.imei": "356938035643809",
    "net.hostname": "phone-of-its-owner",
    "bluetooth.device.default_name": "Phone of its owner",
}
SETTINGS = {
    "system/screen_off_timeout": "30000",
    "system/device_name": "Phone of its owner",
    "secure/android_id": "9774d56d682e549c",
}
GAUGE = "sys/class/power_supply/battery/"


def battery(plugged: str = "", status: int = 3, charge_uah: int = 2483000, millivolts: int = 3964, more: str = "") -> str:
    """Say what `dumpsys battery` does; `plugged`: AC, USB, Wireless or Dock. `more` is added to its lines."""
    powered = "".join(f"  {name} powered: {str(name == plugged).lower()}\n" for name in ("AC", "USB", "Wireless", "Dock"))
    return (
        f"Current Battery Service state:\n{powered}  Max charging current: 0\n  Max charging voltage: 0\n"
        f"  Charge counter: {charge_uah}\n  status: {status}\n  health: 2\n  present: true\n  level: 67\n  scale: 100\n"
        f"  voltage: {millivolts}\n  temperature: 337\n  technology: Li-ion\n{more}"
    )


def thermal(status: int = 0, celsius: float = 41.5) -> str:
    """Say what `dumpsys thermalservice` does, with old values before what is so now."""
    return (
        "IsStatusOverride: false\nThermalEventListeners:\n\tcallbacks: 2\n\tkilled: false\n\tbroadcasts count: -1\n"
        f"ThermalStatusListeners:\n\tcallbacks: 3\n\tkilled: false\n\tbroadcasts count: -1\nThermal Status: {status}\n"
        "Cached temperatures:\n\tTemperature{mValue=97.0, mType=0, mName=BIG, mStatus=0}\n"
        "HAL Ready: true\nHAL connection:\n\tThermalHAL AIDL 2  connected: yes\nCurrent temperatures from HAL:\n"
        f"\tTemperature{{mValue={celsius}, mType=0, mName=BIG, mStatus=0}}\n"
        "\tTemperature{mValue=33.25, mType=3, mName=VIRTUAL-SKIN, mStatus=0}\n"
        "\tTemperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}\n"
        "\tTemperature{mValue=3870.0, mType=6, mName=vbat, mStatus=0}\n"
        "Current cooling devices from HAL:\n\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}\n"
        "Temperature static thresholds from HAL:\n"
        "\tTemperatureThreshold{mType=0, mName=BIG, mHotThrottlingThresholds=[NaN, NaN, NaN, 90.0, NaN, 110.0, 115.0], "
        "mColdThrottlingThresholds=[NaN, NaN, NaN, NaN, NaN, NaN, NaN]}\n"
        "Temperature headroom thresholds:\n[NaN, 0.7, 0.8, 1.0, NaN, NaN, NaN]\n"
    )


def power(wakefulness: str = "Awake") -> str:
    """Say what `dumpsys power` begins with."""
    return (
        "POWER MANAGER (dumpsys power)\n\nPower Manager State:\n  Settings power_manager_constants:\n"
        "    no_cached_wake_locks=true\n"
        f"  mDirty=0x0\n  mWakefulness={wakefulness}\n  mWakefulnessChanging=false\n  mIsPowered=false\n  mPlugType=0\n"
    )


class Phone:
    """A folder that looks like a phone's `/`."""

    def __init__(self, root: Path, state: Path | None = None) -> None:
        self.root = root
        self.state = state or root / "system" / "phone"

    def lay(self, **properties: str) -> Phone:
        """Write everything; underscores in names of properties stand for dots."""
        (self.root / "system" / "bin").mkdir(parents=True)
        for name, text in PROGRAMS.items():
            program = self.root / "system" / "bin" / name
            program.write_text(text)
            program.chmod(0o755)
        return self.tell(**properties)

    def tell(self, **properties: str) -> Phone:
        """Write what the programs say."""
        for key, value in SETTINGS.items():
            self.set(key, value)
        for namespace in ("system", "secure", "global"):
            (self.state / "settings" / namespace).mkdir(parents=True, exist_ok=True)
        known = {**PROPERTIES, **{name.replace("_", "."): value for name, value in properties.items()}}
        self.say("properties", "".join(f"{name}={value}\n" for name, value in known.items()))
        self.say("asked", "")
        self.well()
        return self

    def well(self) -> None:
        """Unplugged, cool, its screen on, saving nothing."""
        self.say("battery", battery())
        self.say("thermalservice", thermal())
        self.say("power", power())
        self.set("global/low_power", "0")
        self.gauge(type="Battery", status="Discharging", present=1)

    def say(self, name: str, text: str) -> None:
        """Replace a file of the doubles at once: somebody may be reading it."""
        self._replace(self.state / name, text)

    def set(self, key: str, value: str) -> None:
        """Set one of Android's settings: NAMESPACE/KEY."""
        self._replace(self.state / "settings" / key, value + "\n")

    def setting(self, key: str) -> str:
        """Return one of Android's settings; null where it is not set."""
        path = self.state / "settings" / key
        return path.read_text().strip() if path.exists() else "null"

    def gauge(self, **files: object) -> None:
        """Write files of the kernel's battery."""
        for name, content in files.items():
            self._replace(self.root / GAUGE / name, f"{content}\n")

    def asked(self) -> list[str]:
        """List the commands that were run, with their arguments."""
        return (self.state / "asked").read_text().splitlines()

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".written")
        new.write_text(text)
        new.replace(path)


if __name__ == "__main__":
    Phone(Path(sys.argv[1])).lay()
