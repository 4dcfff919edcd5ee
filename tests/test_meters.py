"""The agent's power meters on real-looking trees, and the sampler that reads them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import edgebench.agent.meters
from edgebench.agent.clock import now_ns
from edgebench.agent.events import Events
from edgebench.agent.meters import (
    meter_battery,
    meter_command,
    meter_csv,
    meter_hwmon,
    meter_ina3221,
    meter_nvml,
    meter_rapl,
    meters,
)
from edgebench.agent.meters.meters import Sampler, Unavailable, pulses

DOUBLES = Path(__file__).parent / "doubles"
RAPL = "sys/class/powercap/"
NANO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
ORIN = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"
ORIN_2 = "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon4/"
BATTERY = "sys/class/power_supply/battery/"


class Kept(Events):
    """Keeps events instead of writing them."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def emit(self, event: str, **fields: Any) -> None:
        self.kept.append({"event": event, **fields})

    def of(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.kept if one["event"] == event]


def lay(root: Path, files: Mapping[str, object]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()  # a file that cannot be read, whoever reads
        else:
            path.write_text(f"{content}\n")
    return str(root)


def rails(meter: Any) -> dict[str, str]:
    return {channel["rail"]: channel["provenance"] for channel in meter.start()}


def values(meter: Any) -> dict[int, float]:
    return {index: value for index, _, value in meter.read()}


def zone(name: str, energy_uj: object, label: str, range_uj: object = 262143328850) -> dict[str, object]:
    folder = f"{RAPL}intel-rapl:{name}/"
    return {folder + "name": label, folder + "energy_uj": energy_uj, folder + "max_energy_range_uj": range_uj}


# ---------------------------------------------------------------- rapl


def test_rapl_sums_packages_first_and_names_their_parts(tmp_path: Path) -> None:
    tree = {**zone("0", 10, "package-0"), **zone("0:0", 4, "core"), **zone("0:1", 2, "dram")}
    tree |= {**zone("1", 20, "package-1"), **zone("1:0", 7, "dram"), **zone("2", 9, "psys")}
    tree |= {RAPL + "intel-rapl-mmio:0/name": "package-0", RAPL + "intel-rapl-mmio:0/energy_uj": 10}
    meter = meter_rapl.Meter({}, lay(tmp_path, tree))
    found = rails(meter)
    assert list(found) == ["packages", "package-0", "package-1", "psys", "package-0/core", "package-0/dram", "package-1/dram"]
    assert found["packages"] == found["package-0/dram"] == "soc"
    assert found["psys"] == "board"
    lay(tmp_path, {RAPL + "intel-rapl:0/energy_uj": 3_000_010, RAPL + "intel-rapl:1/energy_uj": 1_500_020})
    assert values(meter) == pytest.approx({0: 4.5, 1: 3.0, 2: 1.5, 3: 0.0, 4: 0.0, 5: 0.0, 6: 0.0})


def test_one_package_has_no_sum_beside_it(tmp_path: Path) -> None:
    assert list(rails(meter_rapl.Meter({}, lay(tmp_path, zone("0", 0, "package-0"))))) == ["package-0"]


def test_rapl_goes_on_counting_when_it_wraps_round_twice(tmp_path: Path) -> None:
    meter = meter_rapl.Meter({}, lay(tmp_path, zone("0", 900_000, "package-0", 1_000_000)))
    meter.start()
    counted = []
    for energy_uj in (950_000, 50_000, 800_000, 100_000):
        lay(tmp_path, {RAPL + "intel-rapl:0/energy_uj": energy_uj})
        counted.append(values(meter)[0])
    assert counted == pytest.approx([0.05, 0.15, 0.9, 1.2])


def test_a_counter_without_a_range_that_goes_back_was_reset(tmp_path: Path) -> None:
    meter = meter_rapl.Meter({}, lay(tmp_path, zone("0", 900, "package-0", None)))
    meter.start()
    lay(tmp_path, {RAPL + "intel-rapl:0/energy_uj": 5})
    with pytest.raises(Unavailable, match="from 900 to 5"):
        meter.read()


def test_rapl_that_cannot_be_read_says_how_to_allow_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no zone"):
        meter_rapl.Meter({}, str(tmp_path)).start()
    with pytest.raises(Unavailable, match=r"Is a directory.*CVE-2020-8694.*chmod a\+r"):
        meter_rapl.Meter({}, lay(tmp_path, zone("0", None, "package-0"))).start()


def test_no_sum_is_given_while_a_package_does_not_answer(tmp_path: Path) -> None:
    meter = meter_rapl.Meter({}, lay(tmp_path, {**zone("0", 0, "package-0"), **zone("1", 0, "package-1")}))
    meter.start()
    lay(tmp_path, {RAPL + "intel-rapl:0/energy_uj": 1_000_000, RAPL + "intel-rapl:1/energy_uj": "none"})
    assert values(meter) == {1: 1.0}
    unreadable = meter_rapl.Meter({}, lay(tmp_path / "other", {**zone("0", 0, "package-0"), **zone("1", None, "package-1")}))
    assert list(rails(unreadable)) == ["package-0"]


# ---------------------------------------------------------------- hwmon


def hwmon(number: int, **files: object) -> dict[str, object]:
    return {f"sys/class/hwmon/hwmon{number}/{name}": content for name, content in files.items()}


def test_hwmon_prefers_counters_and_multiplies_only_equal_labels(tmp_path: Path) -> None:
    tree = hwmon(0, name="coretemp", temp1_input=41000)
    tree |= hwmon(1, name="amdgpu", power1_average=8_000_000, power1_label="PPT", energy1_input=100)
    tree |= hwmon(
        2, name="ina3221", in1_label="VDD_A", in1_input=5000, curr1_label="VDD_B", curr1_input=9, in2_input=7, curr2_input=7
    )
    tree |= hwmon(2, in3_label="VDD_B", in3_input=3300)
    meter = meter_hwmon.Meter({}, lay(tmp_path, tree))
    assert list(rails(meter)) == ["amdgpu/energy1", "amdgpu/PPT", "ina3221/VDD_B"]
    lay(tmp_path, hwmon(1, energy1_input=2_000_100))
    assert values(meter) == pytest.approx({0: 2.0, 1: 8.0, 2: 3.3 * 0.009})


def test_hwmon_takes_the_chip_that_is_named_and_lists_those_there_are(tmp_path: Path) -> None:
    tree = {**hwmon(0, name="ina226", power1_input=2_500_000), **hwmon(1, name="ina226", power1_input=1), **hwmon(2, name="nvme")}
    root = lay(tmp_path, tree)
    meter = meter_hwmon.Meter({"chip": "ina226"}, root)
    assert list(rails(meter)) == ["ina226/power1", "ina226/power1#2"]
    assert values(meter)[0] == pytest.approx(2.5)
    with pytest.raises(Unavailable, match=r"no chip ina999 .* ina226, nvme"):
        meter_hwmon.Meter({"chip": "ina999"}, root).start()
    with pytest.raises(Unavailable, match="no power, energy"):
        meter_hwmon.Meter({"chip": "nvme"}, root).start()
    with pytest.raises(Unavailable, match="no option 'chp'; there are: chip"):
        meter_hwmon.Meter({"chp": "ina226"}, root)


def test_a_sensor_that_stops_answering_yields_no_row(tmp_path: Path) -> None:
    meter = meter_hwmon.Meter({}, lay(tmp_path, hwmon(0, name="ina226", power1_input=1, power2_input=2_000_000)))
    meter.start()
    (tmp_path / "sys/class/hwmon/hwmon0/power1_input").unlink()
    assert values(meter) == pytest.approx({1: 2.0})


# ---------------------------------------------------------------- ina3221


def test_the_nano_has_its_total_first_wherever_it_is_numbered(tmp_path: Path) -> None:
    tree = {NANO + "rail_name_0": "POM_5V_GPU", NANO + "rail_name_1": "POM_5V_IN", NANO + "rail_name_2": "POM_5V_CPU"}
    tree |= {NANO + f"in_power{index}_input": str(power) for index, power in enumerate((900, 4240, 700))}
    meter = meter_ina3221.Meter({}, lay(tmp_path, tree))
    assert rails(meter) == {"POM_5V_IN": "module", "POM_5V_GPU": "soc", "POM_5V_CPU": "soc"}
    assert values(meter) == pytest.approx({0: 4.24, 1: 0.9, 2: 0.7})


def orin(folder: str, names: tuple[str, str, str]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for number, name in enumerate(names, 1):
        tree |= {
            f"{folder}in{number}_label": name,
            f"{folder}in{number}_input": 5000,
            f"{folder}curr{number}_input": 100 * number,
        }
    return tree | {folder + "in7_label": "sum of shunt voltages", folder + "in7_input": 9, folder + "curr7_input": 9}


def test_an_orin_nano_multiplies_and_skips_what_is_not_connected(tmp_path: Path) -> None:
    meter = meter_ina3221.Meter({}, lay(tmp_path, orin(ORIN, ("VDD_CPU_GPU_CV", "NC", "VDD_IN"))))
    assert rails(meter) == {"VDD_IN": "module", "VDD_CPU_GPU_CV": "soc"}
    assert values(meter) == pytest.approx({0: 1.5, 1: 0.5})


def test_an_agx_orin_has_no_rail_for_the_whole_module(tmp_path: Path) -> None:
    tree = {**orin(ORIN, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")), **orin(ORIN_2, ("NC", "VDDQ_VDD2_1V8AO", "NC"))}
    found = rails(meter_ina3221.Meter({}, lay(tmp_path, tree)))
    assert list(found) == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
    assert set(found.values()) == {"soc"}


THOR = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon6/"


def test_a_thor_s_total_is_its_board_s_and_comes_first(tmp_path: Path) -> None:
    tree = orin(ORIN, ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"))
    tree |= {THOR + "name": "ina238", THOR + "label": "VIN", THOR + "in1_input": 19_100, THOR + "power1_input": 41_250_000}
    other = THOR.replace("0044/hwmon/hwmon6", "0045/hwmon/hwmon7")
    tree |= {other + "name": "ina238", other + "label": "CAMERA", other + "power1_input": 900_000}
    meter = meter_ina3221.Meter({}, lay(tmp_path, tree))
    assert rails(meter) == {"VIN": "board", "VDD_GPU": "soc", "VDD_CPU_SOC_MSS": "soc", "VIN_SYS_5V0": "soc"}
    assert values(meter) == pytest.approx({0: 41.25, 1: 0.5, 2: 1.0, 3: 1.5})


def test_a_chip_with_a_label_of_its_own_names_its_rail_and_what_it_covers(tmp_path: Path) -> None:
    tree = hwmon(6, name="ina238", label="VIN", in1_input=19_100, curr1_input=2160, power1_input=41_250_000)
    tree |= hwmon(7, name="ina238", power1_input=900_000) | hwmon(8, name="pmbus", label="CPU", power1_input=1, power2_input=2)
    meter = meter_hwmon.Meter({}, lay(tmp_path, tree))
    assert rails(meter) == {"ina238/VIN": "board", "ina238/power1": "soc", "pmbus/power1": "soc", "pmbus/power2": "soc"}
    assert values(meter)[0] == pytest.approx(41.25)


def test_a_jetson_without_readable_rails_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="Nano 2GB"):
        meter_ina3221.Meter({}, str(tmp_path)).start()
    tree = {NANO + "rail_name_0": "POM_5V_IN", NANO + "in_power0_input": None}
    with pytest.raises(Unavailable, match="Is a directory; run as root"):
        meter_ina3221.Meter({}, lay(tmp_path, tree)).start()


# ---------------------------------------------------------------- battery


def battery(**files: object) -> dict[str, object]:
    tree: dict[str, object] = {"type": "Battery", "status": "Discharging", **files}
    return {BATTERY + name: content for name, content in tree.items()}


@pytest.mark.parametrize(
    ("files", "options", "watts", "note"),
    [
        ({"power_now": -12_340_000}, {}, 12.34, "power_now"),
        ({"current_now": -850_000, "voltage_now": 3_850_000}, {}, 3.2725, "uA"),
        ({"current_now": 850, "voltage_now": 3_850_000}, {}, 3.2725, "mA"),
        ({"current_now": 850, "voltage_now": 3850}, {}, 3.2725, "mA"),
        ({"current_now": 9000, "voltage_now": 3_850_000}, {"current_unit": "uA"}, 0.03465, "as the target says"),
        ({"power_now": 0, "current_now": 850_000, "voltage_now": 4_000_000}, {}, 3.4, "uA"),
    ],
)
def test_a_battery_is_read_in_its_vendors_units(
    tmp_path: Path, files: dict[str, object], options: dict[str, str], watts: float, note: str
) -> None:
    meter = meter_battery.Meter(options, lay(tmp_path, battery(**files)))
    [channel] = meter.start()
    assert (channel["rail"], channel["provenance"]) == ("battery", "board")
    assert note in channel["note"]
    assert values(meter) == pytest.approx({0: watts})


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging"])
def test_a_battery_that_does_not_discharge_is_refused(tmp_path: Path, status: str) -> None:
    with pytest.raises(Unavailable, match=f"is {status.lower()}.*unplug"):
        meter_battery.Meter({}, lay(tmp_path, battery(status=status, power_now=5_000_000))).start()


LAPTOP = ("sys/class/power_supply/BAT0/", "sys/class/power_supply/BAT1/")


def two_batteries(idle: str, **used: object) -> dict[str, object]:
    """A laptop's batteries: the first idle, the second in use."""
    states: tuple[dict[str, object], ...] = (
        {"status": idle, "power_now": 0},
        {"status": "Discharging", "power_now": 7_210_000, **used},
    )
    return {f"{LAPTOP[at]}{name}": text for at, files in enumerate(states) for name, text in {"type": "Battery", **files}.items()}


@pytest.mark.parametrize("idle", ["Not charging", "Unknown", "Full"])
def test_an_idle_battery_beside_the_one_in_use_is_not_called_charging(tmp_path: Path, idle: str) -> None:
    meter = meter_battery.Meter({}, lay(tmp_path, two_batteries(idle)))
    assert rails(meter) == {"BAT1": "board"}
    assert values(meter) == pytest.approx({0: 7.21})
    lay(tmp_path, two_batteries("Charging"))
    with pytest.raises(Unavailable, match="BAT0 is charging"):
        meter.read()


def test_a_battery_that_takes_over_ends_the_readings(tmp_path: Path) -> None:
    meter = meter_battery.Meter({}, lay(tmp_path, two_batteries("Not charging")))
    meter.start()
    lay(tmp_path, {LAPTOP[0] + "status": "Discharging", LAPTOP[0] + "power_now": 7_000_000, LAPTOP[1] + "power_now": 0})
    with pytest.raises(Unavailable, match="BAT0 began to supply the device midway"):
        meter.read()


def test_a_battery_on_mains_is_refused_also_midway(tmp_path: Path) -> None:
    mains = "sys/class/power_supply/AC/"
    tree = {**battery(power_now=5_000_000), mains + "type": "Mains", mains + "online": 0}
    mouse = "sys/class/power_supply/mouse/"
    tree |= {mouse + "type": "Battery", mouse + "scope": "Device", mouse + "status": "Full", mouse + "power_now": 5}
    meter = meter_battery.Meter({}, lay(tmp_path, tree))
    assert list(rails(meter)) == ["battery"]
    lay(tmp_path, {mains + "online": 1})
    with pytest.raises(Unavailable, match="online"):
        meter.read()


def test_a_gauge_that_says_nothing_is_no_reading(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no battery"):
        meter_battery.Meter({}, str(tmp_path)).start()
    with pytest.raises(Unavailable, match="neither power_now"):
        meter_battery.Meter({}, lay(tmp_path, battery(current_now=0, voltage_now=3_850_000))).start()
    meter = meter_battery.Meter({}, lay(tmp_path, battery(current_now=900_000)))
    meter.start()
    lay(tmp_path, battery(current_now=0))
    assert meter.read() == []


# ---------------------------------------------------------------- nvml


def compiled(folder: Path, *flags: str) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to make the library's double")
    library = folder / "libnvidia-double.so"
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", library, DOUBLES / "nvml.c"], check=True, timeout=60)
    return str(library)


def test_a_gpu_counts_energy_and_an_older_one_says_its_power(tmp_path: Path) -> None:
    meter = meter_nvml.Meter({"library": compiled(tmp_path)})
    first, second = meter.start()
    assert (first["rail"], first["counter"], first["provenance"]) == ("gpu0", True, "board")
    assert (second["rail"], second["counter"]) == ("gpu1", False)
    assert "Tesla P4" in second["note"]
    assert values(meter) == pytest.approx({0: 0.25, 1: 22.5})
    assert values(meter) == pytest.approx({0: 0.5, 1: 22.5})
    meter.stop()


def test_a_driver_without_the_counter_still_says_power(tmp_path: Path) -> None:
    meter = meter_nvml.Meter({"library": compiled(tmp_path, "-DOLD")})
    assert [channel["counter"] for channel in meter.start()] == [False, False]
    assert values(meter) == pytest.approx({0: 31.0, 1: 22.5})
    meter.stop()


def test_a_lost_gpu_and_a_missing_driver_say_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"GPU is lost \(15\)"):
        meter_nvml.Meter({"library": compiled(tmp_path, "-DLOST")}).start()
    with pytest.raises(Unavailable, match="NVIDIA's driver"):
        meter_nvml.Meter({"library": str(tmp_path / "none.so")}).start()


# ---------------------------------------------------------------- command


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        ("12.3", 12.3),
        (" 12.3 W\n", 12.3),
        ("12300 mW", 12.3),
        ("12300mw", 12.3),
        ("1.5e1", 15.0),
        ("0.2kW", 200.0),
        ("12,3", None),
        ("nan", None),
        ("inf W", None),
        ("12 MW", None),
        ("power: 12", None),
        ("12 13", None),
        ("", None),
        ("٣", None),
    ],
)
def test_a_line_is_one_number_of_watts_or_nothing(line: str, watts: float | None) -> None:
    assert meter_command.watts(line) == (None if watts is None else pytest.approx(watts))


def printing(text: str) -> dict[str, Any]:
    return {"arguments": [sys.executable, "-S", "-u", "-c", text]}


def test_a_program_is_read_as_it_prints_and_ended_with_its_children(tmp_path: Path) -> None:
    child = "import subprocess, sys, time\nprint('warming up')\nsubprocess.Popen(['sleep', '60'])\nprint('4.5 W')\ntime.sleep(60)"
    meter = meter_command.Meter(printing(child))
    begin = now_ns()
    assert [one["provenance"] for one in meter.start()] == ["wall"]
    [(index, t_ns, watts)] = meter.read()
    assert (index, watts) == (0, 4.5)
    assert begin < t_ns < now_ns()
    process, listener = meter._process, meter._listener
    meter.stop()
    assert process is not None and process.returncode == -15
    assert listener is not None
    listener.join(2)
    assert not listener.is_alive()  # the child held the pipe too


def test_garbage_is_counted_in_the_note() -> None:
    meter = meter_command.Meter(
        {**printing("print('x'); print('7'); print('y' * 9999); import time; time.sleep(9)"), "provenance": "board"}
    )
    [channel] = meter.start()
    end = time.monotonic() + 3
    while "4 lines" not in channel["note"] and time.monotonic() < end:  # the long line counts as three
        meter.read()
        time.sleep(0.01)
    meter.stop()
    assert channel["note"] == "4 lines were no number"
    assert channel["provenance"] == "board"


def test_a_program_that_ends_or_is_missing_says_so() -> None:
    with pytest.raises(Unavailable, match=r"exit code 3: no device found"):
        _started(printing("import sys; sys.exit(print('no device found') or 3)"))
    with pytest.raises(Unavailable, match="No such file"):
        _started({"arguments": ["/nonexistent/meter"]})
    for arguments in ("sh -c 'echo 1'", [], ["x", 1], None):
        with pytest.raises(Unavailable, match="is a list"):
            _started({"arguments": arguments})
    with pytest.raises(Unavailable, match="provenance is 'mains'"):
        _started({"arguments": ["true"], "provenance": "mains"})
    meter = meter_command.Meter(printing("print(5)"))
    meter.start()
    rows = meter.read()
    with pytest.raises(Unavailable, match="exit code 0"):
        while True:
            rows += meter.read()
            time.sleep(0.01)
    meter.stop()
    assert [row[2] for row in rows] == [5.0]


def _started(options: dict[str, Any]) -> None:
    meter = meter_command.Meter(options)
    try:
        meter.start()
    finally:
        meter.stop()


# ---------------------------------------------------------------- csv


def log(tmp_path: Path, text: str, **options: Any) -> tuple[meter_csv.Meter, Path]:
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode())
    return meter_csv.Meter({"path": str(path), **options}), path


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(text)


@pytest.mark.parametrize(
    ("header", "row", "seconds", "watts"),
    [
        ("time,power", "1.5,2.5", 1.5, 2.5),
        ("t,w", "1.5,2.5", 1.5, 2.5),
        ("Timestamp_ms;Volt;Power_mW", "1500;5;2500,5", 1.5, 2.5005),
        ("Time (s)\tPower [W]", "1.5\t2.5", 1.5, 2.5),
        ('"unix","mw","note"', '"1700000000.25","2500","a, b"', 1700000000.25, 2.5),
        ("datetime,watts", "2024-05-01T12:00:00.250Z,2.5", 1714564800.25, 2.5),
        ("\ufefftime_s,power_uw", "1,2500000", 1.0, 2.5),
    ],
)
def test_columns_and_units_come_from_the_header(tmp_path: Path, header: str, row: str, seconds: float, watts: float) -> None:
    meter, path = log(tmp_path, header + "\n")
    [channel] = meter.start()
    assert (channel["own_clock"], channel["counter"], channel["provenance"]) == (True, False, "wall")
    append(path, (row + "\r\n").encode())
    [(_, t_ns, value)] = meter.read()
    assert t_ns == pytest.approx(seconds * 1e9, abs=1000)
    assert value == pytest.approx(watts)


def test_only_new_whole_lines_are_read(tmp_path: Path) -> None:
    meter, path = log(tmp_path, "time,power\n1,10\n2,10\n3,1")
    meter.start()
    assert meter.read() == []
    append(path, b"1\n4,1")
    assert [row[1:] for row in meter.read()] == [(3 * 10**9, 11.0)]
    append(path, b"2.5\n5,13\n")
    assert [row[2] for row in meter.read()] == [12.5, 13.0]
    assert meter.read() == []


def test_hostile_rows_are_counted_and_passed_over(tmp_path: Path) -> None:
    meter, path = log(tmp_path, "time,power\n")
    [channel] = meter.start()
    hostile = [b"1,nan", b"2,inf", b"x,3", b"3", b"", b",,,", b"1e999,4", b"\xff\xfe,\x00", b'"4,5', b"1e12,3"]
    append(path, b"\n".join(hostile) + b"\n1,5\n0.5,6\n2,7\n")
    assert [row[2] for row in meter.read()] == [5.0, 7.0]
    assert channel["note"] == "10 rows were no reading"  # nine of those above, and the one that went back in time


def test_a_log_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="start the meter's log first"):
        meter_csv.Meter({"path": str(tmp_path / "none.csv")}).start()
    with pytest.raises(Unavailable, match="no power column among time, volts"):
        log(tmp_path, "time,volts\n")[0].start()
    with pytest.raises(Unavailable, match="no time column among"):
        log(tmp_path, "time,power\n", time="when")[0].start()
    meter, path = log(tmp_path, "time,power\n1,1\n")
    meter.start()
    path.write_text("time,power\n")
    with pytest.raises(Unavailable, match="became shorter"):
        meter.read()
    meter, path = log(tmp_path, "time,power\n")
    meter.start()
    append(path, b"1" * 70_000)
    with pytest.raises(Unavailable, match="is it a log"):
        meter.read()


def test_a_header_may_come_late_or_be_missing_where_columns_are_numbered(tmp_path: Path) -> None:
    meter, path = log(tmp_path, "")
    meter.start()
    append(path, b"time,mw\n1,2000\n")
    assert [row[2] for row in meter.read()] == [2.0]
    meter, path = log(tmp_path, "1,x,7\n", time=0, power=2)
    meter.start()
    append(path, b"2,x,8\n")
    assert [row[1:] for row in meter.read()] == [(2 * 10**9, 8.0)]


# ---------------------------------------------------------------- sampler


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the agent find the doubles' meters beside its own."""
    monkeypatch.setattr(edgebench.agent.meters, "__path__", [*edgebench.agent.meters.__path__, str(DOUBLES)])


def spec(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "rail": None, "provenance": None, "options": options}


def sampled(specs: list[dict[str, Any]], seconds: float, root: str = "/") -> Kept:
    events = Kept()
    sampler = Sampler(specs, events, root)
    sampler.start()
    time.sleep(seconds)
    sampler.stop()
    return events


def of_meter(events: Kept, number: int) -> list[float]:
    return [value for event in events.of("power") if event["meter"] == number for value in event["values"]]


def test_absent_meters_say_why_and_do_not_stop_the_others(scripted: None, tmp_path: Path) -> None:
    specs = [spec("rapl"), spec("nonesuch"), spec("scripted", fault="start"), spec("hwmon", chip="x", speed=1)]
    root = lay(tmp_path, {**zone("0", 5, "package-0")})
    events = sampled(specs, 0.12, root)
    described = {event["meter"]: event for event in events.of("meter")}
    assert [one["rail"] for one in described[0]["channels"]] == ["package-0"]
    assert described[0]["reason"] is None
    assert [described[number]["channels"] for number in (1, 2, 3)] == [[], [], []]
    assert "no such meter" in described[1]["reason"]
    assert described[2]["reason"] == "no such sensor; plug it in"
    assert "speed" in described[3]["reason"]
    assert len(of_meter(events, 0)) >= 3


def test_readings_come_in_chunks_at_least_every_second_and_on_schedule(scripted: None) -> None:
    events, running = Kept(), threading.active_count()
    sampler = Sampler([spec("scripted", values=list(range(1, 500)), slow=0.004)], events)
    sampler.start()
    assert sampler.working
    assert not sampler.own_clock
    time.sleep(1.2)
    early = len(events.of("power"))
    sampler.stop()
    assert early >= 2
    read = of_meter(events, 0)
    assert read == list(range(1, len(read) + 1))  # none lost, none twice
    times = [t_ns for event in events.of("power") for t_ns in event["t_ns"]]
    apart = sorted(late - early for early, late in pairwise(times))
    assert apart[len(apart) // 2] < 0.0115e9  # 10 ms a reading, though each takes 4 ms
    assert threading.active_count() == running


def test_a_slow_meter_does_not_delay_another(scripted: None) -> None:
    events = sampled([spec("scripted", values=[1.0] * 9, slow=0.3), spec("scripted", values=[2.0] * 500)], 0.6)
    assert len(of_meter(events, 1)) > 30
    assert 1 <= len(of_meter(events, 0)) <= 4


def test_a_meter_that_breaks_midway_keeps_what_was_read(scripted: None) -> None:
    events = sampled([spec("scripted", values=[1.0, float("nan"), 3.0], fault="break")], 0.15)
    assert of_meter(events, 0) == [1.0, 3.0]
    first, last = events.of("meter")
    assert first["reason"] is None
    assert "No such device" in last["reason"]
    assert last["channels"] == first["channels"]
    assert events.kept[-1] is last


def test_a_meter_that_hangs_is_left_behind(scripted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "STOP_SECONDS", 0.2)
    begin = time.monotonic()
    events = sampled([spec("scripted", values=[1.0], fault="hang")], 0.1)
    assert time.monotonic() - begin < 2
    assert of_meter(events, 0) == [1.0]
    assert "did not answer" in events.of("meter")[-1]["reason"]


def test_a_host_that_has_left_does_not_break_the_sampler(scripted: None) -> None:
    class Unreachable(Kept):
        def emit(self, event: str, **fields: Any) -> None:
            raise BrokenPipeError

    sampler = Sampler([spec("scripted", values=[1.0] * 9)], Unreachable())
    sampler.start()
    time.sleep(0.05)
    sampler.stop()
    assert sampler.working


def test_a_log_that_grows_to_the_end_is_read_to_the_end(tmp_path: Path) -> None:
    _, path = log(tmp_path, "time,power\n")
    events = Kept()
    sampler = Sampler([spec("csv", path=str(path))], events)
    sampler.start()
    assert sampler.own_clock
    append(path, b"1,5\n2,x\n3,6\n")
    sampler.stop()
    assert of_meter(events, 0) == [5.0, 6.0]
    assert events.of("meter")[-1]["channels"][0]["note"] == "1 rows were no reading"


def test_pulses_load_a_core_and_are_irregular() -> None:
    """Other processes may have taken the core meanwhile, so that one round of several must show it."""
    assert any(_pulses_are_right() for _ in range(20))


def _pulses_are_right() -> bool:
    marks: list[tuple[int, int]] = []
    begin, cpu = time.perf_counter(), time.process_time()
    pulses(3, 0.1, lambda begin_ns, end_ns: marks.append((begin_ns, end_ns)))
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    lengths = [(end_ns - begin_ns) / 1e9 for begin_ns, end_ns in marks]
    loaded, gaps = cpu > 0.4 * sum(lengths), wall - sum(lengths)
    return lengths == pytest.approx([0.1, 0.06, 0.15], abs=0.04) and loaded and gaps == pytest.approx(0.35, abs=0.1)
