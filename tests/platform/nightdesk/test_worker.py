"""The hard limit of a worker's graceful shutdown."""

import threading

from nightdesk.worker import EXIT_CODE, kill_after


def test_a_process_that_hangs_during_shutdown_is_killed() -> None:
    ended, codes = threading.Event(), list[int]()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    kill_after(0.01, end)

    assert ended.wait(10)
    assert codes == [EXIT_CODE]
