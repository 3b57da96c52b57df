"""What all rooms' tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-ins for all files of weights, with `models.toml`."""
    from tests.stand_ins.write import write

    return write(tmp_path_factory.mktemp("models")).parent
