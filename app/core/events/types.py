"""The kinds of event that the stream carries, and what `data` holds in each."""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    """Documented where they stand; docs/events.md repeats nothing but points here."""

    STATUS = "status"  # {status, name, kind, error?}: a job entered a state
    PHASE = "phase"  # {phase}: download, load, tokenize, train, eval, save, merge, verify, convert, generate
    PROGRESS = "progress"  # {max_steps, eta_seconds}, with `step`
    METRIC = "metric"  # {loss: 1.2, learning_rate: 2e-4, …}, with `step`
    GPU = "gpu"  # a reading: {available, reason, devices, host}; of the job that runs then, if any
    LOG = "log"  # {lines: [text, …]}
    SAMPLE = "sample"  # {prompt, text, model: base | tuned}, with `step`
    ARTIFACT = "artifact"  # {kind, bytes}: an adapter, a checkpoint or a merged model is ready
    FINISHED = "finished"  # {status, summary, error}: nothing follows for this job
