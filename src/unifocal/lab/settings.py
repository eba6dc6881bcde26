"""What the lab can be asked for: one flat set of named settings, checked before anything starts.

The same names stand on the command line (`--patch-overlap 0.25`), in a YAML file (`patch_overlap: 0.25`) and in a
protocol, and `SECTIONS` is the order in which people are shown them. Values may be texts, as a command line gives
them: numbers with commas become tuples, `none` is None.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from unifocal.lab.choices import Choice, LossChoice, NetworkChoice
from unifocal.lab.data.problems import suggest
from unifocal.lab.errors import LabError
from unifocal.lab.expectations import expected

SECTIONS = ("Comparison", "Data", "Preparation", "Patches", "Network", "Training", "Machine")


def _words(value: Any) -> Any:
    """Split a text at its commas; anything else is left to pydantic."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if isinstance(value, int | float) else value


def _losses(value: Any) -> Any:
    return LossChoice.parse_list(value) if isinstance(value, str) else _each(LossChoice, value)


def _networks(value: Any) -> Any:
    return NetworkChoice.parse_list(value) if isinstance(value, str) else _each(NetworkChoice, value)


def _each(kind: type[LossChoice] | type[NetworkChoice], value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return tuple(kind.parse(entry) if isinstance(entry, str) else entry for entry in value)


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("none", "null", "") else value


EXCLUSIVE = (("clip", "clip_percentiles"), ("size", "spacing"))
OF_ENGINES = {"address": ("Ray",), "gpus": ("Ray", "SLURM"), "slurm": ("SLURM",)}

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Sizes = Annotated[tuple[Positive, ...], BeforeValidator(_words), Field(min_length=1, max_length=3)]
Lengths = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_words), Field(min_length=1)]
Range = Annotated[tuple[float, float], BeforeValidator(_words)]
Names = Annotated[tuple[str, ...], BeforeValidator(_words)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Losses = Annotated[tuple[LossChoice, ...], BeforeValidator(_losses), Field(min_length=1)]
Networks = Annotated[tuple[NetworkChoice, ...], BeforeValidator(_networks), Field(min_length=1)]


def setting(section: str, default: Any, text: str) -> Any:
    """A field of `Settings`: where it stands, what it is without a word, what it means."""
    return Field(default, description=text, json_schema_extra={"section": section}, validate_default=False)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What does not go together, in words."""
    given = {name for name, value in values.items() if _none(value) is not None}
    pairs = [pair for pair in EXCLUSIVE if given.issuperset(pair)]
    found = [f"{one} and {other} exclude each other: set one of them to none" for one, other in pairs]
    engine = values.get("engine", "local")
    for name, engines in OF_ENGINES.items():
        if values.get(name) and str(engine) not in map(str.lower, engines):
            found.append(f"{name} says something to {' and '.join(engines)} alone, and engine is {engine}")
    return found


class Settings(BaseModel):
    """Everything that a comparison, or a single training, is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    protocol: str | None = setting(
        "Comparison", None, "A paper's settings to begin with, by name (`unifocal protocols`)."
    )
    losses: Losses = setting(
        "Comparison",
        LossChoice.parse_list("dice,tversky,unified-focal"),
        "Losses by name, with commas; arguments as in unified-focal:gamma=0.2:delta=0.7.",
    )
    networks: Networks = setting(
        "Comparison", NetworkChoice.parse_list("unet"), "Networks by name, with commas; arguments as in unet:width=32."
    )
    folds: Annotated[int, Field(ge=2)] = setting("Comparison", 5, "Folds of the cross-validation.")
    validation: Annotated[float, Field(gt=0, lt=1)] = setting(
        "Comparison", 0.2, "Share of the cases not tested on that chooses the best epoch."
    )
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(_words), Field(min_length=1)] = setting(
        "Comparison", (0,), "Of weights, order and augmentation; every seed is a training of its own, with commas."
    )
    split_seed: Seed = setting("Comparison", 0, "Who is in which fold.")
    division: Literal["dealt", "published", "whole"] = setting(
        "Comparison",
        "dealt",
        "Folds dealt anew, the folds or parts that were published with the data, or one training without a test.",
    )

    layout: str | None = setting(
        "Data", None, "How DATA is stored, by name (`unifocal layouts`); found out if not given."
    )
    groups: Path | None = setting("Data", None, "CSV that names the patient or group of each image.")
    splits: Path | None = setting("Data", None, "JSON of published folds, as nnU-Net and PI-CAI write it.")
    exclude: Names = setting("Data", (), "Cases to leave out, by id, with commas.")
    sequences: Names | None = setting(
        "Data", None, "Images of each case to use, by name, with commas; all if not given."
    )
    target: Names | None = setting(
        "Data", None, "One class to find, against all else: names of classes to unite, with commas, or of a region."
    )
    require_target: bool = setting("Data", False, "Leave out the cases that show none of the classes.")
    colour: bool = setting(
        "Data", False, "Keep the three channels of colour pictures, which are read as grey otherwise."
    )

    size: Sizes | None = setting(
        "Preparation", None, "Resize to this many pixels or voxels, one number or one for each axis. Pictures: 128."
    )
    spacing: Lengths | None = setting("Preparation", None, "Resample volumes to this spacing in mm, for each axis.")
    crop: Sizes | None = setting("Preparation", None, "Then cut or pad to this size around the centre.")
    clip: Range | None = setting("Preparation", None, "Clip intensities to two values, e.g. -79,304 HU.")
    clip_percentiles: Range | None = setting("Preparation", None, "Clip intensities to two percentiles of the image.")
    intensity: Literal["z-score-01", "z-score", "01", "none"] = setting(
        "Preparation", "z-score-01", "How each image is normalised: z-score, then to [0, 1], as in the papers."
    )

    patch: Sizes | None = setting(
        "Patches", None, "Train on random patches of this size; on whole images if not given."
    )
    patches_per_case: Positive = setting("Patches", 1, "Patches of each case in an epoch.")
    patch_foreground: Share = setting("Patches", 0.5, "Share of the patches that are centred on foreground.")
    patch_overlap: Annotated[float, Field(ge=0, lt=1)] = setting(
        "Patches", 0.5, "Of neighbouring windows when predicting, as a share of the patch."
    )
    patch_blend: Literal["gaussian", "constant"] = setting(
        "Patches", "gaussian", "How overlapping windows are weighted."
    )

    width: Positive | None = setting(
        "Network", None, "Channels of the first level, of networks that have a choice; each its own if not given."
    )
    deep_supervision: Literal["none", "papers", "nnunet", "monai-same", "monai-exp", "monai-two"] = setting(
        "Network", "none", "Losses at the decoder's lower scales, too, weighted by this rule."
    )
    initialisation: Literal["torch", "xavier", "he"] = setting("Network", "torch", "How first weights are drawn.")

    epochs: Positive = setting("Training", 20, "Epochs of each run.")
    steps: Positive | None = setting("Training", None, "Steps of an epoch; one pass over the cases if not given.")
    batch_size: Positive = setting("Training", 8, "Images or patches in a step.")
    accumulate: Positive = setting("Training", 1, "Steps whose gradients are added up before the weights change.")
    optimiser: Literal["sgd", "adam", "adamw"] = setting("Training", "sgd", "SGD has Nesterov momentum.")
    learning_rate: Annotated[float, Field(gt=0)] = setting("Training", 0.01, "Of the first epoch.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = setting("Training", 0.99, "Of SGD.")
    weight_decay: Annotated[float, Field(ge=0)] = setting("Training", 0.0, "Of the optimiser.")
    schedule: Literal["poly", "plateau", "cosine", "constant"] = setting(
        "Training", "poly", "Learning rate: (1 - epoch / epochs)^0.9, or by tenths where validation stands still."
    )
    patience: Positive = setting("Training", 10, "Epochs without a better validation loss before `plateau` acts.")
    early_stop: Positive | None = setting(
        "Training", None, "Stop after so many epochs without a better validation loss; never if not given."
    )
    keep: Literal["best", "last"] = setting("Training", "best", "Weights of the lowest validation loss, or the last.")
    clip_gradient: Annotated[float, Field(gt=0)] | None = setting("Training", None, "Largest norm of the gradient.")
    augment: bool = setting("Training", True, "Scale, rotate, mirror, deform, change gamma.")
    precision: Literal["32", "bf16", "16"] = setting("Training", "32", "Of the arithmetic; losses compute in 32 bits.")

    device: Literal["auto", "cpu", "cuda"] = setting("Machine", "auto", "auto takes a GPU where there is one.")
    devices: Positive = setting("Machine", 1, "Devices that share one run (DDP).")
    threads: Positive | None = setting("Machine", None, "Of the CPU; torch's choice if not given.")
    workers: Positive = setting("Machine", 1, "Runs at the same time, each in a process of its own.")
    engine: Literal["local", "ray", "slurm"] = setting("Machine", "local", "What the runs are handed to.")
    shard: str | None = setting(
        "Machine", None, "i/n: do the i-th of n equal parts of the runs here; for any other scheduler."
    )
    address: str | None = setting("Machine", None, "Of the Ray cluster; one is started here if not given.")
    gpus: Annotated[float, Field(ge=0)] | None = setting(
        "Machine", None, "GPUs of each run (Ray, SLURM); a fraction shares one GPU between runs of Ray."
    )
    slurm: Names = setting("Machine", (), "Words for SLURM: partition=gpu,time=600,mem_gb=16, ...")
    deterministic: bool = setting("Machine", False, "Refuse what is not repeatable to the bit on a GPU.")
    tensorboard: bool = setting("Machine", False, "Write curves for TensorBoard, too.")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """`none` is None where None may stand, and `seed` is `seeds`."""
        if not isinstance(values, dict):
            return values
        plain = dict(values)
        if "seed" in plain and "seeds" not in plain:
            plain["seeds"] = plain.pop("seed")
        optional = (name for name, field in cls.model_fields.items() if field.default is None)
        return plain | {name: _none(plain[name]) for name in optional if name in plain}

    @field_validator("protocol")
    @classmethod
    def _published(cls, protocol: str | None) -> str | None:
        from unifocal.lab.protocols import check_protocol

        check_protocol(protocol)
        return protocol

    @field_validator("layout")
    @classmethod
    def _known(cls, layout: str | None) -> str | None:
        from unifocal.lab.data.reading import check_layout

        check_layout(layout)
        return layout

    @field_validator("losses", "networks", "seeds")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        labels = [str(value) for value in values]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"expected each once; got {', '.join(twice)} twice")
        return values

    @field_validator("shard")
    @classmethod
    def _of_many(cls, shard: str | None) -> str | None:
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", shard or "1/1")
        if not found or int(found[1]) > int(found[2]):
            raise ValueError("expected i/n, with i from 1 to n, as in 1/4")
        return shard

    @field_validator("clip", "clip_percentiles")
    @classmethod
    def _rising(cls, values: tuple[float, float] | None) -> tuple[float, float] | None:
        if values is not None and values[0] >= values[1]:
            raise ValueError("expected two numbers, the lower one first")
        return values

    @model_validator(mode="after")
    def _together(self) -> Self:
        found = _contradictions(dict(self))
        if found:
            raise ValueError("; ".join(found))
        return self

    def section(self, name: str) -> dict[str, Any]:
        """The settings of a section, as JSON has them."""
        return self.model_dump(mode="json", include=set(names_of(name)))


def names_of(section: str) -> list[str]:
    """The settings of a section, in order."""
    return [name for name in Settings.model_fields if section_of(name) == section]


def section_of(name: str) -> str:
    extra = Settings.model_fields[name].json_schema_extra
    return str(extra["section"]) if isinstance(extra, dict) else ""


def changed(settings: Settings, default: Settings | None = None) -> dict[str, Any]:
    """The settings that differ from `default`, or from those of `Settings` itself."""
    default = default or Settings()
    return {
        name: getattr(settings, name)
        for name in Settings.model_fields
        if getattr(settings, name) != getattr(default, name)
    }


def text_of(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, dict):  # a choice, as JSON has it
        return Choice(**value).label
    return ",".join(text_of(part) for part in value) if isinstance(value, list | tuple) else str(value).strip()


Number = TypeVar("Number", int, float)


def each_axis(name: str, values: Sequence[Number], dimension: int) -> tuple[Number, ...]:
    """One number for each axis, from as many or from one for all; `name` is the setting they come from."""
    if len(values) not in (1, dimension):
        shown = ",".join(f"{value:g}" for value in values)
        raise LabError(f"{name}: expected one number, or {dimension}, one for each axis; got {shown}.")
    return tuple(values) * (dimension // len(values))


def make_settings(**values: Any) -> Settings:
    """Settings from plain values; every mistake is told at once, as a LabError."""
    return check_settings(values, {})


def check_settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    """Settings from plain values; every mistake is told at once, as a LabError.

    `origins` say where each value comes from, in the words of the message.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = {str(problem["loc"][0]): problem for problem in reversed(error.errors()) if problem["loc"]}
        lines = [_mistake(name, problem, values, origins) for name, problem in reversed(problems.items())]
        lines += [_with_origins(text, origins) for text in _contradictions(values)]
        raise LabError("these settings are impossible:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _mistake(name: str, problem: Any, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """Where a setting comes from, what it expects, what came, and what it is for."""
    where = origins.get(name, name)
    if where.split()[-1].lstrip("-").replace("-", "_") != name:  # an option says its name itself
        where = f"{where}: {name}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such setting.{suggest(name, Settings.model_fields)}"
    field, value = Settings.model_fields[name], values.get(name, problem["input"])
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
        return f"{where}: {text}" if "; got " in text else f"{where}: {text}; got {value!r}."
    return f"{where}: expected {expected(field)}; got {value!r}.{_help(name, field, value)}"


def _help(name: str, field: FieldInfo, value: Any) -> str:
    """A sentence for whoever gave a wrong value: the nearest word, a right value, or what the setting is for."""
    if get_origin(field.annotation) is Literal:
        return suggest(str(value), map(str, get_args(field.annotation)))
    if field.default in (None, ()):
        return f" {field.description}"
    return f" As in {name}={text_of(field.default).lower()}"


def _with_origins(text: str, origins: Mapping[str, str]) -> str:
    """Settings that do not go together, named in the text, and where each comes from."""
    said = [f"{name} from {origins[name]}" for name in dict.fromkeys(re.findall(r"\w+", text)) if name in origins]
    return f"{text} ({', '.join(said)})." if said else f"{text}."
