import pytest

import warmpool.policy.pool


@pytest.fixture(autouse=True)
def refill_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm workers are made as soon as they are lacking: one thing at a time. The pause has a test of its own."""
    if "with_refill_pause" not in request.fixturenames:
        monkeypatch.setattr(warmpool.policy.pool, "REFILL_QUIET", 0.0)
        monkeypatch.setattr(warmpool.policy.pool, "REFILL_LATEST", 0.0)


@pytest.fixture
def with_refill_pause() -> None:
    """Asks for the real pause."""
