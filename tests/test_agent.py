"""The agent's parts, in this process; its whole runs through test_measure.py."""

from __future__ import annotations

import os
import sys
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebench.agent import clock, facts
from edgebench.agent.cell import loop, memory
from edgebench.agent.probe import conditions, throttling
from edgebench.agent.runtimes import preprocess

DOUBLES = Path(__file__).parent / "doubles"


def lay(root: Path, files: dict[str, str]) -> None:
    """Write files below a root."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def spec(size: int, channels: int, layout: str = "nhwc", mean: float = 0.0, std: float = 1.0) -> dict[str, Any]:
    return {
        "height": size,
        "width": size,
        "channels": channels,
        "mean": [mean] * channels,
        "std": [std] * channels,
        "layout": layout,
    }


@pytest.mark.parametrize(("before", "after"), [(8, 16), (28, 32), (64, 24), (17, 9), (8, 8)])
def test_resizing_agrees_with_pillow(before: int, after: int) -> None:
    from PIL import Image

    images = np.random.default_rng(before).integers(0, 256, (3, before, before, 3), dtype=np.uint8)
    ours = preprocess.apply(images, spec(after, 3)) * 255
    for image, result in zip(images, ours, strict=True):
        theirs = np.asarray(Image.fromarray(image).resize((after, after), Image.Resampling.BILINEAR), dtype=np.float32)
        assert np.abs(result - theirs).max() <= 1.01  # Pillow rounds to whole numbers, twice


def test_grey_becomes_colour_and_colour_becomes_grey() -> None:
    grey = np.full((1, 4, 4, 1), 51, np.uint8)
    assert preprocess.apply(grey, spec(4, 3)).tolist() == np.full((1, 4, 4, 3), np.float32(0.2)).tolist()
    colour = np.zeros((1, 4, 4, 3), np.uint8)
    colour[..., 0] = 255
    assert preprocess.apply(colour, spec(4, 1)) == pytest.approx(1 / 3)


def test_layout_and_normalisation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    last = preprocess.apply(images, spec(5, 3, "nhwc", 0.5, 0.25))
    first = preprocess.apply(images, spec(5, 3, "nchw", 0.5, 0.25))
    assert first.dtype == np.float32
    assert first.flags["C_CONTIGUOUS"]
    assert np.array_equal(first.transpose(0, 2, 3, 1), last)
    assert last == pytest.approx((images / 255 - 0.5) / 0.25, abs=1e-6)


def test_the_loop_calls_inputs_in_turn_and_times_each() -> None:
    seen: list[int] = []
    timed = loop.Loop(seen.append, [1, 2, 3])
    samples = timed.window(0.0, least=7)
    assert seen == [1, 2, 3, 1, 2, 3, 1]
    assert len(samples) == 7
    assert min(samples) >= 0
    timed.window(0.0, least=2)
    assert seen[7:] == [2, 3]


def test_batches_are_divided_by_their_calls() -> None:
    count = 0

    def infer(tensor: int) -> None:
        nonlocal count
        count += 1

    timed = loop.Loop(infer, [0])
    timed.calls = 50
    samples = timed.window(0.0, least=4)
    assert (len(samples), count) == (4, 200)


@pytest.mark.parametrize(("typical", "calls"), [(100_000, 1), (5_000, 1), (4_999, 2001), (1_000, 10_000)])
def test_short_inferences_are_timed_in_batches(typical: int, calls: int) -> None:
    assert loop.calls_per_sample([typical] * 10, clock_cost_ns=100) == calls


class Scripted(loop.Loop):
    """A loop whose windows are given."""

    def __init__(self, medians: list[int]) -> None:
        self.medians = iter(medians)
        self.windows = 0

    def window(self, seconds: float, least: int = 1) -> Any:
        self.windows += 1
        return array("q", [next(self.medians)] * 4)


def test_warm_up_ends_when_three_windows_agree() -> None:
    scripted = Scripted([1000, 900, 500, 520, 530, 1, 1, 1])
    samples, settled = loop.warm_up(scripted, 0.1)
    assert settled
    assert scripted.windows == 5
    assert len(samples) == 20


def test_warm_up_that_never_settles_is_flagged_and_ends() -> None:
    scripted = Scripted([1000, *[100, 200] * 5])
    _, settled = loop.warm_up(scripted, 0.1)
    assert not settled
    assert scripted.windows == 11


def test_sampling_stops_at_the_counts_or_at_the_cap() -> None:
    taken: list[int] = []
    mode = {"min_samples": 30, "min_seconds": 0.02, "cap_seconds": 10, "window_seconds": 0.01}
    loop.sample(loop.Loop(lambda _: None, [0]), mode, None, lambda window, *_: taken.append(len(window)))
    assert sum(taken) >= 30
    begin = time.monotonic()
    windows: list[Any] = []
    slow = loop.Loop(lambda _: time.sleep(0.02), [0])
    mode = {"min_samples": 10_000, "min_seconds": 0.05, "cap_seconds": 0.2, "window_seconds": 0.05}
    loop.sample(slow, mode, None, lambda window, *_: windows.append(window))
    assert time.monotonic() - begin < 5
    assert 0 < sum(map(len, windows)) < 10_000


def test_the_clock_knows_its_step_and_cost() -> None:
    found = clock.describe()
    assert found["monotonic"]
    assert 0 < found["resolution_ns"] < 1e6
    assert 0 < found["cost_ns"] < 1e5


def test_facts_come_from_the_files_of_a_board(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nmodel name\t: other\n",
        "proc/meminfo": "MemTotal:        4051048 kB\n",
        "proc/loadavg": "0.52 0.58 0.59 1/977 12345\n",
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 18.04.6 LTS"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    }
    lay(tmp_path, files)
    found = facts.environment(str(tmp_path))
    assert found["board"] == "NVIDIA Jetson Nano Developer Kit"
    assert found["cpu"] == "ARMv8 Processor rev 1 (v8l)"
    assert found["memory_bytes"] == 4051048 * 1024
    assert (found["governor"], found["load_1min"], found["os"]) == ("schedutil", 0.52, "Ubuntu 18.04.6 LTS")


def test_what_a_system_does_not_say_is_null(tmp_path: Path) -> None:
    found = facts.environment(str(tmp_path))
    assert found["memory_bytes"] is None
    assert found["board"] is None
    snapshot = conditions.snapshot(str(tmp_path))
    assert {key for key, value in snapshot.items() if value is not None} == {"t_ns"}


def test_clocks_are_asked_for_real_and_limited(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    for core, (asked, real) in enumerate([("1400000", "1200000"), ("1600000", "1500000")]):
        lay(
            tmp_path,
            {
                f"{cpu}/cpu{core}/cpufreq/scaling_cur_freq": asked,
                f"{cpu}/cpu{core}/cpufreq/cpuinfo_cur_freq": real,
                f"{cpu}/cpu{core}/cpufreq/scaling_max_freq": "1600000",
                f"{cpu}/cpu{core}/cpufreq/scaling_governor": "performance",
                f"{cpu}/cpu{core}/thermal_throttle/core_throttle_count": "3",
            },
        )
    found = conditions.snapshot(str(tmp_path))
    assert (found["khz"], found["khz_real"], found["khz_limit"]) == (1_500_000, 1_500_000, 3_200_000)
    assert (found["governor"], found["throttle_events"]) == ("performance", 6)


def test_real_clocks_come_from_cpuinfo_where_no_file_has_them(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/cpuinfo": "cpu MHz\t\t: 2100.5\ncpu MHz : 3000.0\n"})
    assert conditions.snapshot(str(tmp_path))["khz_real"] is None  # without cpufreq it is a constant of the hypervisor
    lay(tmp_path, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3000000"})
    assert conditions.snapshot(str(tmp_path))["khz_real"] == 3_000_000


def test_heat_is_read_zone_by_zone_and_cooling_is_throttling(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "CPU-therm",
            "sys/class/thermal/thermal_zone0/temp": "61000",
            "sys/class/thermal/thermal_zone1/type": "PMIC-Die",
            "sys/class/thermal/thermal_zone1/temp": "100000",
            "sys/class/thermal/thermal_zone2/type": "../x y",
            "sys/class/thermal/thermal_zone2/temp": "30500",
            "sys/class/thermal/thermal_zone3/type": "GPU-therm",
            "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0",
            "sys/class/thermal/cooling_device0/cur_state": "2",
            "sys/class/thermal/cooling_device1/type": "pwm-fan",
            "sys/class/thermal/cooling_device1/cur_state": "7",
            "sys/class/hwmon/hwmon2/fan1_input": "2300",
        },
    )
    (tmp_path / "sys/class/thermal/thermal_zone3/temp").mkdir()  # unreadable
    found = conditions.snapshot(str(tmp_path))
    assert {name: value for name, value in found.items() if "celsius" in name} == {
        "celsius": 61.0,
        "celsius.CPU-therm": 61.0,
        "celsius.---x-y": 30.5,
    }
    assert (found["throttled"], found["fan_rpm"]) == (2, 2300)


@pytest.mark.parametrize(
    ("flags", "clock", "expected"),
    [
        (
            "throttled=0x50005\n",
            "frequency(48)=1500398464\n",
            {"throttled": 5.0, "throttled_since_boot": 5.0, "khz_real": 1500398.464},
        ),
        ("throttled=0x0", None, {"throttled": 0.0, "throttled_since_boot": 0.0}),
        ("throttled=0x80000", "error=1", {"throttled": 0.0, "throttled_since_boot": 8.0}),
        ("VCHI initialization failed", None, {}),
        (None, None, {}),
    ],
)
def test_a_raspberry_pi_s_flags_are_read(flags: str | None, clock: str | None, expected: dict[str, float]) -> None:
    assert throttling.raspberry(flags, clock) == expected


def test_a_raspberry_pi_s_flags_are_read_from_its_file(tmp_path: Path) -> None:
    lay(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "20002\n"})
    assert conditions.snapshot(str(tmp_path))["throttled"] == 2


def on_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """Put a Raspberry Pi 5's program on the PATH, with what it says each time."""
    text = (DOUBLES / "vcgencmd").read_text().replace("/usr/bin/env python3", sys.executable)
    (tmp_path / "vcgencmd").write_text(text)
    (tmp_path / "vcgencmd").chmod(0o755)
    (tmp_path / "flags").write_text(flags)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("VCGENCMD_DOUBLE", str(tmp_path / "flags"))


def test_a_raspberry_pi_5_is_asked_every_time_since_it_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_pi(tmp_path, monkeypatch, "0x50000\n0x50005\n0x50000\n")
    found = [conditions.snapshot() for _ in range(3)]
    assert [one["throttled"] for one in found] == [0, 5, 0]  # throttled in between, which the bits since boot do not tell
    assert [one["throttled_since_boot"] for one in found] == [5, 5, 5]
    assert found[0]["khz_real"] != 2400033.792
    assert conditions.snapshot(programs=True)["khz_real"] == 2400033.792


def test_a_raspberry_pi_that_may_not_be_asked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_pi(tmp_path, monkeypatch, "0x0\n")
    assert throttling.get_throttled("/") == ("throttled=0x0", None)
    assert throttling._vcgencmd("get_trottled") == (None, 'vcgencmd: error=1 error_msg="Command not registered"')
    monkeypatch.setenv("VCGENCMD_DOUBLE", "denied")
    said = "vcgencmd: Can't open device file: /dev/vcio; add this user to the group video"
    assert throttling.get_throttled("/") == (None, said)
    found = conditions.snapshot(programs=True)
    assert "throttled_since_boot" not in found


JETSONS = {
    "Nano": ("57000000.gpu", 921_600_000, 76_800_000, 921_600_000, 612),
    "TX2": ("17000000.gp10b", 1_300_500_000, 114_750_000, 1_300_500_000, 0),
    "Xavier": ("17000000.gv11b", 905_250_000, 114_750_000, 1_109_250_000, 998),
    "Orin, JetPack 5": ("17000000.ga10b", 624_750_000, 306_000_000, 624_750_000, 871),
    "Orin, JetPack 6": ("17000000.gpu", 1_020_000_000, 1_020_000_000, 1_020_000_000, 1000),
    "Thor": ("gpu-gpc-0", 1_575_000_000, 315_000_000, 1_575_000_000, None),
}


@pytest.mark.parametrize("board", JETSONS)
def test_the_gpu_s_clock_and_load_are_read_on_every_jetson(tmp_path: Path, board: str) -> None:
    name, now, least, most, permille = JETSONS[board]
    devfreq = "sys/class/devfreq"
    for other in ("15340000.vic", "15480000.nvdec", "bwmgr", "gpu-nvd-0"):
        lay(tmp_path, {f"{devfreq}/{other}/cur_freq": "1\n"})
    lay(tmp_path, {f"{devfreq}/{name}/{file}": f"{hertz}\n" for file, hertz in
                   (("cur_freq", now), ("min_freq", least), ("max_freq", most))})  # fmt: skip
    if permille is not None:
        lay(tmp_path, {f"{devfreq}/{name}/device/load": f"{permille}\n"})
    found = conditions.snapshot(str(tmp_path))
    assert (found["gpu_khz"], found["gpu_khz_floor"], found["gpu_khz_limit"]) == (now / 1e3, least / 1e3, most / 1e3)
    assert found["gpu_load"] == (None if permille is None else permille / 1e3)
    lay(tmp_path, {f"{devfreq}/{name}/cur_freq": "0\n"})
    assert conditions.snapshot(str(tmp_path))["gpu_khz"] is None  # off is no clock


@pytest.mark.parametrize(
    ("files", "events"),
    [
        (
            {
                "oc1_event_cnt": 0,
                "oc1_throt_en": 1,
                "oc2_event_cnt": 15,
                "oc2_throt_en": 1,
                "oc3_event_cnt": 37,
                "oc3_throt_en": 1,
            },
            52,
        ),
        (
            {
                "oc1_event_cnt": 0,
                "oc1_throt_en": 1,
                "oc2_event_cnt": 15,
                "oc2_throt_en": 0,
                "oc3_event_cnt": 37,
                "oc3_throt_en": 1,
            },
            37,
        ),
        ({"oc1_irq_cnt": 2, "oc1_priority": 0, "oc1_cpu_throttle_ctrl": 7, "oc4_irq_cnt": 1, "oc4_gpu_throttle_ctrl": 3}, 3),
        ({"oc1_priority": 1}, None),
    ],
    ids=["Orin and Thor", "a kind that cuts no clocks", "TX2 and Xavier", "none"],
)
def test_over_current_events_are_counted(tmp_path: Path, files: dict[str, int], events: int | None) -> None:
    chip = "sys/class/hwmon/hwmon3"
    lay(tmp_path, {f"{chip}/name": "soctherm_oc\n", **{f"{chip}/{name}": f"{count}\n" for name, count in files.items()}})
    assert conditions.snapshot(str(tmp_path))["over_current_events"] == events


@pytest.mark.parametrize(
    ("kind", "state", "throttled"),
    [
        ("cpu-throttle-alert", 1, 1),
        ("gpu-throttle-alert", 2, 2),
        ("soc012-throttle-alert", 0, 0),
        ("bcpu-throttle-alert", 1, 1),
        ("hot-surface-alert", 1, None),
        ("devfreq-gpu-gpc-0", 18, 18),
        ("cpufreq-cpu4", 3, 3),
        ("emergency-balanced", 1, 1),
        ("Processor", 2, 2),
        ("intel_powerclamp", -1, 0),
        ("intel_powerclamp", 20, 20),
        ("thermal-idle-0", 50, 50),
        ("pwm-fan", 3, None),
        ("TCC Offset", 6, None),
    ],
)
def test_cooling_that_slows_something_down_is_throttling(tmp_path: Path, kind: str, state: int, throttled: int | None) -> None:
    device = "sys/class/thermal/cooling_device9"
    lay(tmp_path, {f"{device}/type": f"{kind}\n", f"{device}/cur_state": f"{state}\n"})
    assert conditions.snapshot(str(tmp_path))["throttled"] == throttled


def test_a_sensor_whose_part_is_off_costs_no_other(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    lay(tmp_path, {f"{zone}0/type": "cv0-thermal\n", f"{zone}1/type": "tj-thermal\n", f"{zone}1/temp": "50562\n"})
    os.mkfifo(tmp_path / f"{zone}0/temp")
    writer = os.open(tmp_path / f"{zone}0/temp", os.O_RDWR)  # held open and empty: who reads is told EAGAIN
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.append(conditions.snapshot(str(tmp_path))), daemon=True)
    reader.start()
    reader.join(5)
    os.write(writer, b"0")
    os.close(writer)
    assert [one["celsius"] for one in found] == [50.562]


def test_sensors_of_one_name_are_told_apart_and_processors_without_a_zone_are_read(tmp_path: Path) -> None:
    zone, chip = "sys/class/thermal/thermal_zone", "sys/class/hwmon/hwmon"
    files = {f"{zone}0/type": "acpitz", f"{zone}0/temp": "61000", f"{zone}1/type": "acpitz", f"{zone}1/temp": "27800"}
    files |= {f"{chip}0/name": "nvme", f"{chip}0/temp1_input": "99000", f"{chip}1/name": "k10temp"}
    files |= {
        f"{chip}1/temp1_input": "71125",
        f"{chip}1/temp3_input": "68000",
        f"{chip}2/name": "pwm_tach",
        f"{chip}2/rpm": "2140",
    }
    lay(tmp_path, files)
    found = conditions.snapshot(str(tmp_path))
    assert {name: value for name, value in found.items() if "celsius" in name} == {
        "celsius": 71.125,
        "celsius.acpitz": 61.0,
        "celsius.acpitz-2": 27.8,
        "celsius.k10temp": 71.125,
    }
    assert found["fan_rpm"] == 2140


def supply(name: str, **files: object) -> dict[str, str]:
    """Lay out one power supply; a battery unless told otherwise."""
    return {f"sys/class/power_supply/{name}/{file}": f"{text}\n" for file, text in {"type": "Battery", **files}.items()}


@pytest.mark.parametrize(
    ("supplies", "percent", "state"),
    [
        (
            supply("BAT0", status="Discharging", capacity=50) | supply("BAT1", status="Not charging", capacity=90),
            70,
            "Discharging",
        ),
        (supply("BAT0", status="Not charging", capacity=90) | supply("BAT1", status="Charging", capacity=50), 70, "Charging"),
        (
            supply("BAT0", status="Discharging", capacity=50, energy_full=23_000_000)
            | supply("BAT1", status="Full", capacity=100, energy_full=69_000_000),
            87.5,
            "Discharging",
        ),
        (
            supply("BAT0", status="Discharging", capacity=50)
            | supply("hidpp_battery_0", scope="Device", status="Charging", capacity=5)
            | supply("AC", type="Mains", online=0),
            50,
            "Discharging",
        ),
        (supply("ucsi-source-psy-USBC000:001", type="USB", online=1), None, None),
    ],
    ids=["one is idle", "the other is charged", "of two sizes", "a mouse", "a port"],
)
def test_the_battery_is_the_device_s_and_the_one_in_use(
    tmp_path: Path, supplies: dict[str, str], percent: Any, state: Any
) -> None:
    lay(tmp_path, supplies)
    found = conditions.snapshot(str(tmp_path))
    assert (found["battery_percent"], found["battery_state"]) == (percent, state)


def test_power_modes_batteries_and_memory_are_read(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "var/lib/nvpmodel/status": "pmode:0000 fmode:fanNull\n",
            "sys/firmware/acpi/platform_profile": "low-power\n",
            "sys/class/power_supply/BAT0/type": "Battery\n",
            "sys/class/power_supply/BAT0/capacity": "80\n",
            "sys/class/power_supply/BAT0/status": "Discharging\n",
            "proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   64 kB\n",
            "proc/pressure/memory": "some avg10=0.00 total=12\n",
            "proc/77/task/77/schedstat": "100 5 9\n",
            "proc/77/task/78/schedstat": "50 7 9\n",
        },
    )
    found = conditions.snapshot(str(tmp_path), pid=77)
    assert found["power_mode"] == "pmode:0000 fmode:fanNull"
    assert (found["power_profile"], found["battery_percent"], found["battery_state"]) == ("low-power", 80, "Discharging")
    assert (found["available_bytes"], found["memory_pressure_us"]) == (65536, 12)
    assert (found["worker_ns"], found["worker_wait_ns"]) == (150, 12)


def test_conditions_come_from_counters(tmp_path: Path) -> None:
    files = {
        "proc/stat": "cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1 2 3\n",
        "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 total=99\n",
        "proc/vmstat": "pswpin 3\npswpout 4\n",
        "sys/class/thermal/thermal_zone0/temp": "-256000\n",
        "sys/class/thermal/thermal_zone1/temp": "41500\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1479000\n",
    }
    lay(tmp_path, files)
    found = conditions.snapshot(str(tmp_path))
    assert (found["cpu_jiffies"], found["idle_jiffies"], found["steal_jiffies"]) == (531, 450, 8)
    assert (found["cpu_pressure_us"], found["swapped_pages"]) == (1234, 7)
    assert (found["celsius"], found["khz"]) == (41.5, 1479000)


def test_a_missing_runtime_has_its_reason() -> None:
    assert facts.runtimes(["nonesuch"])["nonesuch"]["version"] is None
    assert "nonesuch" in str(facts.runtimes(["nonesuch"])["nonesuch"]["reason"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc/self/clear_refs here")
def test_the_peak_of_memory_is_counted_from_the_reset() -> None:
    block = np.ones(40_000_000, np.uint8)
    del block
    before = memory.status_bytes("VmHWM") or 0
    assert memory.reset_peak()
    low = memory.status_bytes("VmHWM") or 0
    assert low <= before
    block = np.ones(60_000_000, np.uint8)
    assert (memory.status_bytes("VmHWM") or 0) - low > 50_000_000
    assert block.any()


def test_the_peak_is_looked_for_where_it_cannot_be_reset(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").mkdir()  # cannot be written
    peak = memory.Peak(clear_refs=str(tmp_path / "clear_refs"))
    assert peak.method == "sampler"
    before = memory.status_bytes("VmRSS") or 0
    block = np.ones(60_000_000, np.uint8)
    time.sleep(0.1)
    del block
    assert (peak.stop() or 0) - before > 50_000_000
    unknown = memory.Peak(str(tmp_path / "none"), str(tmp_path / "clear_refs"))
    assert (unknown.method, unknown.stop()) == (None, None)


def test_memory_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert memory.status_bytes("VmRSS", str(tmp_path / "none")) is None
    (tmp_path / "status").write_text("VmRSS:\n")
    assert memory.status_bytes("VmRSS", str(tmp_path / "status")) is None
    assert not memory.reset_peak(str(tmp_path / "none" / "none"))
