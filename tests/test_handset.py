"""Phones: what Android tells is read or refused in a line, decides on verdicts and energy, and what was set is put back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import handset
import numpy as np
import pytest
from conftest import Phones
from handset import Phone
from phone import SHELL
from test_adb import sleeper
from test_energy import ZERO_NS
from test_verdict import calm, during, judge

from edgebench.agent import android, facts
from edgebench.agent.meters import meter_battery
from edgebench.agent.meters.meters import Unavailable
from edgebench.agent.probe import conditions, inventory
from edgebench.agent.tune import screen
from edgebench.analysis import energy, verdict
from edgebench.analysis import phone as handheld
from edgebench.bundle.manifest import read_bundle
from edgebench.cli.targets import probe
from edgebench.config import read_target
from edgebench.data import open_dataset
from edgebench.device import deploy, job, measure, messages
from edgebench.device import facts as said
from edgebench.schema import Link, MeterSpec, ModeSpec, Power, PowerTrace, Scenario, Window
from edgebench.store import samples

GOLDEN = Path(__file__).parent / "golden" / "tiny.onnx.fp32"


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    """Lay out a phone, with this computer's processes."""
    found = Phone(tmp_path / "phone").lay()
    (found.root / "proc").symlink_to("/proc")
    return found


def planted(text: str) -> list[str]:
    """List what must not be known of a phone and is in a text."""
    words = (handset.SERIAL, "356938035643809", "of-its-owner", "of its owner", "9774d56d682e549c")
    return [word for word in words if word in text]


# ---------------------------------------------------------------- what it is


def test_a_phone_says_what_it_is_and_nothing_that_is_its_owners(phone: Phone) -> None:
    identity, environment = inventory.identity(str(phone.root)), facts.environment(str(phone.root))
    assert identity["board"] == environment["board"] == "Google Pixel 8 (Google Tensor G3)"
    assert identity["os"] == environment["os"] == "Android 15 (SDK 35)"
    assert environment["abis"] == ["arm64-v8a"]
    assert environment["page_bytes"] == os.sysconf("SC_PAGE_SIZE")
    assert environment["cpuset"] == Path("/proc/self/cpuset").read_text().strip()
    assert environment["kernel"] == os.uname().release
    job = {"cache": str(phone.root), "meters": [{"name": "battery", "options": {}}]}
    device = inventory.inspect(job, str(phone.root))
    assert device["phone"]["wakefulness"] == "Awake"
    assert device["phone"] == {
        "wakefulness": "Awake",
        "low_power": False,
        "thermal_status": 0,
        "plugged": False,
        "percent": 67.0,
        "state": "Discharging",
        "missing": [],
    }
    assert device["disk"]["free_bytes"] > 0
    assert said.Inventory.model_validate(device).values() == device
    assert said.Environment.model_validate(environment).values() == environment
    assert planted(json.dumps([identity, environment, device])) == []
    asked = [line.split(" ", 1)[1] for line in phone.asked() if line.startswith("getprop")]
    assert set(asked) <= {name for name in handset.PROPERTIES if name.startswith("ro.")} - {"ro.serialno", "ro.boot.serialno"}


@pytest.mark.parametrize(
    ("properties", "board"),
    [
        ({"ro_product_manufacturer": "samsung", "ro_product_model": "SM-S901B", "ro_soc_model": "s5e9925"}, "samsung SM-S901B"),
        ({"ro_product_manufacturer": "OnePlus", "ro_product_model": "OnePlus 12"}, "OnePlus 12"),
        ({"ro_product_manufacturer": "", "ro_product_model": "sdk_gphone64"}, "sdk_gphone64"),
    ],
)
def test_a_maker_is_not_named_twice(tmp_path: Path, properties: dict[str, str], board: str) -> None:
    found = android.board(str(Phone(tmp_path).lay(**properties).root))
    assert found is not None
    assert found.split(" (")[0] == board


def test_before_android_12_the_chip_is_named_by_its_board(tmp_path: Path) -> None:
    old = Phone(tmp_path).lay(ro_soc_model="", ro_soc_manufacturer="", ro_board_platform="msm8953")
    assert android.board(str(old.root)) == "Google Pixel 8 (msm8953)"


def test_a_computer_that_is_no_phone_says_what_it_said(tmp_path: Path) -> None:
    assert not {"abis", "page_bytes", "cpuset"} & set(facts.environment(str(tmp_path)))
    assert not {"wakefulness", "cpuset", "cpus", "plugged"} & set(conditions.snapshot(str(tmp_path)))


def test_the_agent_asks_for_no_user_and_no_folder_that_a_phone_lacks() -> None:
    """Android has no /etc/passwd, no /tmp and no /dev/shm; what is temporary goes where TMPDIR says."""
    folder = Path(facts.__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        assert not {
            word for word in ("getpass", "getpwuid", "import pwd", '"/tmp', "/dev/shm", "multiprocessing") if word in text
        }, path


# ---------------------------------------------------------------- what its programs print


def test_what_dumpsys_battery_prints_is_read() -> None:
    found = android.battery(handset.battery())
    assert found == {
        "percent": 67.0,
        "state": "Discharging",
        "plugged": False,
        "celsius": 33.7,
        "millivolts": 3964.0,
        "charge_uah": 2483000.0,
    }


SAMSUNG = """Current Battery Service state:
  mBootCompleted: true
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 0
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4063
  temperature: 326
  technology: Li-ion
  batteryMiscEvent: 0
  mSecPlugTypeSummary: 2
  LED Charging: true
  current now: 321
  charge counter: 0
USE_FAKE_BATTERY: false
  mWasUsedWirelessFastChargerPreviously: true
LLB CAL:
LLB MAN: 20160426
BatteryInfoBackUp
  mSavedBatteryMaxTemp: 490
"""
LOGGED = handset.battery(more="  Charging state: 1\n  Capacity level: -1\n") + (
    "[EventLogBuffer]\n08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:12, health:2, status:2, voltage:4120\n"
)
OLD = (
    "Current Battery Service state:\n  AC powered: true\n  USB powered: false\n  status: 5\n  level: 100\n  scale: 100\n"
    "  voltage:4352\n"
)
BOARD = (
    "Current Battery Service state:\n  AC powered: false\n  USB powered: false\n  Wireless powered: false\n"
    "  Charge counter: 1000\n  status: 4\n  health: 2\n  present: true\n  level: 90\n  scale: 100\n"
    "  voltage: 13\n  temperature: 26\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SAMSUNG, {"plugged": True, "state": "Charging", "percent": 84.0, "millivolts": 4063.0, "charge_uah": None}),
        (LOGGED, {"plugged": False, "state": "Discharging", "percent": 67.0, "millivolts": 3964.0}),
        (OLD, {"plugged": True, "state": "Full", "celsius": None, "millivolts": 4352.0}),
        (BOARD, {"plugged": False, "state": "Not charging", "millivolts": None}),
        (handset.battery("Dock", 4), {"plugged": True, "state": "Not charging"}),
        (handset.battery(millivolts=3964000), {"millivolts": 3964.0}),
        (handset.battery(charge_uah=-1), {"charge_uah": None}),
        (handset.battery().replace("scale: 100", "scale: 200"), {"percent": 33.5}),
        (handset.battery().replace("\n", "\r\n"), {"percent": 67.0, "charge_uah": 2483000.0}),
    ],
    ids=[
        "Samsung",
        "a log below",
        "old",
        "a board without battery",
        "a dock",
        "microvolts",
        "no counter",
        "a scale",
        "carriage returns",
    ],
)
def test_every_form_of_dumpsys_battery_is_read(text: str, expected: dict[str, Any]) -> None:
    found = android.battery(text)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not understood: ''"),
        ("Broken pipe\n", "not understood: 'Broken pipe'"),
        (handset.battery().replace("state:\n", "state:\n  (UPDATES STOPPED -- use 'reset' to restart)\n"), "frozen by hand"),
        (handset.battery().replace("present: true", "present: false"), "there is no battery"),
        ("Current Battery Service state:\n  AC powered: false\n", "neither status nor level"),
    ],
)
def test_a_battery_that_is_not_told_is_refused_in_a_line(text: str, reason: str) -> None:
    with pytest.raises(android.Unread, match=reason) as caught:
        android.battery(text)
    assert len(str(caught.value).splitlines()) == 1


SHIELD = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=36.0, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=37.0, mType=0, mName=CPU0, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 1.1 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=66.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=62.500004, mType=1, mName=GPU, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=88, mType=1, mName=Fan}
Temperature static thresholds from HAL:
"""
GALAXY = """IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=39.6, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}
\tTemperature{mValue=31.1, mType=2, mName=BAT, mStatus=0}
\tTemperature{mValue=3.32E1, mType=3, mName=SKIN, mStatus=2}
\tTemperature{mValue=-5700.0, mType=-1, mName=virtual, mStatus=0}
\tTemperature{mValue=NaN, mType=4, mName=USB, mStatus=0}
\tTemperature{mValue=25.0, mType=9, mName=NPU, core (1), mStatus=0}
Current cooling devices from HAL:
Temperature static thresholds from HAL:
"""
UNREADY = "IsStatusOverride: true\nThermal Status: 0\nCached temperatures:\nHAL Ready: false\nbattery: 37000\nmsm_therm: 36\n"


@pytest.mark.parametrize(
    ("text", "status", "celsius"),
    [
        (handset.thermal(3, 55.25), 3, {"BIG": 55.25, "VIRTUAL-SKIN": 33.25}),
        (SHIELD, 0, {"CPU0": 66.5, "GPU": 62.500004}),
        (GALAXY, 2, {"AP": 39.6, "BAT": 31.1, "SKIN": 33.2, "NPU--core--1-": 25.0}),
        (UNREADY, 0, {}),
        (handset.thermal().replace("Thermal Status: 0\n", ""), None, {"BIG": 41.5, "VIRTUAL-SKIN": 33.25}),
        (handset.thermal().replace("\n", "\r\n").replace("\t", " "), 0, {"BIG": 41.5, "VIRTUAL-SKIN": 33.25}),
        (handset.thermal(7), None, {"BIG": 41.5, "VIRTUAL-SKIN": 33.25}),
    ],
    ids=["Pixel", "Shield", "Galaxy", "not ready", "no status", "carriage returns", "no such status"],
)
def test_every_form_of_dumpsys_thermalservice_is_read(text: str, status: int | None, celsius: dict[str, float]) -> None:
    level, sensors = android.thermal(text)
    assert level == status
    assert sensors == pytest.approx(celsius)


@pytest.mark.parametrize("text", ["", "ThermalEvent\n", "Thermal service is unavailable\n"])
def test_heat_that_is_not_told_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(android.Unread, match="dumpsys thermalservice: not understood"):
        android.thermal(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [(handset.power(word), word) for word in android.WAKEFULNESS]
    + [(handset.power("1"), "Awake"), ("POWER MANAGER\nmWakefulness=Dozing\n", "Dozing")],
)
def test_the_screens_state_is_read(text: str, word: str) -> None:
    assert android.wakefulness(text) == word
    with pytest.raises(android.Unread, match="does not say whether the screen is on"):
        android.wakefulness(text.replace("mWakefulness=", "mWakefulnessChanging="))


def test_what_a_phone_does_not_tell_is_said_and_nothing_else_is_lost(phone: Phone) -> None:
    (phone.state / "thermalservice").unlink()
    phone.say("power", "Permission Denial: can't dump PowerManager from pid=1, uid=2000 without android.permission.DUMP\n")
    phone.set("global/low_power", "")
    found, missing = android.state(str(phone.root))
    assert missing == [
        "dumpsys power: Permission Denial: can't dump PowerManager from pid=1, uid=2000 without android.permission.DUMP",
        "settings get global low_power: not understood: ''",
        "dumpsys thermalservice: Can't find service: thermalservice",
    ]
    assert (found["plugged"], found["wakefulness"], found["low_power"], found["thermal_status"]) == (False, None, None, None)
    (phone.root / "system/bin/dumpsys").unlink()
    assert "dumpsys battery: No such file or directory" in android.state(str(phone.root))[1]


def test_a_program_that_hangs_is_given_up(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(android, "SECONDS", 0.2)
    program = phone.root / "system/bin/dumpsys"
    program.write_text("#!/bin/sh\nexec sleep 5\n")
    with pytest.raises(android.Unread, match="dumpsys power: no answer within"):
        android.ask(str(phone.root), "dumpsys", "power")


# ---------------------------------------------------------------- conditions


def test_a_phones_programs_are_asked_around_the_trials_alone(phone: Phone) -> None:
    root, pid = str(phone.root), os.getpid()
    phone.say("asked", "")
    found = conditions.snapshot(root, pid)
    assert phone.asked() == []
    assert (found["wakefulness"], found["thermal_status"], found["low_power"], found["plugged"]) == (None, None, None, None)
    assert found["cpuset"] == Path(f"/proc/{pid}/cpuset").read_text().strip()
    assert found["cpus"]
    assert found["battery_state"] == "Discharging"
    found = conditions.snapshot(root, pid, programs=True)
    assert (found["wakefulness"], found["thermal_status"], found["low_power"], found["plugged"]) == ("Awake", 0, False, False)
    assert (found["celsius"], found["celsius.HAL.VIRTUAL-SKIN"]) == (41.5, 33.25)
    event = {"event": "conditions", "sampling": True, "name": "trial", "trial": 0, "cell": 0, **found}
    assert messages.Conditions.model_validate({k: v for k, v in event.items() if k != "event"}).values()["cpus"] == found["cpus"]


def test_zones_that_say_no_temperature_are_no_heat(phone: Phone) -> None:
    for index, (name, value) in enumerate({"cpu": 48500, "vbat": 3870, "soc": 67, "ibat": 900000, "modem-cfg": 0}.items()):
        folder = phone.root / f"sys/class/thermal/thermal_zone{index}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(name)
        (folder / "temp").write_text(str(value))
    found = conditions.snapshot(str(phone.root))
    assert found["celsius"] == 48.5
    assert "celsius.ibat" not in found
    assert "celsius.soc" not in found


def test_where_the_kernel_tells_no_battery_android_does(phone: Phone) -> None:
    for name in ("type", "status", "present"):
        (phone.root / handset.GAUGE / name).unlink()
    assert conditions.snapshot(str(phone.root))["battery_state"] is None
    found = conditions.snapshot(str(phone.root), programs=True)
    assert (found["battery_percent"], found["battery_state"]) == (67.0, "Discharging")


# ---------------------------------------------------------------- verdicts


def on_a_phone(**last: Any) -> list[dict[str, Any]]:
    """Two snapshots; `last` changes the second."""
    first, second = during()
    known = {"wakefulness": "Awake", "low_power": False, "thermal_status": 0, "plugged": False, "cpuset": "/", "cpus": "0-7"}
    return [{**first, **known}, {**second, **known, **last}]


@pytest.mark.parametrize(
    ("last", "word", "reason", "advice"),
    [
        ({}, "VALID", "", ""),
        (dict.fromkeys(("wakefulness", "low_power", "thermal_status", "plugged", "cpuset", "cpus")), "VALID", "", ""),
        ({"wakefulness": "Dreaming"}, "VALID", "", ""),
        ({"wakefulness": "Asleep"}, "UNSTABLE", "the screen was off while samples were taken (Asleep)", "unlock the phone"),
        ({"wakefulness": "Dozing"}, "UNSTABLE", "the screen was off while samples were taken (Dozing)", "unlock the phone"),
        ({"low_power": True}, "INVALID", "the system was saving power", "battery saver off"),
        ({"thermal_status": 1}, "INVALID", "thermal status reached 1 (light)", "let it cool"),
        ({"thermal_status": 3.0}, "INVALID", "thermal status reached 3 (severe)", "--mode sustained"),
        ({"cpuset": "/background"}, "INVALID", "cpuset of the model's process changed", "keep its screen on"),
        ({"cpus": "0-3"}, "INVALID", "which cores the model may use changed while samples were taken (0-3, 0-7)", "screen on"),
        ({"plugged": True}, "UNSTABLE", "a charger was plugged in or pulled out", "leave it as it is"),
    ],
)
def test_a_phones_conditions_decide(last: dict[str, Any], word: str, reason: str, advice: str) -> None:
    found = judge(calm(), on_a_phone(**last))
    assert found.word == word
    assert reason in "; ".join(each.reason for each in found.reasons)
    assert advice in "; ".join(each.recommendation for each in found.reasons)
    kept = [{**row, "plugged": row["plugged"] and 1.0, "low_power": row["low_power"] and 1.0} for row in on_a_phone(**last)]
    assert judge(calm(), kept) == found  # as they are read from a record's samples


def test_heat_is_what_sustained_measures_on_a_phone_too() -> None:
    assert judge(calm(), on_a_phone(thermal_status=2), mode="sustained").word == "VALID"
    assert judge(calm(), on_a_phone(wakefulness="Asleep"), mode="sustained").word == "UNSTABLE"


def test_a_model_among_the_background_programs_is_unstable() -> None:
    rows = [{**row, "cpuset": "/system-background"} for row in on_a_phone()]
    found = judge(calm(), rows)
    assert found.word == "UNSTABLE"
    assert "the model ran in the cpuset /system-background" in found.reasons[0].reason


# ---------------------------------------------------------------- energy


def started(phone: Phone, **options: Any) -> tuple[meter_battery.Meter, list[dict[str, Any]]]:
    meter = meter_battery.Meter(options, str(phone.root))
    return meter, meter.start()


def test_a_phones_battery_is_measured_in_two_ways_on_one_rail(phone: Phone) -> None:
    phone.gauge(current_now=-850_000, voltage_now=3_850_000, charge_counter=2_483_000)
    (phone.root / "sys/class/power_supply/bms").mkdir()
    for name, text in {"type": "Battery", "current_now": 850_000, "voltage_now": 3_850_000, "status": "Discharging"}.items():
        (phone.root / "sys/class/power_supply/bms" / name).write_text(f"{text}\n")
    meter, channels = started(phone)
    assert [(each["rail"], each["counter"], each.get("least_updates")) for each in channels] == [
        ("battery", False, None),
        ("battery", True, 10),
    ]
    phone.gauge(charge_counter=2_482_000)
    assert [value for _, _, value in meter.read()] == pytest.approx([3.2725, 3.6 * 3.85])
    described = {"meter": 0, "name": "battery", "channels": channels, "reason": None}
    assert [each.least_updates for each in messages.Meter.model_validate(described).channels] == [100, 10]


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({"current_now": -850_000, "voltage_now": 3_850_000}, 3.2725),  # Qualcomm's and Samsung's sign
        ({"current_now": 850_000, "voltage_now": 3_850_000}, 3.2725),  # a Pixel's
        ({"current_now": 850, "voltage_now": 3_850_000}, 3.2725),
        ({"current_now": -850, "voltage_now": 3850}, 3.2725),
    ],
)
def test_a_phones_units_and_signs_are_its_vendors(phone: Phone, files: dict[str, int], watts: float) -> None:
    phone.gauge(**files)
    meter, [channel] = started(phone)
    assert [value for _, _, value in meter.read()] == pytest.approx([watts])
    assert "judged by its size, 850" in channel["note"]


def test_a_small_first_current_is_not_taken_for_milliamperes_for_good(phone: Phone) -> None:
    phone.gauge(current_now=9_000, voltage_now=3_850_000)
    meter, [channel] = started(phone)
    assert "current in mA" in channel["note"]
    phone.gauge(current_now=850_000)
    with pytest.raises(Unavailable, match="give the meter the option current_unit: uA"):
        meter.read()


def test_a_gauge_that_says_zero_at_first_is_waited_for(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    phone.gauge(current_now=0, voltage_now=3_850_000)
    monkeypatch.setattr(time, "sleep", lambda _: phone.gauge(current_now=640_000))
    _, [channel] = started(phone)
    assert "current in uA, judged by its size, 640000" in channel["note"]


@pytest.mark.parametrize(
    "files", [{"status": "Charging"}, {"status": "Full"}, {"status": "Not charging"}, {"online": 1}], ids=lambda files: str(files)
)
def test_a_phone_that_is_charged_is_refused_with_what_to_do(phone: Phone, files: dict[str, Any]) -> None:
    phone.gauge(current_now=850_000, voltage_now=3_850_000)
    usb = phone.root / "sys/class/power_supply/usb"
    usb.mkdir()
    (usb / "type").write_text("USB_PD\n")
    (usb / "online").write_text(f"{files.get('online', 0)}\n")
    phone.gauge(**{name: value for name, value in files.items() if name == "status"})
    with pytest.raises(Unavailable, match=r"unplug it; connect over Wi-Fi .*`adb pair`"):
        started(phone)


def forget_the_kernels_battery(phone: Phone) -> None:
    for path in (phone.root / handset.GAUGE).iterdir():
        path.unlink()
    (phone.root / handset.GAUGE).rmdir()


def test_where_the_kernels_battery_is_denied_android_is_asked(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_the_kernels_battery(phone)
    meter, [channel] = started(phone)
    assert (channel["rail"], channel["counter"], channel["period_s"]) == ("battery", True, 10.0)
    phone.say("asked", "")
    assert meter.read() == []
    assert phone.asked() == [], "asked again within ten seconds"
    later = time.monotonic() + 11
    monkeypatch.setattr(time, "monotonic", lambda: later)
    phone.say("battery", handset.battery(charge_uah=2_481_000, millivolts=3_936))
    assert [value for _, _, value in meter.read()] == pytest.approx([2 * 3.6 * 3.95])
    later += 11
    phone.say("battery", handset.battery("USB", 2))
    with pytest.raises(Unavailable, match=r"the phone is plugged in.*adb pair"):
        meter.read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SAMSUNG, "plugged in"),
        (handset.battery(charge_uah=0), "dumpsys battery tells no charge counter"),
        (handset.battery(millivolts=13), "dumpsys battery tells no voltage"),
        (handset.battery(status=5), "the phone is full"),
        ("", "not understood"),
    ],
)
def test_a_battery_that_neither_tells_is_refused(phone: Phone, text: str, reason: str) -> None:
    forget_the_kernels_battery(phone)
    phone.say("battery", text)
    with pytest.raises(Unavailable, match=reason):
        started(phone)


def metered(
    phone: Phone, monkeypatch: pytest.MonkeyPatch, every: float, step_uah: float, seconds: int = 70
) -> tuple[list[PowerTrace], Callable[[float, float], float]]:
    """Let a gauge tell a power that swings, in virtual time; returns what was read, and the exact energy between two times.

    every: seconds between the gauge's updates of its current. step_uah: of its charge counter.
    """
    now = 0.0

    def volts(t: Any) -> Any:
        return 3.9 - 0.001 * t

    def amperes(t: Any) -> Any:
        return 0.9 + 0.3 * np.sin(t / 5)

    def joules(begin: float, end: float) -> float:
        t = np.linspace(begin, end, 20_001)
        return float(np.trapezoid(volts(t) * amperes(t), t))

    grid = np.arange(0, seconds + 1, 0.01)
    used_uah = np.concatenate([[0], np.cumsum(amperes(grid)[:-1] * 0.01 / 3.6e-3)])

    def show(t: float) -> None:
        seen = t - t % every
        left = 2_483_000 - used_uah[int(t * 100)]
        phone.gauge(
            current_now=-round(amperes(seen) * 1e6),
            voltage_now=round(volts(seen) * 1e6),
            charge_counter=round(left - left % step_uah),
        )

    monkeypatch.setattr(meter_battery, "now_ns", lambda: ZERO_NS + round(now * 1e9))
    show(0)
    meter, channels = started(phone)
    kept: dict[int, list[tuple[int, float]]] = {}
    while now < seconds:
        show(now)
        for index, t_ns, value in meter.read():
            kept.setdefault(index, []).append((t_ns, value))
        now += meter_battery.PERIOD_S
    traces = [
        PowerTrace(
            meter="battery",
            rail=channel["rail"],
            provenance=channel["provenance"],
            counter=channel["counter"],
            own_clock=channel["own_clock"],
            t_ns=[t for t, _ in kept.get(index, ())],
            values=[value for _, value in kept.get(index, ())],
            least_updates=channel.get("least_updates", 100),
        )
        for index, channel in enumerate(channels)
    ]
    return traces, joules


def windows(begin: int, end: int) -> list[Window]:
    return [Window(0, ZERO_NS + t * 10**9, ZERO_NS + (t + 1) * 10**9, 25) for t in range(begin, end)]


@pytest.mark.parametrize(
    ("every", "step_uah", "counter", "updates"),
    [(0.25, 1000, False, 100), (2.0, 1000, True, 10), (20.0, 700, True, 10)],
    ids=["a quick gauge", "a slow gauge that counts charge", "a gauge of twenty seconds"],
)
def test_an_energy_from_a_gauge_is_within_a_hundredth_of_its_integral(
    phone: Phone, monkeypatch: pytest.MonkeyPatch, every: float, step_uah: float, counter: bool, updates: int
) -> None:
    traces, joules = metered(phone, monkeypatch, every, step_uah)
    found, others = energy.energies(Power(traces), windows(3, 67), [MeterSpec(name="battery")])
    assert found.joules is not None, found.reason
    assert others == ()
    assert found.joules.value == pytest.approx(joules(5, 65) / (60 * 25), rel=0.01)
    assert (found.counter, found.rail, found.provenance) == (counter, "battery", "board")
    assert found.updates is not None
    assert found.updates >= updates
    measurement_traces = samples._read_power(samples.unpack(samples.pack(measured(traces)))).traces
    assert [each.least_updates for each in measurement_traces] == [100, 10]
    again = energy.energies(Power(measurement_traces), windows(3, 67), [MeterSpec(name="battery")])[0]
    assert again == found


def measured(traces: list[PowerTrace]) -> Any:
    from edgebench.schema import Measurement

    return Measurement({}, {}, [], {}, None, [], None, Power(traces))


def test_a_gauge_that_is_too_slow_gives_no_energy_and_says_how_often_it_changed(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, _ = metered(phone, monkeypatch, 2.0, 5000)
    found, _ = energy.energies(Power(traces), windows(3, 67), [MeterSpec(name="battery")])
    assert found.joules is None
    assert found.updates == 30
    assert "30 distinct updates in a trial, 100 wanted" in str(found.reason)
    coarse = energy.measured(Power(traces), traces[1], windows(3, 67))
    assert "3 distinct updates in a trial, 10 wanted" in str(coarse.reason)


# ---------------------------------------------------------------- the real agent


SPEC = ModeSpec(trials=6, min_samples=20, min_seconds=0.3, cap_seconds=0.6, window_seconds=0.05)
FAULTS: list[tuple[str, Callable[[Phone], None], str, str]] = [
    ("calm", lambda _: None, "", ""),
    ("dark", lambda phone: phone.say("power", handset.power("Asleep")), "UNSTABLE", "the screen was off"),
    ("hot", lambda phone: phone.say("thermalservice", handset.thermal(2)), "INVALID", "Android's thermal status reached 2"),
    ("saving", lambda phone: phone.set("global/low_power", "1"), "INVALID", "the system was saving power"),
    ("plugged", lambda phone: phone.say("battery", handset.battery("USB", 2)), "UNSTABLE", "a charger was plugged in"),
    ("charged", lambda phone: phone.gauge(status="Charging"), "", ""),
]


def brought(here: Path, name: str, more: dict[str, Any]) -> tuple[Any, str, dict[str, Any]]:
    """Bring the agent and a bundle to a target; returns the transport, the agent, and a job for it."""
    bundle, target = read_bundle(GOLDEN), read_target(name, trust=True)
    assert bundle.model is not None
    assert bundle.model.lineage.dataset is not None
    images = open_dataset(bundle.model.lineage.dataset).read("test").images[:40]
    transport = deploy.connect(target, Link(here / "device"))
    deployed = deploy.deploy(target, transport, GOLDEN, bundle, [images])
    scenario = Scenario(threads=1, warmup_seconds=0.05)
    cell = job.cell_job(bundle, "sleep", deployed, [images], scenario)
    passes = [job.Pass("trial", index) for index in range(SPEC.trials)]
    return transport, deployed.agent, {**job.job([cell], passes, SPEC, scenario, [MeterSpec(name="battery")]), **more}


@pytest.fixture
def agent(here: Path) -> tuple[Any, str, dict[str, Any]]:
    """Bring the agent to this computer."""
    return brought(here, "sleeper.yaml", {"screen_grace": 0.3})


def test_what_happens_to_a_phone_in_a_trial_decides_on_it(phone: Phone, agent: tuple[Any, str, dict[str, Any]]) -> None:
    transport, program, work = agent
    phone.gauge(current_now=-850_000, voltage_now=3_850_000, charge_counter=2_483_000)
    happened: list[int] = []

    def heard(event: Any) -> None:
        if event["event"] == "started":
            phone.well()
        if event["event"] == "samples" and event["trial"] not in happened:
            happened.append(event["trial"])
            FAULTS[event["trial"]][1](phone)

    [found] = measure.measure(transport, program, {**work, "root": str(phone.root)}, heard)
    assert found.failure is None
    assert found.environment["board"] == "Google Pixel 8 (Google Tensor G3)"
    assert "screen" not in found.environment
    assert planted(json.dumps([found.environment, *found.conditions])) == []
    asked = [row["sampling"] for row in found.conditions if row["trial"] == 0 and row.get("celsius.HAL.BIG")]
    assert asked == [False, True, True]  # while it warms up, what that gave as the samples begin, and after their end
    for index, (name, _, word, reason) in enumerate(FAULTS):
        rows = [{**row, "trial": 0} for row in found.conditions if row["trial"] == index]
        reasons = [*handheld.invalid(rows, sustained=False), *verdict._saving(rows), *handheld.unstable(rows)]
        assert [each.reason[: len(reason)] for each in reasons] == ([reason] if reason else []), name
        if reason:
            assert judge(calm(), rows).word in {word, "INVALID"}
    assert [trace.counter for trace in found.power.traces] == [False, True]
    assert "is charging" in found.power.traces[0].note
    assert "adb pair" in found.power.traces[0].note


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.fixture
def running(phone: Phone, agent: tuple[Any, str, dict[str, Any]]) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the agent with a long job, and come back when it takes samples."""
    _, program, work = agent
    endless = {**work, "root": str(phone.root), "meters": []}
    endless["mode"] = {**endless["mode"], "min_seconds": 60, "cap_seconds": 60}
    processes: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, program, "cell"], stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        processes.append(process)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(endless) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if '"samples"' in line:
                break
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def kept_on(phone: Phone) -> bool:
    return (phone.setting(screen.TIMEOUT), phone.setting(screen.PLUGGED)) == ("1800000", "7")


def as_before(phone: Phone) -> bool:
    return (phone.setting(screen.TIMEOUT), phone.setting(screen.PLUGGED)) == ("30000", "null")


def watchers(phone: Phone) -> list[int]:
    """List the processes that watch over this phone's screen."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"watch-screen" in words and str(phone.root).encode() in words:
            found.append(int(path.parent.name))
    return found


def state(agent: tuple[Any, str, dict[str, Any]]) -> Path:
    return Path(screen.state_file(agent[1]))


@pytest.mark.parametrize("end", ["hang up", "terminate", "kill", "kill all of its group"])
def test_the_screen_is_kept_on_and_the_setting_put_back_however_a_run_ends(
    phone: Phone, agent: tuple[Any, str, dict[str, Any]], running: Callable[[], subprocess.Popen[str]], end: str
) -> None:
    process = running()
    assert kept_on(phone)
    assert process.stdin is not None
    if end == "hang up":
        process.stdin.close()
    elif end == "kill all of its group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM if end == "terminate" else signal.SIGKILL)
    wait_for(lambda: as_before(phone))
    wait_for(lambda: not watchers(phone))
    assert not state(agent).exists()


def test_whoever_comes_next_puts_back_what_a_killed_watcher_could_not(
    phone: Phone, agent: tuple[Any, str, dict[str, Any]], running: Callable[[], subprocess.Popen[str]]
) -> None:
    transport, program, _ = agent
    look = {"cache": str(phone.root), "meters": [], "root": str(phone.root)}
    process = running()
    measure.inspect(transport, program, look)
    assert kept_on(phone), "somebody measures"
    for pid in watchers(phone):
        os.kill(pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert kept_on(phone)
    last = running()  # the next run keeps what was before, and not what the last one set
    assert json.loads(state(agent).read_text())["knobs"]["screen"] == {screen.TIMEOUT: "30000", screen.PLUGGED: "null"}
    for pid in watchers(phone):
        os.kill(pid, signal.SIGKILL)
    os.killpg(last.pid, signal.SIGKILL)
    last.wait()
    wait_for(lambda: not watchers(phone))
    measure.inspect(transport, program, look)
    assert as_before(phone)
    assert not state(agent).exists()


def test_one_cell_follows_the_other_without_a_dark_screen_between(phone: Phone, tmp_path: Path) -> None:
    path = str(tmp_path / screen.FILE)
    words = [sys.executable, "-c", KEEP, str(phone.root), path]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run(words, env=env, check=True, timeout=30)
    assert kept_on(phone)
    assert json.loads(Path(path).read_text())["knobs"]["screen"][screen.TIMEOUT] == "30000"


KEEP = """
import subprocess, sys
from edgebench.agent.tune import screen
screen._start_watcher = lambda *_: None
assert screen.keep_on(sys.argv[1], sys.argv[2]) is None
assert screen.keep_on(sys.argv[1], sys.argv[2]) is None
"""


def test_a_longer_timeout_stays_and_one_that_may_not_be_set_is_said(phone: Phone, tmp_path: Path) -> None:
    knob = screen.knob(str(phone.root))
    phone.set(screen.TIMEOUT, "2147483647")
    assert screen._put_on(knob, 1800) == []
    assert phone.setting(screen.TIMEOUT) == "2147483647"
    phone.set(screen.TIMEOUT, "15000")
    (phone.state / "settings.denied").touch()
    [why] = screen._put_on(knob, 1800)
    assert why.startswith("settings put system screen_off_timeout 1800000: Security exception: Permission denial")
    assert len(why.splitlines()) == 1


def test_probe_prints_how_a_phone_is_doing_and_what_it_does_not_tell(phone: Phone) -> None:
    phone.say("power", handset.power("Asleep"))
    phone.say("battery", handset.battery("USB", 2))
    phone.set("global/low_power", "1")
    (phone.state / "thermalservice").unlink()
    root = str(phone.root)
    found = {
        "environment": facts.environment(root),
        "identity": inventory.identity(root),
        "device": inventory.inspect({"cache": root, "meters": []}, root),
        "runtimes": {},
        "skew_seconds": 0.0,
    }
    rows = dict(probe.described(found))
    assert rows["board"] == "Google Pixel 8 (Google Tensor G3)"
    assert rows["screen"] == "Asleep; it is off: unlock it before a run"
    assert rows["battery"] == "67 %, charging, plugged in: no energy is measured"
    assert rows["power saver"].startswith("on: switch it off")
    assert rows["thermal status"] == "unknown"
    assert rows["not told"] == "dumpsys thermalservice: Can't find service: thermalservice"
    assert rows["programs for"] == f"arm64-v8a; pages of {os.sysconf('SC_PAGE_SIZE')} bytes"


# ---------------------------------------------------------------- over adb


def over_adb(here: Path, device: Any) -> tuple[Any, str, dict[str, Any]]:
    """Bring a Python, the agent and a bundle to a phone that the tests build; returns what `agent` does."""
    return brought(here, sleeper(device), {"screen_grace": 0.5})


def test_on_a_phone_over_adb_the_same_is_read_decides_and_is_put_back(here: Path, phones: Phones) -> None:
    device = phones(programs=handset.PROGRAMS)
    own, begin = here / "rt_sleep.py", "    def load(self, path, threads):\n"
    assert begin in own.read_text()
    own.write_text(own.read_text().replace(begin, f"{begin}        time.sleep(1)  # until the phone is well again\n"))
    known = Phone(device.folder, device.data / "local" / "phone")  # its /sys lies in the first
    abi = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[device.machine]
    known.tell(ro_product_cpu_abilist=abi, ro_product_cpu_abilist64=abi)
    known.gauge(current_now=-850_000, voltage_now=3_850_000, charge_counter=2_483_000)
    for path in (known.state, *known.state.rglob("*")):
        os.chown(path, SHELL, SHELL)
    transport, program, work = over_adb(here, device)
    before = known.setting(screen.TIMEOUT)

    def heard(event: Any) -> None:
        if event["event"] == "started":
            known.well()
        if event["event"] == "samples":
            FAULTS[event["trial"]][1](known)

    with contextlib.closing(transport):
        [found] = measure.measure(transport, program, work, heard)
        assert found.failure is None
        assert (found.environment["board"], found.environment["os"]) == (
            "Google Pixel 8 (Google Tensor G3)",
            "Android 15 (SDK 35)",
        )
        assert found.environment["libc"].startswith("glibc 2.")
        assert planted(json.dumps([found.environment, *found.conditions])) == []
        for index, (name, _, _, reason) in enumerate(FAULTS):
            rows = [{**row, "trial": 0} for row in found.conditions if row["trial"] == index]
            reasons = [*handheld.invalid(rows, sustained=False), *verdict._saving(rows), *handheld.unstable(rows)]
            assert [each.reason[: len(reason)] for each in reasons] == ([reason] if reason else []), name
        assert [trace.counter for trace in found.power.traces] == [False, True]
        assert set(np.round(found.power.traces[0].values, 6)) == {3.2725}
        assert "is charging" in found.power.traces[0].note
        wait_for(lambda: as_before(known) and not any("watch-screen" in words for words in device.strays()))
        endless = {**work, "mode": {**work["mode"], "min_seconds": 60, "cap_seconds": 60}, "screen_grace": 30}

        def init_stops_adbd(event: Any) -> None:
            if event["event"] == "samples":
                assert kept_on(known)
                device.kill_all()
                device.start()
                device.attach()

        [lost] = measure.measure(transport, program, endless, init_stops_adbd)
        assert lost.failure is not None
        assert kept_on(known), "its watcher was killed too"
        inspected, _ = measure.inspect(transport, program, {"cache": "/data/local/tmp/edgebench/cache", "meters": []})
        assert inspected["device"]["phone"]["wakefulness"] in {"Awake", "Asleep"}
        assert known.setting(screen.TIMEOUT) == before
