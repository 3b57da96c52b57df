import pytest

from nanoswap.pipelines.swap import SwapOptions
from nanoswap.serve.options import swap_options
from nanoswap.serve.problems import Problem


def test_defaults() -> None:
    assert swap_options({}) == SwapOptions()


def test_ids_are_split() -> None:
    assert swap_options({"faces": "f1, f2,"}).faces == ("f1", "f2")
    assert swap_options({"faces": "largest"}).faces == "largest"


@pytest.mark.parametrize(
    "fields",
    [
        {"faces": ","},
        {"format": "gif"},
        {"quality": "0"},
        {"quality": "101"},
        {"quality": "-1"},
        {"quality": "best"},
    ],
)
def test_wrong_options_name_their_field(fields: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        swap_options(fields)
    assert caught.value.code == "bad_request"
    assert caught.value.part in fields
