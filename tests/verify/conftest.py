from tests.packages.conftest import make_package  # noqa: F401 - a fixture
