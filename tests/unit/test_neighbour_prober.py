"""Whose turn it is to be asked, where there are more neighbours than one round takes."""

from __future__ import annotations

from gre_xdp.neighbour_prober import _Turns


def test_everybody_gets_a_turn() -> None:
    """1,000 in rounds of 300: each is asked within four of them, and nobody thrice."""
    turns: _Turns[int] = _Turns()
    rounds = [turns.choose(range(1000), 300) for _ in range(4)]
    assert all(len(chosen) == len(set(chosen)) == 300 for chosen in rounds)
    asked = [item for chosen in rounds for item in chosen]
    assert set(asked) == set(range(1000))
    assert max(asked.count(item) for item in range(1000)) == 2


def test_newcomers_come_first() -> None:
    """One that has not been asked yet comes before those that have."""
    turns: _Turns[str] = _Turns()
    assert set(turns.choose("abc", 3)) == set("abc")
    assert turns.choose("abcd", 1) == ["d"]


def test_who_has_left_is_forgotten() -> None:
    """Memory is for those in use: the one that returns is new."""
    turns: _Turns[str] = _Turns()
    turns.choose("ab", 2)
    turns.choose("a", 1)
    assert turns.choose("ab", 1) == ["b"]
