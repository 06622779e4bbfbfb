"""How a seed ended: kept, or the stage that dropped it."""

from __future__ import annotations

import enum


class SeedOutcome(enum.StrEnum):
    """The outcome of a seed, in the order of the stages. The value is the word in the journal and in the datasheet."""

    UNREADABLE_IMAGE = "unreadable_image"
    TEACHER_FAILED = "teacher_failed"
    """The teacher's endpoint returned no turn."""
    REFUSED = "refused"
    """The teacher declined to answer."""
    INVALID_TURN = "invalid_turn"
    """A turn is outside the grammar."""
    OVER_LIMIT = "over_limit"
    """The episode refused a search."""
    TOOL_FAILED = "tool_failed"
    TOO_MANY_TURNS = "too_many_turns"
    """The last allowed turn did not answer."""
    OVERLONG = "overlong"
    """A turn or the conversation has too many tokens."""
    GAVE_UP = "gave_up"
    """The teacher answered that it cannot answer."""
    WRONG_ANSWER = "wrong_answer"
    JUDGE_FAILED = "judge_failed"
    UNLABELLED = "unlabelled"
    """The teacher named no category."""
    TARGET_FAILED = "target_failed"
    """The endpoint of the policy to be trained returned no direct answer."""
    SEARCH_MISMATCH = "search_mismatch"
    """The teacher searched where no search is required, or did not where one is."""
    KEPT = "kept"


BROKEN = frozenset(
    {SeedOutcome.TEACHER_FAILED, SeedOutcome.TOOL_FAILED, SeedOutcome.TARGET_FAILED, SeedOutcome.JUDGE_FAILED}
)
"""Outcomes that a service caused: many in a row end the run."""

TRANSIENT = BROKEN | {SeedOutcome.UNLABELLED}
"""Outcomes that may differ in another run: their seeds are retried."""
