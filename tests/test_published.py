from limber_interp.config import config_names, load_config
from limber_interp.published import BLOB_IDS, ENCODER_LOST, FILE, NEVER_PUBLISHED, git_blob_id, provenance


def test_gits_own_ids(tmp_path):
    """As `git hash-object` gives them."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert git_blob_id(file) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    file.write_bytes(b"hello\n")
    assert git_blob_id(file) == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_every_config_of_limbers_looks_where_the_published_file_is_put():
    limbers = {name for name in config_names() if not name.startswith("emoji_")}
    assert limbers == {*BLOB_IDS, NEVER_PUBLISHED}
    assert ENCODER_LOST in BLOB_IDS
    assert load_config(NEVER_PUBLISHED).projection is None
    for name in BLOB_IDS:
        assert load_config(name).projection == f"limber_weights/{name}/{FILE}"


def test_a_file_is_recognised_by_its_content(tmp_path, monkeypatch):
    file = tmp_path / "any.name"
    file.write_bytes(b"hello\n")
    assert provenance(file) == {
        "file": "any.name",
        "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "git_blob_id": "ce013625030ba8dba906f756967f9e9ca394464a",
        "published": None,
    }
    monkeypatch.setitem(BLOB_IDS, "clip_linear", git_blob_id(file))
    assert provenance(file)["published"] == "clip_linear"
