from dalle_cli import migrations


def test_no_key_is_renamed_to_itself():
    tables = [value for name, value in vars(migrations).items() if name.endswith("_KEYS")]
    flat = [table for table in tables for table in (table.values() if _nested(table) else [table])]
    assert all(old != new for table in flat for old, new in table.items())


def _nested(table):
    return bool(table) and all(isinstance(value, dict) for value in table.values())
