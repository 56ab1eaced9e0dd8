"""Everything that is fuzzed."""

from __future__ import annotations

from campaign.fuzzing import archives, documents, listings, scripts
from campaign.fuzzing.engine import Target

TARGETS: list[Target] = [*documents.TARGETS, *listings.TARGETS, *archives.TARGETS, *scripts.TARGETS]
