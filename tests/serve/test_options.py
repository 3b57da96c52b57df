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
        {"seed": "-1"},
        {"seed": "4294967296"},
        {"seed": "1.0"},
        {"seed": ""},
    ],
)
def test_wrong_options_name_their_field(fields: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        swap_options(fields)
    assert caught.value.code == "bad_request"
    assert caught.value.part in fields


def test_seed_is_read_to_its_last_bit() -> None:
    assert swap_options({"seed": "7"}).seed == 7
    assert swap_options({"seed": "4294967295"}).seed == 2**32 - 1
    with pytest.raises(Problem, match="0 to 4294967295") as caught:
        swap_options({"seed": "4294967296"})
    assert caught.value.part == "seed"


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
    assert chosen_engine({}, engines) is engines["inswapper"]
    assert chosen_engine({"engine": ""}, engines) is engines["inswapper"]
    assert chosen_engine({"engine": "mesh"}, engines) is engines["mesh"]
    with pytest.raises(Problem) as caught:
        chosen_engine({"engine": "outswapper"}, engines, ["flagship"])
    assert (caught.value.code, caught.value.part) == ("bad_request", "engine")
    assert caught.value.detail == "'engine' is one of inswapper, mesh."
    with pytest.raises(Problem) as caught:
        chosen_engine({"engine": "flagship"}, engines, ["flagship"])
    assert (caught.value.code, caught.value.part) == ("bad_request", "engine")
    assert caught.value.detail == "'flagship' swaps pictures only: for a clip 'engine' is one of inswapper, mesh."
