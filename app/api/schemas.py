"""What the JSON API takes and gives. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from app.core.datasets.formats import FORMATS
from app.core.datasets.models import DatasetStatus
from app.core.jobs.sampling import Sampling
from app.core.jobs.status import OnFailure
from app.core.table import MAX_ID


class Out(BaseModel):
    """Read from a table's row by attribute names."""

    model_config = ConfigDict(from_attributes=True)


class JobOut(Out):
    id: int
    name: str
    kind: str
    status: str
    phase: str | None
    step: int
    max_steps: int | None
    eta_seconds: float | None
    error: dict[str, Any] | None
    spec: dict[str, Any]
    summary: dict[str, Any]
    attempts: int
    source_job_id: int | None
    sweep_id: int | None = Field(description="Of the first job of the sweep that it is part of.")
    cancel_requested: bool
    save_requested: bool = Field(description="It is to stop early, and save what was trained.")
    save_now_requested: bool = Field(description="A checkpoint is asked for.")
    sample_now_requested: bool = Field(description="Answers to its sample prompts are asked for.")
    paused: bool = Field(
        description="It waits until it is resumed; while it is active, it is to save its state and end."
    )
    pause_reason: dict[str, Any] | None = Field(description="{kind, message, advice}; null where somebody paused it.")
    held_up: dict[str, Any] | None = Field(
        description="{kind, message, since}: what its process waits for in mid-run: `stalled` (a step does not end) or "
        "`disk_full`; null where it works."
    )
    tags: list[str]
    notes: str
    queued_by: str | None = Field(description="The user who queued it; null where it was the box itself.")
    created_at: float
    started_at: float | None
    finished_at: float | None


class JobPage(BaseModel):
    jobs: list[JobOut]
    total: int
    page: int
    pages: int


class DatasetOut(Out):
    """What its rows are is null until they are there."""

    id: int
    name: str
    status: str = Field(description="importing, ready or failed.")
    error: str | None = Field(description="Why the import failed, and what to do.")
    source: dict[str, Any] = Field(description="{kind: file, filename} or {kind: hub, hub_id, revision, split, …}.")
    columns: dict[str, str] = Field(description="Mapped by hand: a field of the format → a column of the file.")
    format: str | None
    kind: str | None = Field(description="What training reads: messages, text or preference.")
    rows: int | None
    bytes: int | None
    sha256: str | None = Field(description="Of the file as it came; of several files, of their bytes in a row.")
    created_at: float

    @model_validator(mode="after")
    def _without_what_is_not_known(self) -> Self:
        if self.status != DatasetStatus.READY:
            self.format = self.kind = self.rows = self.bytes = self.sha256 = None
        return self

    @computed_field(description="The fields by which the format was recognised.")  # type: ignore[prop-decorator]
    @property
    def recognised_by(self) -> list[str]:
        return list(FORMATS[self.format].required) if self.format in FORMATS else []


class PendingDatasetOut(DatasetOut):
    """A dataset whose rows are not checked yet, and the job that does it."""

    job_id: int
    message: str
    advice: str | None


class ModelOut(Out):
    id: int
    name: str
    status: str
    path: str | None
    architecture: str | None
    parameters: int | None
    bytes: int | None
    max_length: int | None
    linear_modules: list[str]
    has_chat_template: bool
    needs_code: bool = Field(description="It comes with Python code, which an admin has to allow: see its `code`.")
    error: str | None


class CodeFileOut(BaseModel):
    path: str
    bytes: int
    sha256: str
    text: str = Field(description="Characters that cannot be seen are spelled out, such as `\\u202e`.")


class CodeConsentOut(Out):
    sha256: str
    revision: str | None
    given_by: str
    given_at: float
    withdrawn_by: str | None
    withdrawn_at: float | None


class ModelCodeOut(BaseModel):
    needed: bool
    sha256: str | None = Field(description="Of all files and the hub's revision: what is allowed. Null for no code.")
    revision: str | None
    files: list[CodeFileOut]
    allowed: bool = Field(description="Whether an admin has allowed just these files.")
    change: str | None = Field(description="What of the files is not as it was allowed.")
    consents: list[CodeConsentOut] = Field(description="All that were given, the newest first.")


class ArtifactOut(Out):
    id: int
    kind: str
    job_id: int
    step: int | None
    bytes: int
    files: list[dict[str, Any]]
    verified: bool | None
    certificate: dict[str, Any] | None
    kept: bool = Field(description="Of a checkpoint: it stays, however many come after it.")
    created_at: float


class FreedOut(Out):
    freed_bytes: int


class SubmitIn(BaseModel):
    """A TrainingSpec as values or as YAML text, one of the two."""

    model_config = ConfigDict(extra="forbid")

    spec: dict[str, Any] | None = None
    yaml: str | None = None
    name: str | None = Field(None, max_length=200)


class SweepIn(SubmitIn):
    """A spec, and the fields that vary: a job for each combination of their values."""

    over: dict[str, list[Any]] = Field(description="{field: [value, …]}; 64 jobs at most.")
    dry_run: bool = Field(False, description="Only say what would be queued, with each job's fit and time.")
    vram_gb: float | None = Field(None, gt=0, le=10_000, description="A card to hold the plans against, in GiB.")


class RecipeIn(BaseModel):
    """A training file, of Loradeck or of another program."""

    model_config = ConfigDict(extra="forbid")

    yaml: str
    source: str = Field("auto", description="auto, loradeck, axolotl or llama-factory.")


class AddModelIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, description="A folder under an allowed root, a GGUF file there, or a hub id.")
    name: str | None = Field(None, min_length=1, max_length=120)


class AddHubDatasetIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hub_id: str = Field(description="owner/name on the Hugging Face hub.")
    config: str | None = Field(None, description="Needed where the repository has several.")
    split: str | None = Field(None, description="Needed where the config has several.")
    revision: str | None = Field(None, description="A branch, tag or commit; the commit that it is now is kept.")
    columns: dict[str, str] = Field(default={}, description="Mapped by hand: a field of a format → a column.")
    name: str | None = Field(None, min_length=1, max_length=120, description="Default: the name in the hub id.")


class DescribeIn(BaseModel):
    """What people write beside a job; what is not given stays."""

    model_config = ConfigDict(extra="forbid")

    tags: list[str] | None = Field(None, max_length=100)
    notes: str | None = None


class CancelIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    save: bool = Field(False, description="Stop early, but save what was trained.")


class KeepIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kept: bool = Field(True, description="False lets it go with the others again.")


class PushIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    repo: str = Field(description="`owner/name` on the hub.")
    private: bool = True
    existing: bool = Field(False, description="Add a commit to a repository that holds files; else it is refused.")


class RetryIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_step: int = Field(0, ge=0, le=MAX_ID, description="Of a kept training state; 0: from the start.")


class ExtendIn(BaseModel):
    """How much longer to train, one of the two."""

    model_config = ConfigDict(extra="forbid")

    epochs: float | None = Field(None, gt=0, le=10_000, description="Passes over the training rows.")
    steps: int | None = Field(None, ge=1, le=10_000_000, description="Optimizer steps.")


class StateOut(Out):
    step: int
    bytes: int
    saved_at: float


class QueueIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    on_failure: OnFailure = Field(description="What follows a failed training: continue, or pause the queue.")


class QueueOut(Out):
    paused: bool = Field(description="Whether no training and no answer on the GPU starts; all else goes on.")
    pause_reason: dict[str, Any] | None = Field(description="{kind, message, job_id}; null where somebody paused it.")
    on_failure: OnFailure


class CloneIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200, description="Default: the name of the job that is cloned.")


class ChangeIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    change: str = Field(max_length=100, description="The key of one of the autopsy's changes.")


class MoveIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: int = Field(ge=1, le=1_000_000, description="Place in the queue, from 1; beyond the end: the last one.")


class ExportIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str = Field("gguf", description="gguf, with an Ollama Modelfile beside it.")
    quantization: str = Field("q8_0", description="f16 or q8_0.")


class MergeIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dtype: str = Field("bf16", description="Of the merged weights: bf16, fp16 or fp32.")
    onto: str = Field(
        "trained",
        description="Of a QLoRA adapter: trained (the dequantised base that it was trained on) or original (the "
        "weights that this was quantised from: another model than the one that was evaluated).",
    )
    checkpoint: int | None = Field(None, ge=0, le=MAX_ID, description="A kept checkpoint's step; none: the adapter.")


class GenerateIn(Sampling):
    """One question, and how to answer it."""

    prompt: str = ""
    messages: list[Any] | None = Field(
        None, description="In the prompt's place: [{role, content}], the last one the user's."
    )
    base: bool = Field(False, description="Ask the base model, as it was before training.")
    system: str = Field("", description="A system prompt; empty leaves it to the model's chat template.")
