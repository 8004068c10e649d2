"""What the kernel says of a process's memory."""

from tests.bench.memory import Memory, parse_rollup

ROLLUP = """\
55d1c0a00000-7ffd8a3f2000 ---p 00000000 00:00 0                          [rollup]
Rss:              125000 kB
Pss:              100000 kB
Pss_Dirty:         60000 kB
Shared_Clean:      20000 kB
"""


def test_resident_and_proportional_size_are_read_in_megabytes() -> None:
    assert parse_rollup(ROLLUP) == Memory(resident=128.0, proportional=102.4)
