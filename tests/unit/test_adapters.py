"""The adapter folder: what counts as finished, and what a kill may leave."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import ModelError, StoreError
from engine.lora import adapters
from engine.vocabulary import Variant

MODEL = "tiny-random"
Wave = list[Variant]


@pytest.fixture
def wave(variants: list[Variant]) -> Wave:
    return variants[1:4]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[[Wave], Path]:
    """A wave saved and not yet published."""

    def save(wave: Wave) -> Path:
        staged = adapters.staging(tmp_path, wave)
        for variant in wave:
            folder = staged / variant.variant_id
            (folder / adapters.CONFIG).write_text("{}")
            (folder / adapters.WEIGHTS).write_bytes(variant.variant_id.encode() * 9)
            adapters.write_meta(folder, variant, {"losses": [2.5, 1.5]})
        return staged

    return save


@pytest.fixture
def folder(tmp_path: Path, wave: Wave, stage: Callable[[Wave], Path]) -> Path:
    """The finished adapter of the first variant, published alone."""
    adapters.publish(stage(wave[:1]))
    return adapters.folder_of(tmp_path, wave[0])


def troubles(root: Path, wave: Wave) -> list[str | None]:
    return [adapters.trouble(adapters.folder_of(root, variant), variant) for variant in wave]


def hidden(root: Path) -> list[str]:
    return [path.name for path in (root / MODEL).iterdir() if path.name.startswith(".")]


def test_a_published_adapter_is_finished_and_says_what_it_is(tmp_path: Path, folder: Path, wave: Wave) -> None:
    assert folder == tmp_path / MODEL / wave[0].variant_id
    assert adapters.trouble(folder, wave[0]) is None
    meta = json.loads((folder / adapters.META).read_text())
    assert meta["variant"]["train_lang"] == wave[0].train_lang
    assert meta["variant"]["dataset_hash"] == "d1"
    assert meta["losses"] == [2.5, 1.5]
    assert hidden(tmp_path) == []


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / adapters.META).unlink(), "unfinished"),
        (lambda folder: (folder / adapters.META).write_text('{"variant_id": '), "unfinished"),
        (lambda folder: (folder / adapters.META).write_bytes(b"\xff"), "unfinished"),
        (lambda folder: (folder / adapters.META).write_text("[]"), "damaged"),
        (lambda folder: (folder / adapters.META).write_text("{}"), "damaged"),
        (lambda folder: (folder / adapters.WEIGHTS).unlink(), "unfinished"),
        (lambda folder: (folder / adapters.CONFIG).unlink(), "unfinished"),
        (lambda folder: flip(folder / adapters.WEIGHTS), "damaged"),
        (lambda folder: (folder / adapters.WEIGHTS).write_bytes(b""), "damaged"),
    ],
    ids=[
        "no meta",
        "half a meta",
        "meta no text",
        "meta no object",
        "meta bare",
        "no weights",
        "no config",
        "flipped bit",
        "cut off",
    ],
)
def test_what_is_not_whole_is_not_finished(folder: Path, wave: Wave, damage: Callable, says: str) -> None:
    damage(folder)
    assert adapters.trouble(folder, wave[0]).startswith(says)


def test_an_absent_adapter_and_another_variants_are_not_finished(tmp_path: Path, folder: Path, wave: Wave) -> None:
    assert troubles(tmp_path, wave) == [None, "absent", "absent"]
    folder.rename(adapters.folder_of(tmp_path, wave[1]))
    assert troubles(tmp_path, wave[1:2]) == ["damaged (meta.json belongs to another variant)"]


def test_publishing_replaces_a_damaged_adapter(folder: Path, wave: Wave, stage: Callable[[Wave], Path]) -> None:
    flip(folder / adapters.WEIGHTS)
    (folder / "stray").touch()
    adapters.publish(stage(wave[:1]))
    assert adapters.trouble(folder, wave[0]) is None
    assert not (folder / "stray").exists()


@pytest.mark.parametrize("moves", range(4))
def test_a_kill_while_publishing_is_mended(
    tmp_path: Path, wave: Wave, stage: Callable[[Wave], Path], monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """Killed before its first, second, … rename: nothing half is ever visible, and what was published completes."""
    staged, rename, done = stage(wave), Path.rename, []

    def rename_until_killed(path: Path, target: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", rename_until_killed)
        adapters.publish(staged)
    visible = max(moves - 1, 0)
    assert troubles(tmp_path, wave).count(None) == visible
    assert troubles(tmp_path, wave).count("absent") == 3 - visible

    adapters.publish_leftovers(tmp_path, MODEL)
    assert troubles(tmp_path, wave) == [None] * 3 if moves else ["absent"] * 3
    assert hidden(tmp_path) == []


def test_what_was_only_begun_to_be_saved_is_removed(
    tmp_path: Path, folder: Path, wave: Wave, stage: Callable[[Wave], Path]
) -> None:
    stage(wave[1:])
    assert len(hidden(tmp_path)) == 1
    adapters.publish_leftovers(tmp_path, MODEL)
    assert hidden(tmp_path) == []
    assert troubles(tmp_path, wave) == [None, "absent", "absent"]


def test_staging_starts_empty_after_a_kill_and_leftovers_of_nothing_are_none(
    tmp_path: Path, wave: Wave, stage: Callable[[Wave], Path]
) -> None:
    adapters.publish_leftovers(tmp_path, MODEL)
    stage(wave)
    fresh = adapters.staging(tmp_path, wave)
    assert sorted(path.name for path in fresh.rglob("*")) == sorted(variant.variant_id for variant in wave)


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    adapters.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_with_the_flags(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot be written.*--db or --adapters") as caught:
            adapters.check_writable(folder)
        assert str(folder) in str(caught.value)


def test_what_is_in_the_folder_is_listed(tmp_path: Path, wave: Wave, stage: Callable[[Wave], Path]) -> None:
    adapters.publish(stage(wave))
    found = adapters.list_adapters(tmp_path)
    assert list(found.columns) == adapters.ADAPTER_COLUMNS
    assert sorted(found["name"]) == sorted(variant.variant_id for variant in wave)
    row = found.set_index("name").loc[wave[0].variant_id]
    told = row[["model", "strategy", "train_lang", "train_fraction", "losses", "final_loss", "state", "why"]]
    assert told.tolist() == [MODEL, "X-FT", wave[0].train_lang, 1.0, [2.5, 1.5], 1.5, "finished", ""]
    folder = adapters.folder_of(tmp_path, wave[0])
    assert row["bytes"] == sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.parametrize(
    ("damage", "state", "why"),
    [
        (lambda folder: (folder / adapters.META).unlink(), "unfinished", "no meta.json"),
        (lambda folder: (folder / adapters.META).write_bytes(b"\xff{"), "unfinished", "unreadable file"),
        (lambda folder: (folder / adapters.META).write_text("[1]"), "damaged", "meta.json belongs to another variant"),
        (lambda folder: (folder / adapters.WEIGHTS).unlink(), "unfinished", "no adapter_model.safetensors"),
        (lambda folder: flip(folder / adapters.WEIGHTS), "damaged", "weights do not match the saved checksum"),
        (lambda folder: folder.rename(folder.with_name("mine")), "damaged", "meta.json belongs to another variant"),
    ],
)
def test_a_broken_adapter_is_listed_with_what_is_the_matter(
    tmp_path: Path, folder: Path, damage: Callable, state: str, why: str
) -> None:
    damage(folder)
    (row,) = adapters.list_adapters(tmp_path).to_dict("records")
    assert (row["state"], row["why"]) == (state, why)


@pytest.mark.parametrize("changes", [{"losses": []}, {"losses": "no"}, {"losses": None}, {"variant": 7}, {"texts": {}}])
def test_what_meta_json_does_not_tell_is_nothing(tmp_path: Path, folder: Path, changes: dict[str, object]) -> None:
    edit(folder, **changes)
    found = adapters.list_adapters(tmp_path)
    assert found["state"].tolist() == ["finished"]
    column = {"losses": "final_loss", "variant": "strategy", "texts": "texts"}[next(iter(changes))]
    assert found[column].isna().all()


def edit(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / adapters.META).read_text())
    (folder / adapters.META).write_text(json.dumps({**meta, **changes}))


def test_what_a_kill_left_is_listed_as_unfinished(tmp_path: Path, wave: Wave, stage: Callable[[Wave], Path]) -> None:
    stage(wave)
    adapters.checkpoint(tmp_path, wave, 2).write_bytes(b"12345")
    found = adapters.list_adapters(tmp_path)
    assert set(found["state"]) == {"unfinished"}
    assert found.loc[found["name"].str.startswith(".wave-"), "bytes"].tolist() == [5]
    assert found["why"].str.contains("checkpoint").all()


def test_a_folder_without_adapters_lists_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    for root in (tmp_path, tmp_path / "absent", tmp_path / "README.md"):
        assert adapters.list_adapters(root).empty
        assert adapters.fingerprint(root) == adapters.fingerprint(root)


def test_the_fingerprint_changes_with_any_file(tmp_path: Path, folder: Path) -> None:
    before = adapters.fingerprint(tmp_path)
    assert adapters.fingerprint(tmp_path) == before
    (folder / "stray").write_bytes(b"1")
    assert adapters.fingerprint(tmp_path) != before


def test_finished_adapters_are_found_and_half_ones_are_not(
    tmp_path: Path, wave: Wave, stage: Callable[[Wave], Path]
) -> None:
    adapters.publish(stage(wave))
    stage(wave[:1])  # a wave that is being saved
    first, second, third = (adapters.folder_of(tmp_path, variant) for variant in wave)
    (first / adapters.META).write_text("{")
    (second / adapters.WEIGHTS).unlink()
    foreign = tmp_path / "elsewhere" / "mine"
    foreign.mkdir(parents=True)
    (foreign / adapters.CONFIG).write_text(json.dumps({"base_model_name_or_path": "somewhere"}))
    (foreign / adapters.WEIGHTS).write_bytes(b"any")
    found = {adapter.name: adapter for adapter in adapters.finished_adapters(tmp_path)}
    assert set(found) == {third.name, "mine"}
    assert (found["mine"].model, found["mine"].base_folder, found["mine"].digest) == ("elsewhere", "somewhere", None)
    assert (found[third.name].model, found[third.name].base_folder) == (wave[2].model, "")
    for adapter in found.values():
        adapter.check_whole()
    (third / adapters.WEIGHTS).write_bytes(b"other")
    with pytest.raises(ModelError, match="its weights are damaged"):
        found[third.name].check_whole()
    assert adapters.finished_adapters(tmp_path / "none") == []
