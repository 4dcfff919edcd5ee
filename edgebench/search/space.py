"""What a search for the best way to compress a model may choose, and the profile that says how a choice is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgebench import plugins
from edgebench.bundle.export import exporter
from edgebench.errors import InputError, MissingExtra
from edgebench.models import PROGRAM
from edgebench.schema import DatasetRef, Exporter, Goals, InputPlan, Model, ModelPlan, Profile, Scenario, Target, Variant

SAME = "same"
"""In place of a student's architecture: the network that was given."""
RATIOS = (0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
ALPHAS = (0.0, 0.7)
"""Shares of a teacher's say: none, and what `distill` usually has."""
STUDENTS = ("cnn", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mobilenet_v2", "squeezenet1_1", "resnet18")
"""What may be distilled unless students are named, where it has fewer multiply-accumulates than the network that was given."""
RECIPES = ("train", "distill", "prune", "qat")
"""What a chain is made of, in this order."""
SHORT = 18
"""So many characters of a name stand in the names of what is made of it."""


@dataclass(frozen=True)
class File:
    """What a network is written as."""

    format: str
    precision: str
    learned: bool = False
    """Whether it is trained for INT8 before."""

    @property
    def name(self) -> str:
        """Name it as the study does."""
        return f"{self.format} {self.precision}{' qat' if self.learned else ''}"


@dataclass(frozen=True)
class Choice:
    """One way to compress a model."""

    student: str
    """An architecture that is trained in the place of the given network, or `SAME`."""
    ratio: float
    """Share of channels taken out; 0: none."""
    alpha: float
    """Share of the teacher's say while a student or a pruned network is trained."""
    file: File

    @property
    def trains(self) -> bool:
        """Return whether anything is trained for it."""
        return self.student != SAME or self.ratio > 0 or self.file.learned

    @property
    def network(self) -> tuple[str, float]:
        """Return what its shapes depend on."""
        return self.student, self.ratio

    def told(self) -> str:
        """Say what is done, in a few words."""
        taught = f", taught {self.alpha:g}" if self.alpha and (self.student != SAME or self.ratio) else ""
        steps = [f"student {self.student}"] if self.student != SAME else []
        steps += [f"prune {self.ratio:g}"] if self.ratio else []
        steps += ["qat"] if self.file.learned else []
        return f"{' + '.join(steps) or 'as it is'}{taught}, {self.file.format} {self.file.precision}"


@dataclass(frozen=True)
class Space:
    """All that may be chosen."""

    students: tuple[str, ...]
    """Without `SAME`, which is always there."""
    ratios: tuple[float, ...]
    alphas: tuple[float, ...]
    files: tuple[File, ...]

    def choice(self, params: Mapping[str, Any]) -> Choice:
        """Read the study's parameters; a teacher's say is none where nothing is taught."""
        file = next(each for each in self.files if each.name == params["file"])
        student, ratio = str(params["student"]), self.ratios[params["ratio"]]
        return Choice(student, ratio, self.alphas[params["alpha"] if student != SAME or ratio else 0], file)

    def params(self, choice: Choice) -> dict[str, Any]:
        """Return a choice as the study's parameters: shares by their places, which are in order."""
        places = {"ratio": self.ratios.index(choice.ratio), "alpha": self.alphas.index(choice.alpha)}
        return {"student": choice.student, **places, "file": choice.file.name}

    def every(self) -> Iterator[Choice]:
        """List all that can be told apart."""
        for student in (SAME, *self.students):
            for ratio in self.ratios:
                for alpha in self.alphas if student != SAME or ratio else self.alphas[:1]:
                    yield from (Choice(student, ratio, alpha, file) for file in self.files)

    def single(self, pruned: float) -> dict[str, Choice]:
        """List what one recipe alone makes, by what it is called: each file of the network as it is, then what is trained.

        Those that are trained are written in each format's first precision, or for INT8. pruned: the ratio that a
        pruning takes unless it is told.
        """
        none, most = self.alphas[0], self.alphas[-1]
        first = {file.format: file for file in reversed(self.files) if not file.learned}
        firsts = list(reversed(first.values()))
        found = {f"export {each.name}": Choice(SAME, 0.0, none, each) for each in self.files if not each.learned}
        found |= {f"qat {each.format}": Choice(SAME, 0.0, none, each) for each in self.files if each.learned}
        nearest = min(self.ratios, key=lambda ratio: abs(ratio - pruned))
        if nearest:
            found |= {f"prune {each.format}": Choice(SAME, nearest, none, each) for each in firsts}
        if self.students:
            found |= {f"distill {each.format}": Choice(self.students[0], 0.0, most, each) for each in firsts}
        return found


def files(target: Target, formats: Sequence[str], trains: bool, mixed: bool) -> tuple[tuple[File, ...], list[str]]:
    """List what the target runs and can be written here, in the order of its file; and say what is left out.

    formats: only these, all unless given. trains: also what is trained for INT8. mixed: also mixtures of precisions.
    """
    found: list[File] = []
    missing: dict[str, str] = {}
    for accepts in target.accepts:
        if formats and accepts.format not in formats:
            continue
        for precision in accepts.precisions:
            try:
                plugin: Any = exporter(accepts.format, precision)
            except MissingExtra as error:
                missing[accepts.format] = str(error)
                continue
            if plugins.declared(plugin, "BROUGHT", Exporter.BROUGHT):
                continue
            mixes = plugins.declared(plugin, "mixer", Exporter.mixer) is not None and precision == "mixed"
            if precision == "mixed" and not (mixes and mixed):
                continue
            found.append(File(accepts.format, precision))
            if trains and precision in plugin.CALIBRATES and not mixes:
                found.append(File(accepts.format, precision, learned=True))
    strange = sorted(set(formats) - {accepts.format for accepts in target.accepts})
    if strange:
        runs = ", ".join(dict.fromkeys(accepts.format for accepts in target.accepts))
        raise InputError(f"{target.name} does not run {', '.join(strange)}; it runs {runs}")
    return tuple(dict.fromkeys(found)), [f"left out: {reason}" for reason in missing.values()]


@dataclass(frozen=True)
class Source:
    """What is compressed, and how what comes of it is trained and measured."""

    folder: str
    model: Model
    dataset: DatasetRef
    target: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each recipe."""

    @property
    def trains(self) -> bool:
        """Return whether recipes can take it up: a network with weights of its own, of one square image."""
        spec = self.model.inputs[0].preprocessing if len(self.model.inputs) == 1 else None
        return self.model.architecture != PROGRAM and spec is not None and spec.height == spec.width

    def profile(self, choice: Choice, number: int) -> Profile:
        """Say how a choice is made, exported and measured; the last of its models is the one."""
        spec = self.model.preprocessing
        return Profile(
            name=f"trial-{number}",
            dataset=self.dataset,
            input=InputPlan(size=spec.height, channels=spec.channels),
            models=self.models(choice),
            variants=(Variant(format=choice.file.format, precisions=(choice.file.precision,)),),
            targets=(self.target,),
            scenario=Scenario(),
            goals=Goals(max_degradation=None),
        )

    def models(self, choice: Choice) -> tuple[ModelPlan, ...]:
        """List what is made for a choice, each after what it is made of."""
        model = self.model
        chain = [
            ModelPlan(name=model.name, architecture=model.architecture, role=model.role, checkpoint=self.folder, recipe=None)
        ]
        if choice.student != SAME:
            chain.append(self._student(choice))
        if choice.ratio:
            taught = {"alpha": choice.alpha} if choice.alpha else {}
            given = {"ratio": choice.ratio, "control": False, **taught, **self._options("prune")}
            tail = f"p{choice.ratio:g}{_share(choice.alpha)}"
            chain.append(_next(chain[-1], tail, role="pruned", recipe="prune", options=given))
        if choice.file.learned:
            given = {"control": False, **self._options("qat")}
            chain.append(_next(chain[-1], "qat", role="quantized", recipe="qat", options=given))
        return tuple(chain)

    def _student(self, choice: Choice) -> ModelPlan:
        """Distil, or train on labels alone where the teacher has no say."""
        recipe = "distill" if choice.alpha else "train"
        name = f"{self.model.name[:SHORT]}-{plain(choice.student)[:SHORT]}{_share(choice.alpha)}"
        given = {**({"alpha": choice.alpha} if choice.alpha else {}), **self._options(recipe)}
        teacher = self.model.name if choice.alpha else None
        made: dict[str, Any] = {"recipe": recipe, "teacher": teacher, "options": given}
        return ModelPlan(name=name, architecture=choice.student, role="student", **made)

    def _options(self, recipe: str) -> dict[str, Any]:
        return dict(self.options.get(recipe, {}))


def _next(before: ModelPlan, tail: str, **made: Any) -> ModelPlan:
    """Plan a model that is made of the one before it."""
    whole = before.name if before.checkpoint is None else before.name[:SHORT]
    return ModelPlan(name=f"{whole}-{tail}", architecture=before.architecture, parent=before.name, **made)


def _share(alpha: float) -> str:
    return f"-t{alpha:g}" if alpha else ""


def plain(text: str) -> str:
    """Make a part of a name of any text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
