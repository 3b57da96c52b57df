"""``nanoswap plan``: the published day, what a profile may hold, and the chart."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nanoswap.serve.cli import main
from nanoswap.serve.plan_chart import chart
from nanoswap.serve.plan_profile import read_question

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SVG = "{http://www.w3.org/2000/svg}"


def small(tmp_path: Path, *changes: tuple[str, str]) -> str:
    """The weekend with few jobs on two GPUs, and what else is changed in its text."""
    text = (EXAMPLES / "weekend.toml").read_text()
    for line, to in (("jobs = 22000", "jobs = 1500"), ("shared = 8", "shared = 2"), ("days = 4", "days = 1"), *changes):
        assert line in text
        text = text.replace(line, to, 1)
    path = tmp_path / "day.toml"
    path.write_text(text)
    return str(path)


def test_weekend_meets_its_target_where_first_in_first_out_gives_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.svg"
    assert main(["plan", "--profile", str(EXAMPLES / "weekend.toml"), "-o", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    peak = answer["peak"]
    assert peak["gpus"] == 8
    assert peak["image"][1] <= 3
    assert peak["video"][1] <= 180
    assert peak["fifo_image"][1] > 180
    assert peak["fifo_video"][1] > 180
    assert (answer["image_met"], answer["video_met"]) == (True, True)
    assert answer["gpu_hours"] == 192
    assert answer["cost"] == 480
    assert answer["day"]["jobs"] == pytest.approx(22_330, abs=300)
    assert len(ElementTree.fromstring(out.read_text()).findall(f"{SVG}polyline")) == 3


def test_table_says_what_is_met_and_what_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "plan.svg")
    changes = ("image_p95 = 3.0", "image_p95 = 0.5"), ("video_p95 = 180.0", "video_p95 = 9000.0")
    assert main(["plan", "--profile", small(tmp_path, *changes), "-o", out]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 24 + 2
    assert len({row.count("|") for row in rows}) == 1
    assert "target for pictures at the peak, p95 0.5 s: MISSED" in said
    assert "target for clips at the peak, p95 9000 s: met" in said
    assert "cost a day: 48 GPU hours, 120.00 USD" in said
    assert said.endswith(f"{out}\n")


def test_words_come_before_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--profile", small(tmp_path), "-o", str(tmp_path / "plan.svg"), "--json"]
    assert main([*words, "--gpus", "3", "--jobs", "500"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["gpu_hours"] == 72
    assert answer["day"]["jobs"] == pytest.approx(500, abs=120)


def test_gpus_of_their_own_for_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = small(tmp_path, ("shared = 2 ", "image = 1\nvideo = [" + "1," * 12 + "2," * 12 + "]\n#"))
    with pytest.raises(AssertionError):
        small(tmp_path, ("no such line", ""))
    assert main(["plan", "--profile", own, "-o", str(tmp_path / "plan.svg"), "--json"]) == 2
    assert "chunk is not known" in capsys.readouterr().err
    text = Path(own).read_text().replace("chunk = 2.0", "#")
    Path(own).write_text(text)
    assert main(["plan", "--profile", own, "-o", str(tmp_path / "plan.svg"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["gpus"] for row in answer["hours"]] == [2] * 12 + [3] * 12
    assert answer["gpu_hours"] == 60


def test_size_finds_gpus_that_meet_the_target_in_every_hour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--profile", small(tmp_path, ("jobs = 1500", "jobs = 4000")), "-o", str(tmp_path / "plan.svg")]
    assert main([*words, "--size", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    gpus = [row["gpus"] for row in answer["hours"]]
    assert min(gpus) == 1
    assert max(gpus) > 1
    for row in answer["hours"]:
        assert row["image"] is None or row["image"][1] <= 3
        assert row["video"] is None or row["video"][1] <= 180


def test_log_stands_for_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.csv"
    midnight = 1_790_000_000 // 86_400 * 86_400
    rows = [f"{midnight + 13 * 3600 + 10 * number},image,2" for number in range(100)]
    log.write_text("\n".join(["at,kind,gpu_seconds", *rows, f"{midnight + 90_000},video,60"]))
    out = str(tmp_path / "plan.svg")
    assert main(["plan", "--profile", small(tmp_path), "--log", str(log), "-o", out, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["days"] == 2
    assert [row["jobs"] for row in answer["hours"]] == [0, 0.5] + [0] * 11 + [50] + [0] * 10
    assert answer["hours"][13]["image"] == [0, 0, 0]
    assert answer["peak"]["image"] is None


@pytest.mark.parametrize(
    ("line", "to", "says"),
    [
        ("days = 1", "days = 1.5", "[day]: days must be a whole number"),
        ("days = 1", "days = 0", "[day]: days must be"),
        ("seed = 1", "sead = 1", "[day]: seed must be given"),
        ("slots = 1", "slots = 1\nslot = 1", "[image]: slot is not known"),
        ("[gpus]", "[machines]", "gpus must be given"),
        ("median = 1.8", 'median = "1.8"', "[image]: median must be a number"),
        ("median = 1.8", "median = nan", "[image]: median must be a number"),
        ("spread = 0.35", "spread = true", "[image]: spread must be a number"),
        ("shared = 2", "shared = [1, 2]", "[gpus]: shared must be a whole number of GPUs"),
        ("shared = 2", "shared = 0", "[gpus]: shared must be"),
        ("[20, 14", "[20", "[day]: hours must be 24 numbers"),
        ("[20, 14", "[-20, 14", "[day]: hours must be 24 numbers"),
        ("peak = [14, 22]", "peak = [22, 14]", "[day]: peak must be"),
        ('"USD"', '"\\u001b[31m"', "[price]: currency must be a word"),
        ("jobs = 1  ", "jobs = 2  ", "video.slots must be at least video.jobs"),
        ("[day]", "[day", "day.toml"),
    ],
)
def test_profile_that_makes_no_sense_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, to: str, says: str
) -> None:
    assert main(["plan", "--profile", small(tmp_path, (line, to)), "-o", str(tmp_path / "plan.svg")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("nanoswap: ")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["day.toml"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gpus", "0"], "--gpus"),
        (["--jobs", "0"], "--jobs"),
        (["--log", "missing.csv"], "missing.csv"),
        (["-o", "missing/plan.svg"], "not a folder"),
    ],
)
def test_words_that_make_no_sense_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["plan", "--profile", small(tmp_path), "-o", str(tmp_path / "plan.svg"), *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_missing_profile_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--profile", "missing.toml"]) == 2
    assert capsys.readouterr().err == "nanoswap: missing.toml: No such file or directory\n"


@pytest.mark.parametrize("name", ["weekend", "weekday"])
def test_examples_are_read(name: str) -> None:
    question = read_question(EXAMPLES / f"{name}.toml")
    assert question.peak == (14, 22)
    assert question.fleet.shared
    assert question.fleet.image == (8,) * 24


def test_chart_is_a_picture_that_says_what_it_shows() -> None:
    line = [0.0] * 12 + [None] * 6 + [5000.0] * 6
    tree = ElementTree.fromstring(chart("Waits <today>", {"clips & more": line}, (14, 22)))
    assert tree.get("role") == "img"
    assert tree.findtext(f"{SVG}title") == "Waits <today>"
    assert "clips & more" in [text.text for text in tree.iter(f"{SVG}text")]
    runs = [run.get("points", "") for run in tree.iter(f"{SVG}polyline")]
    assert [len(run.split()) for run in runs] == [12, 6]
    height = [float(re.split("[ ,]", run)[1]) for run in runs]
    # A longer wait is higher up, and both are inside.
    assert 44 <= height[1] < height[0] <= 420 - 44
