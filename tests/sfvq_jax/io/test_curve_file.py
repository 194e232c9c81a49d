"""A curve on disk: what is written comes back, and what is no curve is named."""

import io
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax import Curve, CurveRecord, History, check_belongs, load_curve, save_curve

CODEWORDS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
HISTORY = History(
    codewords=np.array([4, 8], np.int32),
    loss=np.float32([0.5, 0.25]),
    objective=np.float32([0.45, 0.22]),
    distortion=np.float32([0.4, 0.2]),
    perplexity=np.float32([2.5, 6.5]),
    use=np.random.default_rng(1).dirichlet(np.ones(7), 2).astype(np.float32),
    samples=np.array([1000.0, 2000.0]),
)
RECORD = CurveRecord(
    curve=Curve(jnp.asarray(CODEWORDS)),
    space="stylegan2-w",
    model_hash="0123456789abcdef",
    settings={"bits": 3, "learning_rate": 1e-3, "seed": 7, "decay_at": [0.6, 0.8]},
    history=HISTORY,
)


def save_npz(path, **changes):
    """An .npz like ours but for some entries; None leaves one out."""
    arrays = {"format_version": np.array(1), "codewords": CODEWORDS} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


class TestRoundTrip:
    def test_everything_comes_back_bit_for_bit(self, tmp_path):
        save_curve(tmp_path / "curve.npz", RECORD)
        record = load_curve(tmp_path / "curve.npz")
        assert_array_equal(record.curve.codewords, CODEWORDS)
        assert record[1:4] == RECORD[1:4]
        for one, other in zip(record.history, HISTORY, strict=True):
            assert_array_equal(one, other)
            assert one.dtype == other.dtype

    def test_a_bare_curve_comes_back(self, tmp_path):
        save_curve(tmp_path / "curve.npz", CurveRecord(Curve(jnp.asarray(CODEWORDS))))
        record = load_curve(str(tmp_path / "curve.npz"))
        assert_array_equal(record.curve.codewords, CODEWORDS)
        assert record[1:] == ("", "", {}, None)

    @pytest.mark.parametrize("value", [np.float32(1e-45), np.float32(3.4e38), -np.float32(0)])
    def test_extreme_numbers_come_back(self, tmp_path, value):
        codewords = np.full((2, 2), value)
        save_curve(tmp_path / "curve.npz", CurveRecord(Curve(codewords)))
        loaded = np.asarray(load_curve(tmp_path / "curve.npz").curve.codewords)
        assert loaded.tobytes() == codewords.tobytes()

    def test_the_name_is_kept_as_given(self, tmp_path):
        save_curve(tmp_path / "curve", RECORD)
        assert [path.name for path in tmp_path.iterdir()] == ["curve"]
        assert_array_equal(load_curve(tmp_path / "curve").curve.codewords, CODEWORDS)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
    def test_codewords_alone_load_from_an_npy(self, tmp_path, dtype):
        np.save(tmp_path / "codewords.npy", CODEWORDS.astype(dtype))
        record = load_curve(tmp_path / "codewords.npy")
        assert_array_equal(record.curve.codewords, CODEWORDS.astype(dtype).astype(np.float32))
        assert record.curve.codewords.dtype == np.float32
        assert record[1:] == ("", "", {}, None)

    def test_a_history_that_counts_in_bits_loads(self, tmp_path):
        columns = {f"history_{name}": column for name, column in HISTORY._asdict().items()}
        del columns["history_codewords"], columns["history_objective"]
        path = save_npz(tmp_path / "curve.npz", history_bits=np.array([2, 3], np.int32), **columns)
        history = load_curve(path).history
        assert_array_equal(history.codewords, HISTORY.codewords)
        assert_array_equal(history.distortion, HISTORY.distortion)
        assert np.isnan(history.objective).all()

    def test_published_codebooks_load(self, shared):
        record = load_curve(shared / "data/published_sfvq/CIFAR10-6.npy")
        assert record.curve.codewords.shape == (64, 512)


class TestWriting:
    def test_a_file_that_is_there_is_kept_unless_asked(self, tmp_path):
        path = save_npz(tmp_path / "curve.npz")
        before = path.read_bytes()
        with pytest.raises(FileExistsError, match="exists already"):
            save_curve(path, RECORD)
        assert path.read_bytes() == before
        save_curve(path, RECORD, overwrite=True)
        assert load_curve(path).space == "stylegan2-w"

    def test_a_curve_or_a_result_says_what_to_type(self, tmp_path):
        for value, what in ((RECORD.curve, "CurveRecord\\(curve\\)"), (3, "result.curve")):
            with pytest.raises(TypeError, match=what):
                save_curve(tmp_path / "curve.npz", value)

    def test_nothing_is_left_behind_where_writing_fails(self, tmp_path):
        with pytest.raises(TypeError, match="JSON"):
            save_curve(tmp_path / "curve.npz", RECORD._replace(settings={"key": object()}))
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            save_curve(tmp_path / "nowhere" / "curve.npz", RECORD)


class TestErrors:
    def test_a_missing_file_or_a_folder_is_named(self, tmp_path):
        for path in (tmp_path / "nothing.npz", tmp_path):
            with pytest.raises(FileNotFoundError, match=f"no curve file {path}"):
                load_curve(path)

    @pytest.mark.parametrize(
        "content", [b"", b"PK", b"hello", b"\x80\x04N.", b"\x93NUMPY", b"PK\3\4" * 9]
    )
    def test_another_kind_of_file_is_named(self, tmp_path, content):
        (tmp_path / "curve.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"curve\.npz is no curve file"):
            load_curve(tmp_path / "curve.npz")

    @pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
    def test_a_truncated_file_is_named(self, tmp_path, share):
        save_curve(tmp_path / "curve.npz", RECORD)
        content = (tmp_path / "curve.npz").read_bytes()
        (tmp_path / "curve.npz").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"curve\.npz is no curve file"):
            load_curve(tmp_path / "curve.npz")

    def test_a_truncated_npy_is_named(self, tmp_path):
        buffer = io.BytesIO()
        np.save(buffer, CODEWORDS)
        for end in (4, 20, 100, 140, len(buffer.getvalue()) - 1):
            (tmp_path / "curve.npy").write_bytes(buffer.getvalue()[:end])
            with pytest.raises(ValueError, match=r"curve\.npy is no curve file"):
                load_curve(tmp_path / "curve.npy")

    def test_a_damaged_file_gives_the_curve_or_an_error_that_names_it(self, tmp_path):
        save_curve(tmp_path / "curve.npz", RECORD)
        content = (tmp_path / "curve.npz").read_bytes()
        random = np.random.default_rng(0)
        for _ in range(300):
            damaged = bytearray(content)
            damaged[random.integers(len(content))] ^= 1 << random.integers(8)
            (tmp_path / "curve.npz").write_bytes(damaged)
            try:
                record = load_curve(tmp_path / "curve.npz")
            except ValueError as error:
                assert "curve.npz" in str(error)  # noqa: PT017
            else:
                assert_array_equal(record.curve.codewords, CODEWORDS)

    @pytest.mark.parametrize(
        "codewords",
        [None, np.ones(3, np.float32), np.ones((1, 3), np.float32), np.ones((2, 2, 2), np.float32)],
    )
    def test_other_arrays_are_no_codewords(self, tmp_path, codewords):
        path = save_npz(tmp_path / "curve.npz", codewords=codewords, other=np.ones((4, 4)))
        with pytest.raises(ValueError, match=r"curve\.npz is no curve file.*codewords"):
            load_curve(path)

    @pytest.mark.parametrize(
        "codewords", [np.ones((4, 2), int), np.full((4, 2), np.nan), np.full((4, 2), 1e40)]
    )
    def test_codewords_that_are_no_finite_numbers_are_named(self, tmp_path, codewords):
        path = save_npz(tmp_path / "curve.npz", codewords=codewords)
        with pytest.raises(
            ValueError, match=r"curve\.npz .*codewords are not all finite floating point"
        ):
            load_curve(path)

    @pytest.mark.parametrize("name", ["codewords", "settings", "history_codewords"])
    def test_pickled_objects_are_never_opened(self, tmp_path, name):
        path = save_npz(tmp_path / "curve.npz", **{name: np.array([Trap()], dtype=object)})
        with pytest.raises(ValueError, match=r"curve\.npz is no curve file.*Python objects"):
            load_curve(path)

    @pytest.mark.parametrize(
        "change",
        [
            {"use": HISTORY.use[:, :-1]},
            {"use": np.full_like(HISTORY.use, np.nan)},
            {"use": None},
            {"codewords": np.array([[4, 8]])},
            {"codewords": np.array([0, 8])},
            {"codewords": np.array(["4", "8"])},
            {"loss": HISTORY.loss[:1]},
            {"perplexity": np.float32([2, np.inf])},
            {"samples": np.array([-1.0, 2])},
            {"bits": np.array([64, 3])},
        ],
    )
    def test_a_damaged_history_is_named(self, tmp_path, change):
        columns = {**HISTORY._asdict(), **change}
        path = save_npz(
            tmp_path / "curve.npz", **{f"history_{name}": x for name, x in columns.items()}
        )
        with pytest.raises(ValueError, match=rf"curve\.npz.*history_{next(iter(change))}"):
            load_curve(path)

    @pytest.mark.parametrize("name", ["space", "model_hash"])
    def test_what_messages_show_is_short_and_printable(self, tmp_path, name):
        for text in ("\x1b[31m", "a" * 1000):
            path = save_npz(tmp_path / "curve.npz", **{name: np.array(text)})
            with pytest.raises(ValueError, match=f"its {name} is no short text"):
                load_curve(path)

    @pytest.mark.parametrize("settings", ["[]", "{", '{"a": NaN}', '{"a": 1e999}', "[" * 5000])
    def test_damaged_settings_are_named(self, tmp_path, settings):
        path = save_npz(tmp_path / "curve.npz", settings=np.array(settings))
        with pytest.raises(ValueError, match=r"curve\.npz is no curve file"):
            load_curve(path)

    def test_a_newer_format_is_named(self, tmp_path):
        path = save_npz(tmp_path / "curve.npz", format_version=np.array(3))
        with pytest.raises(ValueError, match="has format 3; this version reads up to 2"):
            load_curve(path)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


class TestBelonging:
    def model(self, latent_dim=3, **facts):
        return SimpleNamespace(latent_dim=latent_dim, **facts)

    def test_the_same_space_and_model_belong_together(self):
        check_belongs(RECORD, self.model(latent_space="stylegan2-w", model_hash="0123456789abcdef"))

    def test_what_is_not_known_is_no_contradiction(self):
        check_belongs(RECORD, self.model())
        unknown = RECORD._replace(space="", model_hash="")
        check_belongs(unknown, self.model(latent_space="biggan-z", model_hash="fedcba9876543210"))

    def test_two_spaces_are_both_named(self):
        with pytest.raises(ValueError, match=r"stylegan2-w.*biggan-z"):
            check_belongs(RECORD, self.model(latent_space="biggan-z"))

    def test_two_widths_are_both_named(self):
        with pytest.raises(ValueError, match=r"3 dimensions.*512"):
            check_belongs(RECORD, self.model(latent_dim=512, latent_space="stylegan2-w"))

    def test_two_models_are_both_named(self):
        with pytest.raises(ValueError, match=r"0123456789ab….*fedcba987654…"):
            check_belongs(RECORD, self.model(model_hash="fedcba9876543210"))
