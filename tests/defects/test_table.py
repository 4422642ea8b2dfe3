from __future__ import annotations

import collections

from tests.defects.table import ABSENT, DEFECTS, PAGE, defect_of, page, sentences


def test_every_defect_is_a_test_or_listed_and_never_both() -> None:
    tested = [defect for defect in map(defect_of, sentences()) if defect]
    counts = collections.Counter([*tested, *ABSENT])
    assert counts == dict.fromkeys(DEFECTS, 1)
    assert len(DEFECTS) == 58


def test_every_test_has_one_sentence() -> None:
    for name, text in sentences().items():
        assert text.endswith("."), name
        assert defect_of(name) or name.startswith("test_fact_"), name


def test_the_facts_that_can_be_shown_are_shown() -> None:
    """The fourth is about a live connector, of which there is none."""
    facts = {name.split("_")[2] for name in sentences() if name.startswith("test_fact_")}
    assert facts == {"1", "2", "3", "5"}


def test_page_is_the_one_these_tests_make() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m tests.defects.table"
