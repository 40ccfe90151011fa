"""A chat template is foreign code: it may take seconds and memory, but not without end."""

from __future__ import annotations

from typing import Any, ClassVar

from app.core.errors import JobError
from worker.limits import TookTooLong, limited
from worker.training.reading import Messages

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
        try:
            with limited(SECONDS, what):
                text = render(messages, **options)
        except TookTooLong as error:
            raise TemplateFault(error.message, advice=_ADVICE) from error
        except MemoryError as error:
            raise TemplateFault(f"{what} asks for more memory than it may have.", advice=_ADVICE) from error
        except RecursionError as error:
            raise TemplateFault(f"{what} calls itself without end.", advice=_ADVICE) from error
        length = sum(len(message["content"]) for message in messages)
        if len(text) > _FREE_CHARACTERS + _GROWTH * length:
            grown = f"{what} makes {len(text):,} characters of a conversation of {length:,}."
            raise TemplateFault(grown, advice=_ADVICE)
        return text

    tokenizer.apply_chat_template = guarded


_ADVICE = "Look at chat_template in the model's tokenizer_config.json, or at its chat_template.jinja; mend it there."
