"""Fixtures for every test."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed() -> int:
    """The seed of a random test: HEARTWIRE_SEED, or drawn afresh. pytest shows it when the test fails."""
    value = int(os.environ.get("HEARTWIRE_SEED") or random.SystemRandom().getrandbits(32))
    print(f"HEARTWIRE_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Random numbers that HEARTWIRE_SEED brings back."""
    return random.Random(seed)
