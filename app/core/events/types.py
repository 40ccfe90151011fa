"""The kinds of event that the stream carries, and what `data` holds in each."""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    """In short where they stand; docs/events.md says what each field means, and a test holds the two equal."""

    STATUS = "status"  # {status, name, kind, error, paused}: a job entered a state, was moved, paused or resumed
    QUEUE = "queue"  # {paused, pause_reason, on_failure}: the queue's own settings; of no job
    PHASE = "phase"  # {phase}: load, tokenize, train, eval, save, …: another part of the work began
    PROGRESS = "progress"  # {max_steps, eta_seconds}, with `step`
    METRIC = "metric"  # {loss: 1.2, learning_rate: 2e-4, …}, with `step`
    GPU = "gpu"  # a reading: {available, reason, devices, host}; of the job that runs then, if any
    LOG = "log"  # {lines: [text, …]}
    SAMPLE = "sample"  # {prompt, text, model: base | tuned}, with `step`
    PIECE = "piece"  # {turn, side, at, text, tokens}: more of an answer in a chat; gone once the answer is complete
    ANSWER = "answer"  # {turn, side, done, text, tokens, stop_reason, seconds, error}: a side's answer in a chat
    ARTIFACT = "artifact"  # {kind, bytes}: an adapter, a model, a checkpoint or a merged model is ready
    FINISHED = "finished"  # {status, name, kind, error, summary}: nothing follows for this job
    PRUNED = "pruned"  # {through}: older events were dropped, up to an id
