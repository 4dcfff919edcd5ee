"""edgebench: which of my models, in which format and precision, should run on which device.

The verbs of the command line as functions: `inspect_data`, `data_requirements`, `synthesize_data`, `convert_data`, `train`,
`export`, `import_file`, `run`, `profiles`, `compare`, `noise`, `diagnose`, `explain`, `quantize`, `compress`, `sweep`,
`validate`, `serve`, `bench_serve`, `verify`, `trust_file`, on devices `probe`, `setup`, `remove_setup` and `tune`, and on records
`leaderboard`, `recommend`, `report`, `listing`, `find`, `clean`, `merge` and `track`.
What they can be asked for stands in groups: `SourceOptions`, `FileOptions`, `ExportOptions`, `ExplainOptions`,
`QuantizeOptions`, `CompressOptions`, `MeasureOptions`, `RunOptions`, `ServeOptions`, `BenchOptions`, `ValidateOptions`; `Form`
says that a profile runs on synthetic data, or tiny.
`read_target("jetson-nano", "nano@jetson.local")` gives those that take a target a device with its address.
They are imported when first used, so that `import edgebench` costs nothing.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads it when it is imported, and would write to the user's folders, start threads and call home, from 1.29 on.
# Set, whatever it was: a thread beside the trials is no one's wish.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from edgebench.api import (
        bench_serve,
        compare,
        compress,
        convert_data,
        data_requirements,
        diagnose,
        explain,
        export,
        import_file,
        inspect_data,
        noise,
        probe,
        profiles,
        quantize,
        remove_setup,
        run,
        serve,
        setup,
        sweep,
        synthesize_data,
        track,
        train,
        trust_file,
        tune,
        validate,
        verify,
    )
    from edgebench.bundle.import_file import FileOptions
    from edgebench.config import read_target
    from edgebench.models.source import SourceOptions
    from edgebench.report.leaderboard import clean, find, leaderboard, listing, merge, recommend, report
    from edgebench.run.forms import Form
    from edgebench.run.options import (
        CompressOptions,
        ExplainOptions,
        ExportOptions,
        MeasureOptions,
        QuantizeOptions,
        RunOptions,
    )
    from edgebench.serving.bench import BenchOptions
    from edgebench.serving.options import ServeOptions
    from edgebench.validate.options import ValidateOptions

__version__ = "0.1.0"
__all__ = [
    "BenchOptions",
    "CompressOptions",
    "ExplainOptions",
    "ExportOptions",
    "FileOptions",
    "Form",
    "MeasureOptions",
    "QuantizeOptions",
    "RunOptions",
    "ServeOptions",
    "SourceOptions",
    "ValidateOptions",
    "__version__",
    "bench_serve",
    "clean",
    "compare",
    "compress",
    "convert_data",
    "data_requirements",
    "diagnose",
    "explain",
    "export",
    "find",
    "import_file",
    "inspect_data",
    "leaderboard",
    "listing",
    "merge",
    "noise",
    "probe",
    "profiles",
    "quantize",
    "read_target",
    "recommend",
    "remove_setup",
    "report",
    "run",
    "serve",
    "setup",
    "sweep",
    "synthesize_data",
    "track",
    "train",
    "trust_file",
    "tune",
    "validate",
    "verify",
]
RESULTS = ("clean", "find", "leaderboard", "listing", "merge", "recommend", "report")
"""The verbs that need no runtime."""


class Face(ModuleType):
    """The module, on which verbs stay functions when folders of their names are imported (`run`, `report`, …)."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a folder from taking its verb's place."""
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Face


def __getattr__(name: str) -> Any:
    """Import a verb when it is first asked for."""
    if name in RESULTS:
        from edgebench.report import leaderboard

        return getattr(leaderboard, name)
    if name in __all__:
        from edgebench import api
        from edgebench.bundle.import_file import FileOptions
        from edgebench.serving.bench import BenchOptions
        from edgebench.serving.options import ServeOptions
        from edgebench.validate.options import ValidateOptions

        groups = (BenchOptions, FileOptions, ServeOptions, ValidateOptions)
        own = {group.__name__: group for group in groups}
        return own[name] if name in own else getattr(api, name)
    raise AttributeError(f"module 'edgebench' has no attribute {name!r}")
