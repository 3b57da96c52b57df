"""Settings: read once, refuse early, never print a secret."""

import pytest

from nanoswap.pipelines.runtime import Runtime
from nanoswap.serve.settings import Settings, SettingsError

GOOD = {
    "SUPABASE_URL": "https://project.supabase.co/",
    "NANOSWAP_SECRET": "s" * 32,
    "REDIS_URL": "redis://127.0.0.1:6379/0",
}


def test_supabase_project_gives_auth_url_issuer_and_origin() -> None:
    settings = Settings.from_environment(GOOD)
    assert settings.auth_url == settings.auth_issuer == "https://project.supabase.co/auth/v1"
    assert settings.auth_origin == "https://project.supabase.co"
    assert not settings.development


def test_issuer_may_differ_from_the_address() -> None:
    settings = Settings.from_environment(GOOD | {"NANOSWAP_AUTH_ISSUER": "https://auth.example.com/auth/v1"})
    assert settings.auth_issuer == "https://auth.example.com/auth/v1"


def test_development_is_what_the_local_service_says_and_not_a_sign_in_on_loopback() -> None:
    own = GOOD | {"NANOSWAP_AUTH_URL": "http://127.0.0.1:9999/auth/v1"}
    assert not Settings.from_environment(own).development
    assert Settings.from_environment(own | {"NANOSWAP_DEVELOPMENT": "1"}).development
    with pytest.raises(SettingsError, match="NANOSWAP_DEVELOPMENT"):
        Settings.from_environment(GOOD | {"NANOSWAP_DEVELOPMENT": "1"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SUPABASE_URL": ""}, "SUPABASE_URL"),
        ({"SUPABASE_URL": "http://project.supabase.co"}, "https"),
        ({"NANOSWAP_SECRET": "short"}, "NANOSWAP_SECRET"),
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"NANOSWAP_PORT": "eighty"}, "NANOSWAP_PORT"),
        ({"NANOSWAP_PORT": "0"}, "NANOSWAP_PORT"),
        ({"NANOSWAP_ENGINE": "mesh,mesh"}, "NANOSWAP_ENGINE"),
        ({"NANOSWAP_ENGINE": " , "}, "NANOSWAP_ENGINE"),
        ({"NANOSWAP_DEVICE": "tpu"}, "NANOSWAP_DEVICE"),
        ({"NANOSWAP_TILES": "3"}, "NANOSWAP_TILES"),
        ({"NANOSWAP_BATCH": "0"}, "NANOSWAP_BATCH"),
        ({"NANOSWAP_DTYPE": "int8"}, "NANOSWAP_DTYPE"),
        ({"NANOSWAP_STEP_BATCH": "65"}, "NANOSWAP_STEP_BATCH"),
        ({"NANOSWAP_ADMITTED": "257"}, "NANOSWAP_ADMITTED"),
        ({"NANOSWAP_ADMITTED": "7"}, "NANOSWAP_ADMITTED must be at least NANOSWAP_STEP_BATCH"),
        ({"NANOSWAP_STEP_BATCH": "17"}, "NANOSWAP_ADMITTED must be at least NANOSWAP_STEP_BATCH"),
        ({"NANOSWAP_COMPILE": "yes"}, "NANOSWAP_COMPILE"),
        ({"NANOSWAP_IMAGE_SLOTS": "1.5"}, "NANOSWAP_IMAGE_SLOTS"),
        ({"NANOSWAP_UPLOAD_SECONDS": "nan"}, "NANOSWAP_UPLOAD_SECONDS"),
        ({"NANOSWAP_VIDEO_PRESET": "fastest"}, "NANOSWAP_VIDEO_PRESET"),
        ({"NANOSWAP_VIDEO_REPLICAS": "-1"}, "NANOSWAP_VIDEO_REPLICAS"),
        ({"NANOSWAP_VIDEO_SLOTS": "1", "NANOSWAP_VIDEO_JOBS": "2"}, "NANOSWAP_VIDEO_SLOTS must be at least"),
        ({"NANOSWAP_METRICS_TOKEN": "m" * 31}, "NANOSWAP_METRICS_TOKEN"),
        ({"NANOSWAP_METRICS_TOKEN": "m" * 31 + " m"}, "NANOSWAP_METRICS_TOKEN"),
    ],
)
def test_wrong_settings_are_refused_by_name(change: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_environment(GOOD | change)


def test_secret_is_not_printed() -> None:
    assert "ssss" not in repr(Settings.from_environment(GOOD))


def test_token_of_the_metrics_is_not_printed_and_nothing_is_none() -> None:
    settings = Settings.from_environment(GOOD | {"NANOSWAP_METRICS_TOKEN": "m" * 32})
    assert settings.metrics_token == "m" * 32
    assert "mmmm" not in repr(settings)
    assert Settings.from_environment(GOOD | {"NANOSWAP_METRICS_TOKEN": ""}).metrics_token is None
    assert not Settings.from_environment(GOOD).log_turns
    assert Settings.from_environment(GOOD | {"NANOSWAP_LOG_TURNS": "1"}).log_turns


def test_engines_and_how_they_run() -> None:
    models = Settings.from_environment(
        GOOD
        | {
            "NANOSWAP_ENGINE": "inswapper, mesh",
            "NANOSWAP_MODELS": "/weights",
            "NANOSWAP_ACCEPT_LICENCES": "a-licence,another",
            "NANOSWAP_SWAPPER": "torch",
            "NANOSWAP_DTYPE": "bfloat16",
            "NANOSWAP_BATCH": "8",
            "NANOSWAP_WINDOW_MS": "5",
            "NANOSWAP_TILES": "2",
            "NANOSWAP_MATCH_TONE": "1",
        }
    ).models
    assert (models.engine, models.engines) == ("inswapper", ("inswapper", "mesh"))
    assert (str(models.folder), models.accepted) == ("/weights", {"a-licence", "another"})
    assert (models.runtime.swapper, models.runtime.dtype) == ("torch", "bfloat16")
    assert (models.runtime.batching.most, models.runtime.batching.wait) == (8, 0.005)
    assert (models.style.tiles, models.style.tone, models.style.exact) == (2, True, False)


def test_how_diffusion_runs_does_not_depend_on_the_swapper() -> None:
    words = {"DTYPE": "bfloat16", "DEVICE": "cuda", "STEP_BATCH": "4", "ADMITTED": "4", "COMPILE": "1"}
    runtime = Settings.from_environment(
        GOOD | {f"NANOSWAP_{name}": word for name, word in words.items()}
    ).models.runtime
    assert (runtime.swapper, runtime.dtype, runtime.device) == ("onnx", "bfloat16", "cuda")
    assert (runtime.step_batch, runtime.admitted, runtime.compile) == (4, 4, True)
    assert Settings.from_environment(GOOD).models.runtime == Runtime()
