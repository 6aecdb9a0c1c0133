from didgen.runtime.files import atomic_directory, atomic_path
from didgen.runtime.leftovers import remove_leftovers


def test_what_interrupted_writes_left_is_removed_and_nothing_else(tmp_path):
    kept = ["a.png", ".hidden", ".config.part", "b.part", ".parts"]
    for name in kept:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "c.tar.gz") as file, atomic_directory(tmp_path / "state") as folder:
        (folder / "weights").touch()
        # As after a kill here.
        (tmp_path / (file.name + ".copy")).touch()
        left = [file, folder]
        assert remove_leftovers(tmp_path) == sorted(left)
        assert not file.exists() and not folder.exists()
        file.touch()
        folder.mkdir()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*kept, "c.tar.gz", "state", file.name + ".copy"}


def test_leftovers_of_one_name(tmp_path):
    for name in (".backbone.partabcdefgh", ".other.partabcdefgh"):
        (tmp_path / name).mkdir()
    assert remove_leftovers(tmp_path, of="backbone") == [tmp_path / ".backbone.partabcdefgh"]


def test_no_folder_has_no_leftovers(tmp_path):
    assert remove_leftovers(tmp_path / "none") == []
