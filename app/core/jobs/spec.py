"""TrainingSpec: the one source of every hyperparameter, for the form, the API, the CLI and the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import yaml
from pydantic import ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec_faults import combination_faults, describe_faults, is_expression
from app.core.jobs.spec_fields import LoraFields, MethodFields, PreferenceFields, QuantisationFields, SourceFields
from app.core.jobs.spec_run_fields import LoggingFields, OptimizerFields, RowFields
from app.core.strict_yaml import load_yaml

# Where the method or the task wants another default than the field's own.
METHOD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "qlora": {"optim": "paged_adamw_8bit"},
    "full": {"learning_rate": 2e-5},
}
TASK_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "dpo": {"learning_rate": 5e-5},
    "text": {"overlong_rows": "split"},
}
# Together they may want yet another one. Preference training of every weight is usually done at 5e-7 to 5e-6.
_DEFAULTS_TOGETHER: Mapping[tuple[str, str], Mapping[str, Any]] = {("full", "dpo"): {"learning_rate": 1e-6}}


def own_defaults(method: str, task: str) -> dict[str, Any]:
    """What this method and this task want where nothing was given, unless the fields' own defaults suit them."""
    together = _DEFAULTS_TOGETHER.get((method, task), {})
    return {**TASK_DEFAULTS.get(task, {}), **METHOD_DEFAULTS.get(method, {}), **together}


class TrainingSpec(  # pydantic takes the fields of the last base first
    LoggingFields,
    OptimizerFields,
    RowFields,
    PreferenceFields,
    QuantisationFields,
    LoraFields,
    MethodFields,
    SourceFields,
):
    """Everything that decides a training run. Names are peft's and transformers'."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """In YAML `yes` and `on` are true, which pydantic would take for 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise PydanticCustomError("bool_as_number", "Input should be a number")
        return value

    @field_validator("base_model", "dataset", "init_adapter", mode="before")
    @classmethod
    def _take_ids(cls, value: Any) -> Any:
        """An id in YAML or JSON is a number."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _check_patterns(cls, value: Any) -> Any:
        """Names are regular expressions; a boolean is no number."""
        if not isinstance(value, Mapping):
            return value
        for name, number in value.items():
            if isinstance(number, bool) or not is_expression(name):
                raise PydanticCustomError("pattern", "Input should be names or regular expressions, each with a number")
        return value

    @model_validator(mode="before")
    @classmethod
    def _take_defaults_of_method_and_task(cls, values: Any) -> Any:
        """What is not given follows the method and the task where the usual default would not suit them."""
        if not isinstance(values, Mapping):
            return values
        return {**own_defaults(str(values.get("method")), str(values.get("task"))), **values}

    def to_yaml(self) -> str:
        """The job YAML that reproduces this spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_spec(values: Mapping[str, Any]) -> TrainingSpec:
    """Validate plain values. Raises: InvalidInput with every fault at once, each with its field."""
    try:
        spec = TrainingSpec.model_validate(dict(values))
    except ValidationError as error:
        faults = describe_faults(error.errors(), TrainingSpec.model_fields)
        raise InvalidInput([*faults, *_faults_of_the_rest(values, {fault.field for fault in faults})]) from None
    faults = combination_faults(spec)
    if faults:
        raise InvalidInput(faults)
    return spec


def _faults_of_the_rest(values: Mapping[str, Any], faulty: set[str]) -> list[Fault]:
    """What cannot go together among the fields that are right alone; nothing where task or method is not known."""
    if faulty & {"task", "method"}:
        return []
    right = {name: values[name] for name in TrainingSpec.model_fields if name in values and name not in faulty}
    return combination_faults(TrainingSpec.model_validate({"base_model": "?", "dataset": "?", **right}))


def parse_yaml(text: str) -> TrainingSpec:
    """Read and validate a job YAML. Raises: InvalidInput."""
    return parse_spec(read_yaml(text))


def read_yaml(text: str) -> dict[str, Any]:
    """A job YAML's values, not yet validated. Raises: InvalidInput."""
    try:
        values = load_yaml(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InvalidInput(f"This is not valid YAML: {reason}", field="yaml") from None
    if not isinstance(values, dict):
        raise InvalidInput("A job YAML is a mapping of field: value.", field="yaml")
    return {str(key): value for key, value in values.items()}
