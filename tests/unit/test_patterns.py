import time
from pathlib import Path

import pytest

from rerank_server import patterns
from rerank_server.errors import Blocked
from rerank_server.patterns import BlockedPatterns
from rerank_server.ranking import Ranking

EXAMPLES = Path(__file__).parents[2] / "docs" / "blocked-patterns-sql.txt"


async def test_message_names_field_and_neither_pattern_nor_text() -> None:
    blocked = BlockedPatterns(["sec.et", "other"])

    with pytest.raises(Blocked) as raised:
        await blocked.check([Ranking("q", ["fine", "a secret text"], None)])

    assert str(raised.value) == ("documents[1] has something in it that this service does not take")


async def test_pattern_that_backtracks_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LONGEST_SECONDS", 0.3)
    blocked = BlockedPatterns([r"(a|aa)+$"])
    began = time.monotonic()

    with pytest.raises(Blocked, match=r"documents\[0\] could not be searched .* within 0.3 s"):
        await blocked.check([Ranking("q", ["a" * 10_000 + "b"], None)])

    assert time.monotonic() - began < 5


def test_no_patterns_are_no_work() -> None:
    assert not BlockedPatterns([])


INJECTIONS = [
    "' OR '1'='1",
    "x' or 1=1 --",
    "1; DROP TABLE users",
    "1;drop\ttable\nusers--",
    "' UNION SELECT username, password FROM users --",
    "' UNION ALL SELECT NULL, version()#",
    "'; EXEC xp_cmdshell('dir')",
    "1 AND SLEEP(5)",
    "1; WAITFOR DELAY '0:0:5'",
    "' AND 1=(SELECT COUNT(*) FROM information_schema.tables)",
    "'; INSERT INTO users VALUES ('a')",
    "'; UPDATE users SET password = 'x'",
    "admin'--",
]
SENTENCES = [
    "How do I select the right union for my trade?",
    "The European Union selected a new president.",
    "Please drop the table off at the office; then update users about it.",
    "Insert the key into the lock -- then turn it.",
    "It's 1 or 2 days' work; don't sleep on it.",
    "Does O'Reilly's book explain SELECT statements and JOINs?",
    "CREATE TABLE makes a table, and DROP TABLE deletes one.",
    "rock 'n' roll or '80s pop",
]


@pytest.mark.parametrize("text", INJECTIONS)
async def test_example_patterns_find_injections_of_sql(text: str) -> None:
    blocked = BlockedPatterns(EXAMPLES.read_text(encoding="utf-8").splitlines())

    with pytest.raises(Blocked):
        await blocked.check([Ranking(text, ["fine"], None)])


@pytest.mark.parametrize("text", SENTENCES)
async def test_example_patterns_leave_sentences_alone(text: str) -> None:
    blocked = BlockedPatterns(EXAMPLES.read_text(encoding="utf-8").splitlines())

    await blocked.check([Ranking(text, ["fine"], None)])


async def test_example_patterns_are_quick_on_long_texts() -> None:
    blocked = BlockedPatterns(EXAMPLES.read_text(encoding="utf-8").splitlines())
    texts = ["' or union select ; drop 1=" * 4000, "a" * 100_000, "'" * 100_000, " " * 100_000]

    for text in texts:
        try:
            await blocked.check([Ranking("q", [text], None)])
        except Blocked as error:
            assert "could not be searched" not in str(error)
