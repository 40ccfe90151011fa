"""One job per process: read an assignment from standard input, import what it needs, run it, exit.

Imports take most of a cold start, so a spare child does them ahead and waits. A closed standard input ends a spare.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.errors import AppError, InvalidInput, JobCancelled
from app.core.logs import set_up_logging
from app.core.masking import masking, remember
from app.core.secrets import SECRETS
from worker.artifacts.disk import describe_full_disk, is_disk_full
from worker.capabilities import hide_bitsandbytes, hide_kernels, hide_torch
from worker.context import Assignment, JobContext, hold_requests
from worker.limits import LIGHT_MEMORY_BYTES, ROWS_MEMORY_BYTES, MemoryLimit, limit_memory
from worker.own_code import allow_code
from worker.shortage import describe_shortage, find_shortage
from worker.spool import open_when_it_fits

logger = logging.getLogger(__name__)

_UNEXPECTED = (
    "This was not foreseen. The end of the job's log says where it happened: if it names a file, library or setting "
    "of yours, mend that and submit the job again; else report it together with the log."
)
_MOST_THREADS = 8  # that tokenize
_YIELDING = frozenset({"merge", "export"})  # work beside what trains: the GPU is not theirs, the processor's rest is
_NICENESS = 10  # of theirs: where both want a core, about a tenth of it
SPARE_FLAG = "--spare"  # import everything ahead of the assignment; what follows is a model to load ahead

# kind of job -> module:function, called with the JobContext; it returns the job's summary.
JOB_FUNCTIONS: dict[str, str] = {
    "train": "worker.training.train:run_training",
    "merge": "worker.artifacts.merge:run_merge",
    "adapter": "worker.adapters.importer:run_adapter_import",
    "export": "worker.exports.job:run_export_job",
    "import": "worker.imports:run_import",
    "playground": "worker.inference.playground:run_playground",
    "check": "worker.datasets.check:run_check",
    "preview": "worker.datasets.preview:run_preview",
}


def find_job_function(kind: str) -> Callable[[JobContext], dict[str, Any]]:
    """Raises: KeyError for a kind that no child runs."""
    module_name, _, function_name = JOB_FUNCTIONS[kind].partition(":")
    function: Callable[[JobContext], dict[str, Any]] = getattr(importlib.import_module(module_name), function_name)
    gc.freeze()  # imported modules hold millions of objects that stay; looking through them slows a model's load
    return function


def run_assignment(assignment: Assignment) -> int:
    """Run one job; what happened goes into the spool. Returns the exit code: 0 unless the job failed."""
    spool = open_when_it_fits(Path(assignment.spool))
    allow_code(assignment.payload)
    context = JobContext(assignment, spool)
    context.listen()
    if assignment.light:
        limit_memory(_memory_for(assignment))
    try:
        summary = find_job_function(assignment.kind)(context)
    except JobCancelled as cancelled:
        spool.finished("cancelled", summary=cancelled.summary)
        return 0
    except Exception as error:
        expected = isinstance(error, AppError)  # its message says all; where in our code it was found helps nobody
        logger.error("job %s failed: %s", assignment.job_id, error, exc_info=None if expected else error)
        spool.finished("failed", error={**describe_error(error, light=assignment.light), **_examine(context, error)})
        return 1
    finally:
        _flush_log()
    spool.finished("completed", summary=summary)
    spool.close()
    return 0


def _flush_log() -> None:
    """What a full disk does not take of the log is lost; the job's outcome is not to be lost with it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not is_disk_full(error):
            raise


def _memory_for(assignment: Assignment) -> int:
    """How much a light process may take: a check of rows alone loads no tokenizer."""
    alone = assignment.kind == "check" and not assignment.payload.get("base_model")
    return ROWS_MEMORY_BYTES if alone else LIGHT_MEMORY_BYTES


def describe_error(error: Exception, *, light: bool = False) -> dict[str, Any]:
    """The error as the job page shows it: kind, message, advice. A `light` child has a limit on its own memory."""
    shortage = find_shortage(error)
    if shortage is not None and not light:
        error = describe_shortage(shortage, error)
    if isinstance(error, MemoryError):
        advice = "Rows or files of this size are not taken; split them."
        error = MemoryLimit("It asked for more memory than its process may have.", advice=advice)
    if not isinstance(error, AppError) and is_disk_full(error):
        error = describe_full_disk(error)
    if isinstance(error, AppError):
        faults = {"faults": error.to_json()["faults"]} if isinstance(error, InvalidInput) else {}
        return {"kind": error.code, "message": error.message, "advice": error.advice, **faults}
    return {"kind": type(error).__name__, "message": str(error) or type(error).__name__, "advice": _UNEXPECTED}


def _examine(context: JobContext, error: Exception) -> dict[str, Any]:
    """{autopsy: {memory, reason, batch, allocator}} where a lack of memory ended the job; the worker completes it."""
    shortage = find_shortage(error)
    if shortage is None or context.assignment.light:
        return {}
    found = {"memory": shortage.value, "reason": str(error)[:2000], "batch": context.in_hand.last, "allocator": None}
    if "torch" in sys.modules:
        try:
            found["allocator"] = importlib.import_module("worker.training.autopsy").describe_allocator(error)
        except RuntimeError:  # CUDA may be beyond answering; what is known is told all the same
            logger.exception("the allocator cannot be read")
    return {"autopsy": found}


def prepare_process() -> None:
    """Settings that libraries read when they are imported: no telemetry, no progress bars, threads that wait quietly.

    OpenMP's threads otherwise spin while they wait; where other processes want the cores, a training step then takes
    several times as long (19M parameters on two busy cores: 20 s against 5 s).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # fewer fragments, as the plan counts them
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing is compiled; spares bitsandbytes 1.2 s of imports
    hide_bitsandbytes()
    hide_kernels()
    warnings.simplefilter("ignore", FutureWarning)  # between libraries; nothing a reader of a job's log can act on
    faulthandler.enable()


def _use_threads_to_tokenize() -> None:
    """In a process that does little else, and forks no other."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ.setdefault("RAYON_NUM_THREADS", str(min(os.cpu_count() or 1, _MOST_THREADS)))


def _send_output_to(log: Path) -> None:
    """Point stdout and stderr at the job's log, so that no pipe can block training."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout, sys.stderr = masking(sys.stdout), masking(sys.stderr)


def _take_secrets(secrets: Mapping[str, str]) -> None:
    """Into this process' environment, where libraries look for them; what is printed shows them masked."""
    for name, secret in secrets.items():
        remember(secret)
        os.environ[SECRETS[name][0]] = secret


def _get_ready(models: Sequence[str]) -> None:
    """What takes long and is the same for every job, and for most jobs that follow others; see `worker.warm_up`."""
    for target in JOB_FUNCTIONS.values():
        importlib.import_module(target.partition(":")[0])
    importlib.import_module("worker.warm_up").warm_up()
    for folder in models:
        importlib.import_module("worker.training.preload").preload(Path(folder))


def main() -> int:
    hold_requests()
    prepare_process()
    if SPARE_FLAG in sys.argv:
        _get_ready(sys.argv[sys.argv.index(SPARE_FLAG) + 1 :])
    line = sys.stdin.readline()
    if not line.endswith("\n"):  # the worker has ended, maybe in the middle of the line
        return 0
    assignment = Assignment.from_line(line)
    _take_secrets(assignment.secrets)
    if assignment.kind in _YIELDING:
        os.nice(_NICENESS)
    if assignment.kind in _YIELDING or assignment.payload.get("device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the GPU is another job's: not even a context of this one on it
    if assignment.light:
        hide_torch()
        _use_threads_to_tokenize()
    _send_output_to(Path(assignment.log))
    set_up_logging("INFO", sys.stdout)
    return run_assignment(assignment)


if __name__ == "__main__":
    sys.exit(main())
