"""One of the processes that share a training, as `_processes` starts them: `python -m edgebench.recipes._worker JOB`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgebench.data import open_images
from edgebench.errors import EdgebenchError
from edgebench.recipes import Job, _processes, make_model
from edgebench.schema import DatasetRef, InputPlan

FAILED = 1


def main(path: Path) -> int:
    """Make the model of a job; the last line says what was raised on purpose, and the file beside it how far it is."""
    given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    with path.with_suffix(".progress").open("a", encoding="utf-8") as stream:

        def progress(what: str, done: float, total: float, lane: str = "") -> None:
            if _processes.is_first():
                stream.write(json.dumps([what, done, total]) + "\n")
                stream.flush()

        try:
            make_model(str(given.pop("recipe")), _job(given, progress), Path(given.pop("root")))
        except EdgebenchError as error:
            sys.stdout.write(json.dumps({"error": type(error).__name__, "text": str(error)}) + "\n")
            return FAILED
    return 0


def _job(given: dict[str, Any], progress: Any) -> Job:
    return Job(
        name=given["name"],
        architecture=given["architecture"],
        role=given["role"],
        dataset=open_images(DatasetRef.model_validate(given["dataset"])),
        input=InputPlan.model_validate(given["input"]),
        options=given["options"],
        teacher=None if given["teacher"] is None else Path(given["teacher"]),
        progress=progress,
        trust=given["trust"],
        parent=None if given["parent"] is None else Path(given["parent"]),
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
