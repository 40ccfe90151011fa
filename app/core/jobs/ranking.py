"""Which changes to a spec take less memory, which of them fit, and in what order to try them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from app.core.errors import InvalidInput
from app.core.jobs.capabilities import capability_faults
from app.core.jobs.changes import Change, Setting, list_changes
from app.core.jobs.spec import TrainingSpec, parse_spec

Peak = Callable[[TrainingSpec], int | None]  # predicted bytes; None where they cannot be told

_TIGHT = 0.9  # share of the memory from which on a prediction is no promise, as in the plan
_FREE = {"gradient_checkpointing", "per_device_train_batch_size", "gradient_accumulation_steps"}  # change no result


def rank_changes(spec: TrainingSpec, setting: Setting, peak: Peak) -> list[Change]:
    """Those that can run and are predicted to take less: those that fit first, then in the order of their effect.

    Where none fits alone, the first few together that do.
    """
    scales = _Scales(spec, setting, peak)
    singles = [change for each in list_changes(spec, setting) if (change := scales.weigh(each))]
    if any(change.fits for change in singles):
        return sorted(singles, key=lambda change: not change.fits)
    bundles = list(_bundles(singles))
    fitting = next((bundle for bundle in bundles if scales.fits(bundle)), None)
    if fitting is not None:
        return [*filter(None, [scales.weigh(_join(scales.needed(fitting)))]), *singles]
    free = [weighed for bundle in bundles if (weighed := scales.weigh(_join(bundle))) and _is_free(weighed)]
    both = [bundle for bundle in free[-1:] if bundle.fits is None]
    return sorted([*singles, *both], key=lambda change: (change.fits is False, not _is_free(change)))


def _is_free(change: Change) -> bool:
    """Whether it changes no result."""
    return set(change.values) <= _FREE


class _Scales:
    """Weighs changes to one spec."""

    def __init__(self, spec: TrainingSpec, setting: Setting, peak: Peak) -> None:
        self._values = spec.model_dump(mode="json")
        self._setting = setting
        self._peak = peak
        self._now = peak(spec)

    def weigh(self, change: Change) -> Change | None:
        """The change with its peak; None where it cannot run, or takes no less."""
        try:
            changed = parse_spec({**self._values, **change.values})
        except InvalidInput:  # a combination that there is not
            return None
        if capability_faults(changed, self._setting.capabilities):
            return None
        then = self._peak(changed)
        if then is not None and self._now is not None and then >= self._now:
            return None
        return replace(change, peak_bytes=then, fits=self._fits(then))

    def fits(self, together: Sequence[Change]) -> bool:
        """Whether the changes fit if they are made together."""
        weighed = self.weigh(_join(together))
        return weighed is not None and weighed.fits is True

    def needed(self, together: Sequence[Change]) -> list[Change]:
        """Changes that fit, without those that they fit without: what costs most is left out first."""
        kept = list(together)
        for change in reversed(together):
            rest = [each for each in kept if each is not change]
            kept = rest if rest and self.fits(rest) else kept
        return kept

    def _fits(self, then: int | None) -> bool | None:
        """Where even what failed was predicted to fit, a prediction below it promises nothing."""
        capacity = self._setting.capacity_bytes
        if then is None or self._now is None or capacity is None:
            return None
        if then > capacity:
            return False
        return True if then <= _TIGHT * capacity and capacity < self._now else None


def _bundles(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """More and more of them together, in their order; of those that set the same fields the last one alone."""
    chosen: dict[frozenset[str], Change] = {}
    for change in changes:
        chosen[frozenset(change.values)] = change
        if len(chosen) > 1:
            yield list(chosen.values())


def _join(changes: Sequence[Change]) -> Change:
    first, *others = [change.title for change in changes]
    title = ", ".join([first, *(other if other.endswith("LoRA") else other[0].lower() + other[1:] for other in others)])
    costly = [change.effect for change in changes if not _is_free(change)]
    effect = " ".join(costly) or "The effective batch and the result stay the same; it is slower still."
    values = {name: value for change in changes for name, value in change.values.items()}
    return Change("+".join(change.key for change in changes), title, effect, values)
