"""The ramp of a worker's slots."""

from jobs.worker.ramp import CLOSING_SECONDS, OPENING_SECONDS, SlotRamp


def test_slots_are_opened_gradually_while_all_open_ones_are_taken() -> None:
    ramp, now, seen = SlotRamp(initial=64, slots=500, now=0.0), 0.0, [64]
    while seen[-1] < 500:
        now += 0.05
        seen.append(ramp.open_slots(taken=seen[-1], now=now))

    assert max(after - before for before, after in zip(seen, seen[1:], strict=False)) <= 13
    assert (500 - 64) / 500 * OPENING_SECONDS <= now + 1e-6 <= OPENING_SECONDS
    assert not ramp.is_opening


def test_no_slot_is_opened_while_some_are_free() -> None:
    ramp = SlotRamp(initial=64, slots=500, now=0.0)

    assert [ramp.open_slots(taken=63, now=float(second)) for second in range(5)] == [64] * 5
    assert ramp.is_opening


def test_unneeded_slots_are_closed_slowly_down_to_the_initial_number() -> None:
    ramp = SlotRamp(initial=64, slots=500, now=0.0)
    assert ramp.open_slots(taken=64, now=60.0) == 500

    assert 495 <= ramp.open_slots(taken=400, now=60.2) < 500
    assert ramp.open_slots(taken=0, now=60.2 + CLOSING_SECONDS / 2) > 64
    assert ramp.open_slots(taken=0, now=61 + CLOSING_SECONDS) == 64


def test_a_small_number_of_slots_is_open_from_the_start() -> None:
    ramp = SlotRamp(initial=64, slots=10, now=0.0)

    assert ramp.open_slots(taken=10, now=1.0) == 10
    assert not ramp.is_opening
