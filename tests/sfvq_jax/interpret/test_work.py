"""Parts that are done are not made again, and what is left is told in images."""

import pytest

from sfvq_jax.interpret.work import Work


def run(done, seen, *, fail_at=None):
    work = Work({"screen": (1, 100), "step": (3, 10)}, done, seen.append)
    made = []

    def make(name, images):
        if name == fail_at:
            raise KeyboardInterrupt
        for _ in range(2):
            work.images(images // 2)
        made.append(name)
        return name.upper()

    results = [work.part("screen", "screen", lambda: make("screen", 80), keep=False)]
    results += [work.part("step", n, lambda n=n: make(n, 20)) for n in "abc"]
    return results, made


def test_totals_are_corrected_by_what_parts_took():
    seen = []
    results, made = run(None, seen)
    assert results == ["SCREEN", "A", "B", "C"]
    assert made == ["screen", "a", "b", "c"]
    assert seen[0][:2] == (0, 130)
    assert seen[-1][:2] == (140, 140)
    assert all(p.images <= p.total for p in seen)
    assert [p.images for p in seen] == sorted(p.images for p in seen)
    totals = {p.part: p.total for p in seen}
    assert totals == {"screen": 110, "a": 140, "b": 140, "c": 140}


def test_what_is_done_is_taken_and_does_not_count():
    done, seen = {}, []
    with pytest.raises(KeyboardInterrupt):
        run(done, [], fail_at="c")
    assert done == {"a": "A", "b": "B"}
    results, made = run(done, seen)
    assert results == ["SCREEN", "A", "B", "C"]
    assert made == ["screen", "c"]
    assert seen[-1][:2] == (100, 100)


def test_parts_that_tell_no_images_count_as_expected():
    seen = []
    work = Work({"step": (2, 10)}, None, seen.append)
    for name in "ab":
        work.part("step", name, lambda: None)
    assert [p.images for p in seen] == [0, 10, 10, 20]
    assert {p.total for p in seen} == {20}
