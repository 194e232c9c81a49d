"""Mutated checkpoints are read or refused, and nothing else happens."""

import zipfile

import numpy as np
import pytest

from benchmarks import fuzz


@pytest.fixture
def files(tmp_path, fixture_file):
    """A StyleGAN2 of NVIDIA's, and small checkpoints in both layouts of PyTorch."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).bfloat16()
    content = {"g_ema": model.state_dict(), "latent_avg": torch.zeros(8), "step": 3}
    zipped, legacy, deflated = (tmp_path / name for name in ("zip.pt", "old.pt", "again.pt"))
    torch.save(content, zipped)
    torch.save(content, legacy, _use_new_zipfile_serialization=False)
    entries = fuzz.unpack(zipped.read_bytes())
    deflated.write_bytes(fuzz.pack(entries, zipfile.ZIP_DEFLATED))
    return [zipped, legacy, deflated, fixture_file("stylegan2/tiny_ada_gray_cond.pkl")]


def test_a_mutated_checkpoint_is_read_or_refused_and_nothing_else(files):
    small, large = files[:3], files[3:]
    cases = [*fuzz.run(small, 0, range(240)), *fuzz.run(large, 0, range(12))]
    assert [case for case in cases if case.error] == []
    assert len(cases) == 252
    assert sum(bool(case.refused) for case in cases) > 100


def test_a_case_is_the_same_whenever_it_is_made(files):
    for number in range(20):
        file, data = fuzz.make_case(files, 1, number)
        assert (file, data) == fuzz.make_case(files, 1, number)
        assert data != fuzz.make_case(files, 2, number)[1] or data == file.read_bytes()


def test_mutants_differ_and_some_keep_their_form(files):
    data = files[0].read_bytes()
    rng = np.random.default_rng(0)
    mutants = [fuzz.mutate(rng, data) for _ in range(100)]
    assert len(set(mutants)) > 90
    assert sum(bool(fuzz.unpack(mutant)) for mutant in mutants) > 30


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("a", "w", 0)),
        ("os.system", (b"true",)),
        ("subprocess.Popen", ()),
        ("import", ("antigravity",)),
        ("exec", ()),
        ("pickle.find_class", ("os", "system")),
    ],
)
def test_effects_are_noticed(event, arguments):
    assert fuzz._is_effect(event, arguments)
    assert not fuzz._is_effect("open", ("a", "rb", 0))
