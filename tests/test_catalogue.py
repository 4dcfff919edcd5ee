"""The catalogue of targets, the user's own files and fleets, and the limits that exporters keep."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import verbs
import yaml
from conftest import Cli
from packaging.requirements import Requirement

from edgebench import plugins
from edgebench.bundle.export import accepted
from edgebench.config import read_fleet, read_target, write_target
from edgebench.errors import ExportError, InputError, ProfileError, UnknownName
from edgebench.schema import Accepts, Target, split_host

ROOT = Path(__file__).parent.parent
CATALOGUE = plugins.names("edgebench.targets", ".yaml")
DEVICES = tuple(name for name in CATALOGUE if name != "cpu")
HOSTILE = ("a b;rm -rf ~", "$(id)", "`id`", "-oProxyCommand=id", "x\ny", "x\0y", "a'b", 'a"b', "a|b", "é" * 255, "", " ", "a&b")
LIMITED = "extends: cpu\naccepts: [{format: %s, precisions: [fp32], runtime: any, limits: %s}]\n"
FULL = "name: mine\ndescription: mine\ntransport: ssh\naccepts: [{format: onnx, precisions: [fp32], runtime: onnxruntime}]\n"


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


# ---------------------------------------------------------------- the catalogue


def test_every_kind_of_device_that_is_promised_is_there() -> None:
    promised = {"cpu", "linux-ssh", "raspberry-pi-4", "raspberry-pi-5", "jetson-nano", "jetson-xavier-nx", "jetson-orin-nano"}
    assert set(CATALOGUE) >= promised | {
        *("jetson-agx-orin", "coral-dev-board", "coral-usb", "nvidia-gpu", "mac", "android", "android-emulator")
    }


@pytest.mark.parametrize("name", DEVICES)
def test_a_target_of_the_catalogue_says_what_it_is_and_from_where_that_is_known(name: str) -> None:
    target = read_target(name)
    assert (target.name, target.transport, target.host) == (name, "adb" if name.startswith("android") else "ssh", None)
    assert target.expects.machine
    assert target.notes
    assert all(source.startswith("https://") or source.endswith(" on PyPI") for source in target.sources)
    assert target.sources


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_target_names_only_formats_runtimes_and_meters_that_there_are(name: str) -> None:
    target = read_target(name)
    for accepts in target.accepts:
        exporter = plugins.load("edgebench.exporters", accepts.format, "format")
        assert set(accepts.precisions) <= set(exporter.PRECISIONS)
        assert accepts.runtime in plugins.on_device("runtimes")
        if accepts.format == "onnx":
            assert accepts.limits["opset"]
            assert accepts.limits["ir"]
    assert {spec.name for spec in target.meters} <= set(plugins.on_device("meters"))


@pytest.mark.parametrize("name", DEVICES)
def test_setup_brings_every_runtime_that_pip_can(name: str) -> None:
    target = read_target(name)
    brought = {Requirement(text).name for text in target.setup.requirements}
    for accepts in target.accepts:
        packages = plugins.load_device("runtimes", accepts.runtime).DISTRIBUTIONS
        assert brought & set(packages) or accepts.runtime in ("torch", "tensorrt", "edgetpu")


@pytest.mark.parametrize("name", [name for name in DEVICES if read_target(name).expects.machine == ("aarch64",)])
def test_arm_gets_signed_int8_activations(name: str) -> None:
    assert {accepts.limits["activations"] for accepts in read_target(name).accepts} == {"int8"}


def test_no_sum_of_rails_is_taken_for_a_board() -> None:
    orin = read_target("jetson-agx-orin")
    rails = [meter.rail for meters in (orin.meters, orin.accepts[-1].meters) for meter in meters if meter.provenance == "soc"]
    assert rails == ["VDD_CPU_CV", "VDD_GPU_SOC"]
    for name, rail in (("jetson-nano", "POM_5V_IN"), ("jetson-orin-nano", "VDD_IN"), ("jetson-xavier-nx", "VDD_IN")):
        [meter] = read_target(name).meters
        assert (meter.provenance, meter.rail) == ("module", rail)


def test_the_nano_s_processor_and_its_tensorrt_read_the_same_opset() -> None:
    accepts = read_target("jetson-nano").accepts
    assert [kind.format for kind in accepts] == ["onnx", "tensorrt"]
    assert {(kind.limits["opset"], kind.limits["ir"]) for kind in accepts} == {(13, 7)}


@pytest.mark.parametrize("name", CATALOGUE)
def test_show_prints_everything(cli: Cli, name: str) -> None:
    target = read_target(name)
    code, out, _ = cli("targets", "show", name)
    assert code == 0
    words = [*(accepts.format for accepts in target.accepts), *(spec.name for spec in target.meters), *target.sources]
    assert [word for word in words if word not in out] == []
    code, out, _ = cli("targets", "show", name, "--json")
    assert Target.model_validate(json.loads(out)) == target


def test_the_list_names_them_all(cli: Cli) -> None:
    assert [row["name"] for row in json.loads(cli("targets", "--json")[1])] == list(CATALOGUE)
    code, out, _ = cli("targets")
    assert code == 0
    assert [name for name in CATALOGUE if name not in out] == []


# ---------------------------------------------------------------- a file of one's own


def test_a_file_changes_what_it_names_and_inherits_the_rest(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "mine.yaml",
        "extends: jetson-nano\nhost: nano@jetson\ncache: {mebibytes: 100}\nexpects: {python: '3.8', os: null}\nmeters: []\n",
    )
    base, mine = read_target("jetson-nano"), read_target(path)
    assert (mine.name, mine.description, mine.host) == ("jetson-nano", base.description, "nano@jetson")
    assert (mine.cache.path, mine.cache.mebibytes) == (base.cache.path, 100)
    assert (mine.expects.board, mine.expects.python, mine.expects.os) == (base.expects.board, "3.8", None)
    assert mine.meters == ()
    assert mine.accepts == base.accepts


def test_files_extend_files_beside_them(tmp_path: Path) -> None:
    written(tmp_path, "rack/base.yaml", "extends: ../pi.yaml\nname: rack\n")
    written(tmp_path, "pi.yaml", "extends: raspberry-pi-5\ncache: {path: /mnt/eb}\n")
    path = written(tmp_path, "mine.yaml", "extends: rack/base.yaml\nhost: pi\n")
    mine = read_target(path)
    assert (mine.name, mine.cache.path, mine.host) == ("rack", "/mnt/eb", "pi")


def test_plugins_stay_with_the_file_that_names_them(tmp_path: Path) -> None:
    written(tmp_path, "lab/rt_sleep.py", "")
    written(tmp_path, "lab/base.yaml", FULL + "agent_plugins: [rt_sleep.py]\n")
    path = written(tmp_path, "mine.yaml", "extends: lab/base.yaml\nhost: there\n")
    assert read_target(path).agent_plugins == (str(tmp_path / "lab" / "rt_sleep.py"),)
    for name in ("rt_torch.py", "worker.py", "rt_x.so"):
        (tmp_path / "lab" / name).touch()
        taken = written(tmp_path, "lab/taken.yaml", FULL + f"agent_plugins: [{name}]\n")
        with pytest.raises(ProfileError, match=f"agent_plugins: {name}: call it rt_<name>.py or meter_<name>.py"):
            read_target(taken)
    lost = written(tmp_path, "lost.yaml", "extends: lab/base.yaml\nagent_plugins: [rt_sleep.py]\n")
    with pytest.raises(ProfileError, match=r"lost\.yaml: agent_plugins: no file .*/rt_sleep\.py"):
        read_target(lost)


def test_a_circle_of_files_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "b.yaml", "extends: ./sub/../a.yaml\n")
    (tmp_path / "sub").mkdir()
    path = written(tmp_path, "a.yaml", "extends: b.yaml\n")
    with pytest.raises(ProfileError, match=r"extends itself: a\.yaml → b\.yaml → a\.yaml"):
        read_target(path)
    with pytest.raises(ProfileError, match="extends itself"):
        read_target(written(tmp_path, "self.yaml", "extends: self.yaml\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: jetson-nan\n", "unknown target 'jetson-nan': did you mean 'jetson-nano'"),
        ("extends: [cpu]\n", "name one target"),
        ("extends: gone.yaml\n", r"gone\.yaml: cannot be read"),
        ("extend: cpu\n", "unknown key 'extend': did you mean 'extends'"),
        ("extends: cpu\nhost: there\n", "transport local is this computer"),
        ("extends: cpu\ncache: {pth: /x}\n", "unknown key 'cache.pth': did you mean 'path'"),
        ("extends: linux-ssh\nexpects: {board: '('}\n", r"expects\.board: not a regular expression"),
        ("extends: linux-ssh\nexpects: {usb: [1A6E]}\n", "is not vendor:product"),
        ("extends: linux-ssh\n1: 2\n", "Keys should be strings"),
        ("- extends\n", "a target is a mapping"),
        (LIMITED % ("onnx", "{opst: 13}"), r"mine\.yaml: onnx: unknown key 'accepts\.0\.limits\.opst': did you mean 'opset'"),
        (LIMITED % ("coreml", "{opset: 13}"), r"coreml: unknown key 'accepts\.0\.limits\.opset': known: input, version"),
        (LIMITED % ("torch", "{opset: 13}"), r"torch: unknown key 'accepts\.0\.limits\.opset': known: none"),
        (LIMITED % ("onnx", "{opset: many}"), r"onnx: accepts\.0\.limits\.opset: Input should be a valid integer"),
        (LIMITED % ("onnx", "[opset]"), r"accepts\.0\.limits: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_target(written(tmp_path, "mine.yaml", text))


def test_limits_of_a_format_that_is_not_here_are_kept_as_they_are(tmp_path: Path) -> None:
    [accepts] = read_target(written(tmp_path, "mine.yaml", LIMITED % ("later", "{width: 4}"))).accepts
    assert accepts.limits == {"width": 4}


def test_limits_of_a_target_that_no_file_describes_are_checked_before_an_export() -> None:
    accepts = Accepts(format="onnx", precisions=("fp32",), runtime="onnxruntime", limits={"opst": 13})
    target = read_target("cpu").model_copy(update={"accepts": (accepts,)})
    with pytest.raises(ProfileError, match=r"cpu: onnx: unknown key 'limits\.opst': did you mean 'opset'"):
        accepted(target, "onnx", "fp32")


def test_what_is_wrong_in_the_extended_file_is_said_of_that_file(tmp_path: Path) -> None:
    written(tmp_path, "base.yaml", FULL + "cahce: {}\n")
    with pytest.raises(ProfileError, match=r"base\.yaml: unknown key 'cahce': did you mean 'cache'"):
        read_target(written(tmp_path, "mine.yaml", "extends: base.yaml\n"))


def test_the_command_line_s_host_comes_last(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.yaml", "extends: linux-ssh\nhost: one\n")
    assert read_target(path, "ssh://me@two:2222").host == "ssh://me@two:2222"
    with pytest.raises(ProfileError, match="cpu, --host: transport local is this computer"):
        read_target("cpu", "there")


# ---------------------------------------------------------------- addresses and paths


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("jetson", (None, "jetson", None)),
        ("nano@jetson.local", ("nano", "jetson.local", None)),
        ("ssh://nano@10.0.0.7:2222", ("nano", "10.0.0.7", 2222)),
        ("ssh://jetson", (None, "jetson", None)),
        ("pi@[fe80::1%eth0]", ("pi", "fe80::1%eth0", None)),
        ("ssh://[::1]:22", (None, "::1", 22)),
        ("a" * 253, (None, "a" * 253, None)),
    ],
)
def test_an_address_is_taken_apart(host: str, parts: tuple[str | None, str, int | None]) -> None:
    assert split_host(host) == parts
    assert read_target("linux-ssh", host).host == host


MALFORMED = (
    "jetson:22",
    "ssh://a:0",
    "ssh://a:65536",
    "ssh://a:٣",
    "u@",
    "@h",
    "::1",
    "h/x",
    "../../x",
    "u@-h",
    "é.local",
    "a" * 254,
)


@pytest.mark.parametrize("host", [*HOSTILE, *MALFORMED])
def test_no_other_address_reaches_a_transport(host: str) -> None:
    with pytest.raises(ProfileError, match="host: "):
        read_target("linux-ssh", host)
    for user in (f"{host}@h", f"u@{host}"):
        if not re.fullmatch(r"u@(jetson:22|ssh://.*)", user):
            with pytest.raises(ValueError, match="is not user@host"):
                split_host(user)


@pytest.mark.parametrize("key", ["python", "cache"])
@pytest.mark.parametrize("path", [*HOSTILE, "~root/x", "x" * 2000])
def test_hostile_paths_are_refused_or_plain(tmp_path: Path, key: str, path: str) -> None:
    """A cache folder may have spaces and quotes in its name: it is never part of a command. A Python may not."""
    values = [path, f"~/{path}", f"/{path}", f"/x/../{path}"]
    for value in values if key == "cache" else [path, f"/usr/bin/{path}" if path.strip() else path]:
        text = yaml.safe_dump({"extends": "linux-ssh", key: {"path": value} if key == "cache" else value})
        try:
            target = read_target(written(tmp_path, "mine.yaml", text))
        except ProfileError as error:
            assert key in str(error)
            continue
        assert key == "cache", value
        assert target.cache.path.startswith(("/", "~/"))
        assert target.cache.path.isprintable()
        assert ".." not in target.cache.path.split("/")


@pytest.mark.parametrize(
    "python", ["python3.8", "/usr/bin/python3", "~/env/bin/python", "../bin/python3", "/opt/py-3.6+x/bin/python"]
)
def test_a_python_may_be_any_plain_path(tmp_path: Path, python: str) -> None:
    assert read_target(written(tmp_path, "mine.yaml", f"extends: linux-ssh\npython: {python}\n")).python == python


# ---------------------------------------------------------------- fleets


def test_a_fleet_is_a_list_of_devices(tmp_path: Path) -> None:
    written(tmp_path, "mine.yaml", "extends: raspberry-pi-5\nname: desk\nhost: desk\n")
    text = """
devices:
  - {target: jetson-nano, host: nano@jetson.local, name: nano-2, cache: {mebibytes: 64}}
  - {target: mine.yaml}
  - {target: cpu}
"""
    nano, desk, here = read_fleet(Path(written(tmp_path, "fleet.yaml", text)))
    assert (nano.name, nano.host, nano.cache.mebibytes, nano.cache.path) == ("nano-2", "nano@jetson.local", 64, "~/.edgebench")
    assert (desk.name, desk.host) == ("desk", "desk")
    assert here == read_target("cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devices: [{target: cpu}, {target: cpu}]", "2 devices are named 'cpu'; give each a name:"),
        ("devices: [{target: linux-ssh, host: a}, {host: b}]", r"devices\.1: a device is a mapping with target:"),
        ("devices: [{target: linux-ssh, hots: a}]", r"devices\.0: unknown key 'hots': did you mean 'host'"),
        ("devices: [{target: linux-ssh, host: '$(id)'}]", r"devices\.0: host: "),
        ("devices: [{target: cpu, extends: linux-ssh}]", "without extends:"),
        ("devices: []", "a list of"),
        ("device: []", "a fleet has one key, devices"),
        ("[]", "a fleet is a mapping"),
        ("devices: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_fleet_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        read_fleet(Path(written(tmp_path, "fleet.yaml", text)))


# ---------------------------------------------------------------- targets add


def test_add_writes_a_file_that_reads_back(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "lab" / "nano.yaml"
    given = ["--target", "jetson-nano", "--host", "nano@jetson.local", "--name", "nano-2", "--python", "~/p", "--cache", "/mnt/e"]
    code, out, _ = cli("targets", "add", path, *given)
    assert code == 0
    assert "targets probe --target" in out
    target = read_target(str(path))
    assert (target.name, target.host, target.python, target.cache.path) == ("nano-2", "nano@jetson.local", "~/p", "/mnt/e")
    assert target.model_copy(update={"name": "", "host": None, "python": None, "cache": None}) == read_target(
        "jetson-nano"
    ).model_copy(update={"name": "", "cache": None})
    assert set(yaml.safe_load(path.read_text())) == {"extends", "name", "host", "python", "cache"}


def test_add_replaces_nothing_unasked_and_writes_nothing_wrong(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "nano.yaml"
    path.write_text("precious")
    code, _, err = cli("targets", "add", path, "--target", "jetson-nano", "--host", "a")
    assert (code, path.read_text()) == (2, "precious")
    assert "--force" in err
    assert cli("targets", "add", path, "--target", "jetson-nano", "--host", "-oProxyCommand=id", "--force")[0] == 2
    assert path.read_text() == "precious"
    assert cli("targets", "add", path, "--target", "jetson-nano", "--host", "a", "--force")[0] == 0
    assert read_target(str(path)).host == "a"
    assert cli("targets", "add", tmp_path / "nano.txt", "--target", "jetson-nano", "--host", "a")[0] == 2
    assert not (tmp_path / "nano.txt").exists()


def test_add_extends_files_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "base.yaml", FULL)
    target = write_target(Path("lab/mine.yaml"), "base.yaml", {"host": "there"})
    assert (target.name, target.host) == ("mine", "there")
    assert yaml.safe_load((tmp_path / "lab/mine.yaml").read_text())["extends"] == "../base.yaml"
    with pytest.raises(UnknownName, match="did you mean 'jetson-nano'"):
        write_target(Path("lab/other.yaml"), "jetson-nan", {"host": "there"})


# ---------------------------------------------------------------- operator versions


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        ({}, None),
        ({"CONV_2D": 3, "ADD": 2}, None),
        ({"CONV_2D": 2}, "CONV_2D version 3, .* knows version 2 at most"),
        ({"CONV_2D": 0}, "CONV_2D version 3, .* knows no such operator"),
        ({"*": 1}, "ADD version 2"),
        ({"*": 1, "CONV_*": 3, "ADD": 2}, None),
        ({"*": 9, "CONV_*": 9, "CONV_2D": 2}, "CONV_2D version 3"),
    ],
)
def test_an_operator_that_a_runtime_does_not_know_is_named(operators: dict[str, int], message: str | None) -> None:
    from edgebench.exporters import tflite

    versions = [("CONV_2D", 3), ("ADD", 2)]
    if message is None:
        tflite.check_operators("net", versions, tflite.Limits(operators=operators))
        return
    with pytest.raises(ExportError, match=message):
        tflite.check_operators("net", versions, tflite.Limits(operators=operators))


def test_an_export_for_a_target_keeps_its_operator_versions(here: Path) -> None:
    pytest.importorskip("litert_torch")
    limited = "accepts: [{format: tflite, precisions: [fp32], runtime: tflite, limits: {operators: {CONV_2D: 0}}}]\n"
    target = written(here, "mine.yaml", "extends: coral-dev-board\n" + limited)
    given: dict[str, Any] = {
        "format": "tflite",
        "precision": "fp32",
        "dataset": "digits",
        "size": 16,
        "channels": 1,
        "name": "tiny",
    }
    with pytest.raises(ExportError, match="tiny: the file has CONV_2D version 1, the target's runtime knows no such operator"):
        verbs.export("tinynet:net", target=target, **given)
    made = verbs.export("tinynet:net", target="coral-dev-board", **given)
    assert "CONV_2D v1" in made.bundle.details["operators"]


LOAD = """
import base64, json, sys
from tflite_runtime.interpreter import Interpreter
knows = []
for content in json.load(sys.stdin):
    try:
        Interpreter(model_content=base64.b64decode(content))
        knows.append(True)
    except ValueError as error:
        assert "find op" in str(error) or "code out of range" in str(error), error
        knows.append(False)
print(json.dumps(knows))
"""


def one_operator(name: str, version: int) -> str:
    """Make a TFLite file that lists one operator, in base64."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    operator, tensor, graph, model = schema.OperatorCodeT(), schema.TensorT(), schema.SubGraphT(), schema.ModelT()
    code = getattr(schema.BuiltinOperator, name)
    operator.builtinCode, operator.deprecatedBuiltinCode, operator.version = code, min(code, 127), version
    tensor.shape, tensor.type, tensor.buffer, tensor.name = [1], 0, 0, b"x"
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [operator], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return base64.b64encode(bytes(builder.Output())).decode()


def test_the_coral_board_s_operator_versions_are_its_runtime_s_own() -> None:
    """Each listed operator loads in its highest version, and not in the next, on tflite-runtime 2.11 itself."""
    python = ROOT / "build/twins/py37/bin/python"
    if not python.exists():
        pytest.skip(f"no {python.relative_to(ROOT)}: `make twins` makes it")
    [accepts] = [accepts for accepts in read_target("coral-dev-board").accepts if accepts.format == "tflite"]
    listed = {name: version for name, version in accepts.limits["operators"].items() if "*" not in name}
    files = [one_operator(name, version + step) for name, version in listed.items() for step in (0, 1)]
    done = subprocess.run(
        [str(python), "-c", LOAD], input=json.dumps(files), capture_output=True, text=True, check=True, timeout=120
    )
    knows = json.loads(done.stdout)
    found = {name: tuple(knows[2 * index : 2 * index + 2]) for index, name in enumerate(listed)}
    assert found == {name: (version > 0, False) for name, version in listed.items()}
    assert len(listed) > 80
