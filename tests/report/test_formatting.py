"""Numbers and times as the pages show them."""

from framework.report.formatting import duration, moment, seconds_between, short


def test_numbers():
    assert [short(value) for value in (0, 12500, 0.003, 2e-7, 61.4, 3.2e6)] == [
        "0",
        "12.5k",
        "0.003",
        "2e-07",
        "61.4",
        "3.2M",
    ]


def test_times():
    begin, end = "2026-03-04T09:15:00+00:00", "2026-03-04T11:20:07+00:00"
    assert moment(begin) == "2026-03-04 09:15"
    assert seconds_between(begin, end) == 7507
    assert [duration(seconds) for seconds in (7507, 200.4, 6.6)] == ["2 h 05 min", "3 min 20 s", "7 s"]
