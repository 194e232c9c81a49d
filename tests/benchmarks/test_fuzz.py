"""Damaged files are read or refused, and nothing else happens."""

import json
import zipfile

import numpy as np
import pytest

from benchmarks.fuzz import kinds, mutations, reader

CHEAP = (
    "curve",
    "label-file",
    "scorer",
    "direction",
    "image",
    "latents",
)  # no program takes long to compile


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small ones in both layouts of PyTorch."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).bfloat16()
    content = {"g_ema": model.state_dict(), "latent_avg": torch.zeros(8), "step": 3}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)
    entries = mutations.unpack((folder / "zip.pt").read_bytes())
    (folder / "again.pt").write_bytes(mutations.pack(entries, zipfile.ZIP_DEFLATED))
    return kinds.find_checkpoints(folder)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory, checkpoints):
    return checkpoints + kinds.make_subjects(tmp_path_factory.mktemp("made"), CHEAP)


def test_a_damaged_file_is_read_or_refused_and_nothing_else(subjects):
    cases = list(reader.run(subjects, 0, range(200)))
    assert [case for case in cases if case.error] == []
    assert len(cases) == 200
    assert {case.kind for case in cases} == {"checkpoint", *CHEAP}
    assert 50 < sum(bool(case.refused) for case in cases) < 195


def test_a_case_is_the_same_whenever_it_is_made(subjects):
    for number in range(15):
        mutant = reader.make_case(subjects, 1, number)
        assert mutant == reader.make_case(subjects, 1, number)
        assert mutant != reader.make_case(subjects, 2, number)


def test_mutants_differ_and_some_keep_their_form(subjects):
    rng = np.random.default_rng(0)
    forms = {".pt": mutations.unpack, ".npz": mutations.unpack, ".json": _parsed}
    for ending, form in forms.items():
        subject = next(s for s in subjects if s.target.endswith(ending) and s.target != "old.pt")
        data = (subject.base / subject.target).read_bytes()
        mutants = [mutations.mutate(rng, data) for _ in range(40)]
        assert len(set(mutants)) > 30
        assert sum(bool(form(mutant)) for mutant in mutants) > 10


def _parsed(data):
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def test_a_png_is_mended(subjects):
    (subject,) = (s for s in subjects if s.target == "colour.png")
    data = (subject.base / subject.target).read_bytes()
    assert mutations.mend_png(data) == data
    place = data.index(b"IHDR") + 8
    damaged = data[:place] + b"\x7f" + data[place + 1 :]
    assert mutations.mend_png(damaged)[: place + 1] == damaged[: place + 1]
    assert mutations.mend_png(damaged) != damaged


@pytest.mark.parametrize(
    ("event", "arguments", "strict"),
    [
        ("open", ("a", "w", 0), True),
        ("os.system", (b"true",), False),
        ("subprocess.Popen", (), False),
        ("import", ("antigravity",), True),
        ("exec", (), True),
        ("pickle.find_class", ("os", "system"), False),
    ],
)
def test_effects_are_noticed(event, arguments, strict):
    assert reader.is_effect(event, arguments, strict=True)
    assert reader.is_effect(event, arguments, strict=False) != strict
    assert not reader.is_effect("open", ("a", "rb", 0), strict=True)
