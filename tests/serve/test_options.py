from typing import cast

import pytest

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.swap import SwapOptions
from nanoswap.pipelines.swap_clip import ClipOptions
from nanoswap.serve.options import chosen_engine, clip_options, swap_options
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


def test_options_of_a_clip() -> None:
    assert clip_options({}) == ClipOptions()
    fields = {"faces": "a, b", "at": "1.5", "start": "0.5", "end": "2", "source_face": "c"}
    assert clip_options(fields) == ClipOptions(faces=("a", "b"), at=1.5, source_face="c", start=0.5, end=2.0)


@pytest.mark.parametrize("fields", [{"at": "inf"}, {"start": "soon"}, {"end": "-1"}, {"end": "1", "start": "1"}])
def test_wrong_options_of_a_clip_name_their_field(fields: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        clip_options(fields)
    assert caught.value.part in fields


def test_engine_is_the_one_asked_for_or_the_services_own() -> None:
    engines = {"inswapper": cast("Engine", object()), "mesh": cast("Engine", object())}
    assert chosen_engine({}, engines, "inswapper") is engines["inswapper"]
    assert chosen_engine({"engine": ""}, engines, "inswapper") is engines["inswapper"]
    assert chosen_engine({"engine": "mesh"}, engines, "inswapper") is engines["mesh"]
    with pytest.raises(Problem) as caught:
        chosen_engine({"engine": "outswapper"}, engines, "inswapper")
    assert (caught.value.code, caught.value.part) == ("bad_request", "engine")
    assert "inswapper, mesh" in str(caught.value.detail)
