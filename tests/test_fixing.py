"""A real server: diagnosed, collapsed while it runs, and started better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hugeprobe import fixing, inference
from hugeprobe.errors import NotObservable
from hugeprobe.workloads import bert

if TYPE_CHECKING:
    from hugeprobe.fixing import Story


@pytest.fixture(scope="module")
def story() -> Story:
    told = fixing.tell(bert.TINY)
    if isinstance(told, NotObservable):
        pytest.skip(str(told))
    return told


def test_answers_are_the_same_before_and_after(story: Story) -> None:
    assert story.same_answers


def test_reasons_add_up_at_every_moment(story: Story) -> None:
    for diagnosis in (story.plain.diagnosis, story.after, story.started.diagnosis):
        won = sum(finding.kib for finding in diagnosis.reasons)
        assert won + diagnosis.huge_kib == diagnosis.anon_kib > 0


def test_a_collapse_wins_what_it_says(story: Story) -> None:
    if isinstance(story.collapsed, NotObservable):
        pytest.skip(str(story.collapsed))
    assert story.collapsed.made_huge_kib >= 0.9 * story.collapsed.plan.base_kib
    assert story.after.huge_kib >= story.plain.diagnosis.huge_kib


def test_a_missing_model_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = NotObservable("the package openvino is not installed")
    monkeypatch.setattr(inference, "missing", lambda _: missing)
    assert fixing.tell(bert.TINY) == missing
