"""What Android's own programs tell: each costs some milliseconds, and `dumpsys` up to fifty of a core.

Properties are asked for one by one, by name: the list of all holds the phone's serial number, and no such thing is wanted.
"""

import os
import re
import subprocess
from typing import Any, Dict, List, Optional, Tuple

PROGRAMS = "system/bin/"
SECONDS = 5.0
MOST_PRINTED = 4 << 20
"""`dumpsys power` prints some hundred kilobytes where many programs run."""
REFUSED = re.compile(r"^.*(?:Can't find service|Permission [Dd]enial|SecurityException|Failure calling service).*$", re.M)
FEWEST_MILLIVOLTS = 1000.0
"""What is less is no cell's voltage: boards that have no battery say 13, or 0."""
POWERED = ("AC", "USB", "Wireless", "Dock")
STATES = {1: "Unknown", 2: "Charging", 3: "Discharging", 4: "Not charging", 5: "Full"}
"""As the kernel calls what Android numbers."""
WAKEFULNESS = ("Asleep", "Awake", "Dreaming", "Dozing")
"""In the order of the numbers that older versions print; a screen saver is a dream, and an always-on display dozes."""
SHUTDOWN = 6
"""The highest thermal status; 0 is none."""
NO_TEMPERATURES = (6, 7, 8)
"""Types that are a battery's voltage, current and percentage."""
COLDEST, HOTTEST = -40.0, 150.0


class Unread(Exception):
    """A program's answer that cannot be read: which, and what it said."""


def here(root: str = "/") -> bool:
    """Return whether this is Android."""
    return os.path.exists(os.path.join(root, PROGRAMS + "getprop"))


def ask(root: str, name: str, *arguments: str) -> str:
    """Return what one of Android's programs prints; raises `Unread` where it fails, hangs, or may not."""
    words = " ".join((name,) + arguments)
    environment = {key: value for key, value in os.environ.items() if key not in ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [os.path.join(root, PROGRAMS + name)] + list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise Unread("%s: no answer within %d s" % (words, SECONDS))
    except OSError as error:
        raise Unread("%s: %s" % (words, error.strerror))
    text, errors = (part[:MOST_PRINTED].decode("utf-8", "replace") for part in (done.stdout, done.stderr))
    wrong = REFUSED.search(errors[:1000] + "\n" + text[:1000])
    if done.returncode or wrong:  # a service that is missing or refuses is told with exit code 0
        said = [wrong.group(0)] if wrong else (errors.strip() or text.strip()).splitlines()
        raise Unread("%s: %s" % (words, said[0].strip()[:200] if said else "exit code %d" % done.returncode))
    return text


# ---------------------------------------------------------------- what the phone is


def value(root: str, *names: str) -> Optional[str]:
    """Return the first of these properties that is set."""
    for name in names:
        try:
            text = " ".join(ask(root, "getprop", name).split())[:100]
        except Unread:
            continue
        if text and text.lower() != "unknown":
            return text
    return None


def board(root: str) -> Optional[str]:
    """Name the phone: manufacturer, model, and the chip where it is told: `Google Pixel 8 (Google Tensor G3)`."""
    maker, model, chip = value(root, "ro.product.manufacturer"), value(root, "ro.product.model"), processor(root)
    if maker and model and not model.lower().startswith(maker.lower()):
        model = maker + " " + model
    return (model or maker) if chip is None else "%s (%s)" % (model or maker or "Android", chip)


def processor(root: str) -> Optional[str]:
    """Name the chip: its maker and model since Android 12, before that its board's name."""
    model = value(root, "ro.soc.model")
    if model is None:
        return value(root, "ro.board.platform", "ro.hardware")
    maker = value(root, "ro.soc.manufacturer")
    return model if maker is None or model.lower().startswith(maker.lower()) else maker + " " + model


def system(root: str) -> str:
    """Name the system: `Android 15 (SDK 35)`."""
    release = value(root, "ro.build.version.release_or_codename", "ro.build.version.release") or "of an unknown version"
    sdk = value(root, "ro.build.version.sdk")
    return "Android " + release + (" (SDK %s)" % sdk if sdk else "")


def abis(root: str) -> List[str]:
    """List what programs may be compiled for, the best first: `arm64-v8a`, `armeabi-v7a`."""
    return [name for name in (value(root, "ro.product.cpu.abilist") or "").split(",") if name]


# ---------------------------------------------------------------- how it is doing


def battery(text: str) -> Dict[str, Any]:
    """Read `dumpsys battery`: percent, state, plugged, celsius, millivolts, charge_uah; None where it is not told.

    Vendors add lines of their own, before and after, `current now` and a
    second `charge counter` among them, and logs below with the same words:
    the first of each counts, within the indented part. Raises `Unread`.
    """
    begin = re.search(r"^Current Battery Service state:\s*$", text, re.M)
    if begin is None:
        raise Unread("dumpsys battery: not understood: %r" % text.strip()[:80])
    fields: Dict[str, str] = {}
    for line in text[begin.end() :].splitlines():
        if line.strip() and not line[0].isspace():
            break
        if "UPDATES STOPPED" in line:
            raise Unread("dumpsys battery: its values are frozen by hand; `dumpsys battery reset` lets them go on")
        name, colon, content = line.strip().partition(":")
        if colon:
            fields.setdefault(name, content.strip())
    level, scale = _whole(fields.get("level")), _whole(fields.get("scale")) or 100
    volts, charge = _whole(fields.get("voltage")), _whole(fields.get("Charge counter"))
    tenths, state = _whole(fields.get("temperature")), _whole(fields.get("status"))
    powered = [fields.get(name + " powered") for name in POWERED]
    if fields.get("present") == "false":
        raise Unread("dumpsys battery: there is no battery")
    if state is None and level is None:
        raise Unread("dumpsys battery: it says neither status nor level")
    return {
        "percent": None if level is None else 100.0 * level / scale,
        "state": STATES.get(state or 0),
        "plugged": None if not any(powered) else "true" in powered,
        "celsius": tenths / 10.0 if tenths is not None and COLDEST <= tenths / 10.0 <= HOTTEST else None,
        "millivolts": _millivolts(volts),
        "charge_uah": float(charge) if charge and charge > 0 else None,
    }


def _whole(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and re.match(r"-?[0-9]{1,12}$", text) else None


def _millivolts(volts: Optional[int]) -> Optional[float]:
    """Return millivolts; some vendors print microvolts."""
    found = None if volts is None else volts / 1000.0 if volts > 100000 else float(volts)
    return found if found is not None and found >= FEWEST_MILLIVOLTS else None


def thermal(text: str) -> Tuple[Optional[int], Dict[str, float]]:
    """Read `dumpsys thermalservice`: the thermal status, and °C by sensor, `CPU0` or `VIRTUAL-SKIN`.

    The section with what the hardware says now alone: what is cached is as
    old as the last change of a status. A sensor that says 0.0 is absent.
    Raises `Unread`.
    """
    status = re.search(r"^\s*Thermal Status:\s*([0-9])\s*$", text, re.M)
    begin = re.search(r"^\s*Current temperatures from HAL:\s*$", text, re.M)
    unready = re.search(r"^\s*HAL Ready:\s*false", text, re.M)
    if status is None and begin is None and unready is None:
        raise Unread("dumpsys thermalservice: not understood: %r" % text.strip()[:80])
    found: Dict[str, float] = {}
    for line in text[begin.end() :].splitlines() if begin else ():
        if line.strip() and not line.strip().startswith("Temperature{"):
            break
        sensor = re.search(r"\{mValue=([-+.0-9eE]+), mType=(-?\d+), mName=(.*), mStatus=\d+\}", line)
        celsius = _real(sensor.group(1)) if sensor else None
        if sensor and celsius and int(sensor.group(2)) not in NO_TEMPERATURES and COLDEST <= celsius <= HOTTEST:
            found[re.sub(r"[^A-Za-z0-9_-]", "-", sensor.group(3))[:40] or "unnamed"] = celsius
    level = int(status.group(1)) if status else None
    return (level if level is None or level <= SHUTDOWN else None), found


def _real(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def wakefulness(text: str) -> str:
    """Read `dumpsys power`: Awake, Dreaming, Dozing or Asleep. Raises `Unread`."""
    found = re.search(r"^\s*mWakefulness=(\w+)", text, re.M)
    word = found.group(1) if found else ""
    if word.isdigit() and int(word) < len(WAKEFULNESS):
        return WAKEFULNESS[int(word)]
    if word not in WAKEFULNESS:
        raise Unread("dumpsys power: it does not say whether the screen is on")
    return word


def saving(text: str) -> bool:
    """Read `settings get global low_power`: a phone that never saved power says null. Raises `Unread`."""
    word = text.strip()
    if word not in ("0", "1", "null"):
        raise Unread("settings get global low_power: not understood: %r" % word[:80])
    return word == "1"


def state(root: str) -> Tuple[Dict[str, Any], List[str]]:
    """Ask how the phone is doing, and say what it did not tell.

    wakefulness, low_power, thermal_status, plugged, battery (percent, state
    and so on) and celsius (by sensor); None or empty where it does not tell.
    """
    found: Dict[str, Any] = dict.fromkeys(("wakefulness", "low_power", "thermal_status", "plugged"))
    found.update(battery={}, celsius={})
    missing: List[str] = []
    try:
        found["wakefulness"] = wakefulness(ask(root, "dumpsys", "power"))
    except Unread as error:
        missing.append(str(error))
    try:
        found["low_power"] = saving(ask(root, "settings", "get", "global", "low_power"))
    except Unread as error:
        missing.append(str(error))
    try:
        found["thermal_status"], found["celsius"] = thermal(ask(root, "dumpsys", "thermalservice"))
        if not found["celsius"]:
            missing.append("dumpsys thermalservice: no sensor of the hardware's answers")
    except Unread as error:
        missing.append(str(error))
    try:
        found["battery"] = battery(ask(root, "dumpsys", "battery"))
        found["plugged"] = found["battery"]["plugged"]
    except Unread as error:
        missing.append(str(error))
    return found, missing
