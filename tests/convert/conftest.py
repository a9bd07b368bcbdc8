from tests.generate.conftest import tiny  # noqa: F401  (a fixture)
