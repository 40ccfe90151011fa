"""The plan follows from the seed alone."""

from __future__ import annotations

from collections import Counter

from chaos.plan import KILLS_PER_INJECTION, Fault, Injection, Strike, Target, make_plan


def test_same_seed_gives_the_same_plan() -> None:
    assert make_plan(7, 50) == make_plan(7, 50)
    assert make_plan(7, 50) != make_plan(8, 50)


def test_plan_has_as_many_kills_as_asked_of_every_target_and_both_faults() -> None:
    for kills in (1, 10, 30, 500):
        strikes = [step for step in make_plan(3, kills) if isinstance(step, Strike)]
        assert len(strikes) == kills
    plan = make_plan(3, 2 * KILLS_PER_INJECTION)
    assert {step.target for step in plan if isinstance(step, Strike)} == set(Target)
    assert {step.fault for step in plan if isinstance(step, Injection)} == set(Fault)


def test_every_window_comes_in_a_hundred_kills() -> None:
    counts = Counter((step.target, step.window) for step in make_plan(1, 100) if isinstance(step, Strike))
    assert min(counts.values()) >= 4
    assert len(counts) == 16
