"""`LocalJournal`: lines arrive whole, and what is torn is passed over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from weightslab.engine.errors import StorageError
from weightslab.engine.storage.journal import LocalJournal


@pytest.fixture
def journal(tmp_path):
    return LocalJournal(tmp_path / "logs" / "events.jsonl")


def test_records_come_back_in_order(journal):
    journal.append({"event": "committed", "step": 1})
    journal.append({"event": "loaded", "name": "r\u00e9sum\u00e9"})
    assert list(journal.read()) == [
        {"event": "committed", "step": 1},
        {"event": "loaded", "name": "r\u00e9sum\u00e9"},
    ]


def test_one_record_is_one_line_of_ascii(journal):
    journal.append({"b": "two\nlines", "a": "\u2603"})
    assert journal.path.read_bytes() == b'{"a": "\\u2603", "b": "two\\nlines"}\n'


def test_absent_journal_is_empty_and_reading_creates_nothing(journal, tmp_path):
    assert list(journal.read()) == []
    assert list(tmp_path.iterdir()) == []


def test_torn_last_line_is_passed_over_and_closed_off(journal):
    journal.append({"n": 1})
    with journal.path.open("ab") as file:
        file.write(b'{"n": 2, "cut')
    assert list(journal.read()) == [{"n": 1}]
    journal.append({"n": 3})
    assert list(journal.read()) == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("line", [b"garbage", b"\xff\xfe", b"[1]", b"null", b"", b"[" * 100_000])
def test_line_that_is_no_record_is_passed_over(journal, line):
    journal.append({"n": 1})
    with journal.path.open("ab") as file:
        file.write(line + b"\n")
    journal.append({"n": 2})
    assert list(journal.read()) == [{"n": 1}, {"n": 2}]


def test_lines_of_many_writers_stay_apart(journal):
    def work(number):
        for turn in range(50):
            LocalJournal(journal.path).append({"number": number, "turn": turn, "pad": "x" * 500})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    records = list(journal.read())
    assert len(records) == 400
    assert [r["turn"] for r in records if r["number"] == 3] == list(range(50))


def test_refusal_names_the_file(tmp_path):
    (tmp_path / "logs").write_bytes(b"a file in place of the folder")
    with pytest.raises(StorageError, match=r"cannot append to .*events\.jsonl"):
        LocalJournal(tmp_path / "logs" / "events.jsonl").append({"n": 1})
