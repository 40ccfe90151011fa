"""A chat template is foreign code: it may take seconds and memory, but not without end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from jinja2 import TemplateError

from app.core.errors import JobError
from worker.limits import TookTooLong, limited
from worker.training.reading import Messages
from worker.training.rendering import fix_date

SECONDS = 1.5  # for one rendering
_FREE_CHARACTERS = 1_000_000  # that a rendering may have in any case
_GROWTH = 16  # and so many for each character of the conversation


class TemplateFault(JobError):
    """The chat template cannot be used."""

    code: ClassVar[str] = "chat_template"


def guard_template(tokenizer: Any, model: str) -> None:
    """From here on `apply_chat_template` of this tokenizer raises TemplateFault where it takes far more than it needs.

    What breaks it off is in `worker.limits`: a step that cannot be broken off ends the process.
    """
    render = tokenizer.apply_chat_template
    what = f"The chat template of {model}"

    def guarded(messages: Messages, **options: Any) -> Any:
        with _bounded(what):
            text = render(messages, **options)
        length = sum(len(message["content"]) for message in messages)
        if len(text) > _FREE_CHARACTERS + _GROWTH * length:
            grown = f"{what} makes {len(text):,} characters of a conversation of {length:,}."
            raise TemplateFault(grown, advice=_ADVICE)
        return text

    with _bounded(what), suppress(TemplateError, ValueError):  # a broken template, or none, is told where it is used
        fix_date(tokenizer)  # compiles it, which computes its constants
    tokenizer.apply_chat_template = guarded


@contextmanager
def _bounded(what: str) -> Iterator[None]:
    """Raises: TemplateFault where the block takes too long, too much memory or calls itself without end."""
    try:
        with limited(SECONDS, what):
            yield
    except TookTooLong as error:
        raise TemplateFault(error.message, advice=_ADVICE) from error
    except MemoryError as error:
        raise TemplateFault(f"{what} asks for more memory than it may have.", advice=_ADVICE) from error
    except RecursionError as error:
        raise TemplateFault(f"{what} calls itself without end.", advice=_ADVICE) from error


_ADVICE = "Look at chat_template in the model's tokenizer_config.json, or at its chat_template.jinja; mend it there."
