"""Everything an operator may set, read once from the environment and never changed.

Every process of the service (gateway, replica, command line) builds the same frozen object from the same
variables, so nothing secret travels through Ray's control store, which keeps deployment arguments in clear.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from nanoswap.queue.scaling import Rules
from nanoswap.queue.ticket import Kind
from nanoswap.serve.environment import SettingsError, integer, number, one_of
from nanoswap.serve.model_settings import ModelSettings
from nanoswap.serve.provenance_settings import ProvenanceSettings
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.safety_settings import SafetySettings
from nanoswap.serve.scaling_settings import scaling_rules

#: "1" in the processes of a run that brought its own issuer.
DEVELOPMENT = "NANOSWAP_DEVELOPMENT"
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The service's settings; each field names its environment variable in ``VARIABLES``."""

    redis_url: str
    #: Base URL of Supabase Auth, e.g. ``https://PROJECT.supabase.co/auth/v1``.
    auth_url: str
    #: The ``iss`` that access tokens carry; Supabase issues it equal to ``auth_url`` unless a custom domain is used.
    auth_issuer: str
    #: Supabase's publishable key: public, needed by its gateway, no authority of its own.
    auth_key: str | None = None
    allow_anonymous: bool = False
    #: Sessions come from the development issuer of this very run: `local_service` says so, nobody else can.
    development: bool = False
    #: Keys both the account pseudonyms and the sealed tickets. At least 32 bytes.
    secret: bytes = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    models: ModelSettings = field(default_factory=ModelSettings)
    safety: SafetySettings = field(default_factory=SafetySettings)
    provenance: ProvenanceSettings = field(default_factory=ProvenanceSettings)
    public: PublicSettings = field(default_factory=PublicSettings)
    #: Swaps that one image replica runs at once.
    image_slots: int = 1
    image_replicas: int = 1
    gateway_replicas: int = 1
    image_gpus: float = 0.0
    #: 0 closes the video line.
    video_replicas: int = 1
    #: Turns that one video replica holds at once; more than ``video_jobs`` lets uploads overlap with work.
    video_slots: int = 2
    #: Clips that one video replica works on at once.
    video_jobs: int = 1
    video_gpus: float = 0.0
    #: Of each kind, on one machine of the cluster; None: as many as its GPUs bear.
    replicas_per_node: int | None = None
    #: How the number of replicas follows line and clock; None: it is fixed.
    image_rules: Rules | None = None
    video_rules: Rules | None = None
    #: x264's preset where the machine has no encoder of its own: from ultrafast to veryslow.
    video_preset: str = "veryfast"
    #: A file that replicas of one GPU lock, so that clips let pictures by; None: nothing is shared.
    gpu_lock: str | None = None
    max_image_bytes: int = 30 * 2**20
    max_image_pixels: int = 40_000_000
    max_image_side: int = 12_000
    max_video_bytes: int = 90 * 2**20
    max_video_pixels: int = 1920 * 1088
    max_video_seconds: float = 60.0
    max_video_frames: int = 3600
    max_video_fps: float = 120.0
    #: Seconds within which the parts of a body must have arrived.
    upload_seconds: float = 30.0
    upload_video_seconds: float = 120.0
    #: Seconds of work that one picture and one clip may cost; a look at faces costs at most the former.
    swap_seconds: float = 120.0
    swap_video_seconds: float = 900.0
    #: Seconds within which a result of a clip must have been taken, slow connections included.
    deliver_seconds: float = 900.0

    #: Opens ``/metrics`` to whoever sends it; None: there is no such address. At least 32 characters.
    metrics_token: str | None = field(default=None, repr=False)
    #: A line in the log for every turn that has ended; see ``turn_record.py``.
    log_turns: bool = False
    #: Proxies of the operator's before the edge, each of which appends its peer to X-Forwarded-For.
    trusted_proxies: int = 0
    #: Requests a minute: of an address, of an account, and of an account for places in line and for looks at faces.
    #: 0: not counted.
    rate_address: int = 1200
    rate_account: int = 300
    rate_tickets: int = 30
    rate_faces: int = 30

    @property
    def auth_origin(self) -> str:
        """Scheme, host and port of the auth service, for the page's content security policy."""
        parts = urlsplit(self.auth_url)
        return f"{parts.scheme}://{parts.netloc}"

    def rules(self, kind: Kind) -> Rules | None:
        """How the number of replicas of a line follows line and clock; None: it is fixed."""
        return self.image_rules if kind is Kind.IMAGE else self.video_rules

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read every setting; raise SettingsError naming the variable and what it needs."""
        supabase = environment.get("SUPABASE_URL")
        auth_url = environment.get("NANOSWAP_AUTH_URL") or (f"{supabase.rstrip('/')}/auth/v1" if supabase else "")
        if not auth_url:
            raise SettingsError("SUPABASE_URL is not set: the base URL of the Supabase project is needed")
        parts = urlsplit(auth_url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise SettingsError("SUPABASE_URL must be https: access tokens would cross the network in clear")
        development = environment.get(DEVELOPMENT) == "1"
        if development and parts.scheme == "https":
            raise SettingsError(f"{DEVELOPMENT} is not yours to set: 'nanoswap serve' sets it where it signs people in")
        secret = environment.get("NANOSWAP_SECRET", "").encode()
        if len(secret) < 32:
            raise SettingsError("NANOSWAP_SECRET must have at least 32 characters: it keys accounts and tickets")
        redis_url = environment.get("REDIS_URL", "")
        if not redis_url:
            raise SettingsError("REDIS_URL is not set: the waiting room needs a Redis or Valkey server")
        safety = SafetySettings.from_environment(environment)
        image_replicas = integer(environment, "NANOSWAP_IMAGE_REPLICAS", 1, 1, 1024)
        image_slots = integer(environment, "NANOSWAP_IMAGE_SLOTS", 1, 1, 64)
        video_replicas = integer(environment, "NANOSWAP_VIDEO_REPLICAS", 1, 0, 1024)
        video_jobs = integer(environment, "NANOSWAP_VIDEO_JOBS", 1, 1, 64)
        video_slots = integer(environment, "NANOSWAP_VIDEO_SLOTS", max(2, video_jobs), 1, 64)
        if video_slots < video_jobs:
            raise SettingsError("NANOSWAP_VIDEO_SLOTS must be at least NANOSWAP_VIDEO_JOBS")
        return cls(
            redis_url=redis_url,
            auth_url=auth_url,
            auth_issuer=environment.get("NANOSWAP_AUTH_ISSUER", auth_url),
            auth_key=environment.get("SUPABASE_PUBLISHABLE_KEY") or None,
            allow_anonymous=environment.get("NANOSWAP_ALLOW_ANONYMOUS", "0") == "1",
            development=development,
            secret=secret,
            host=environment.get("NANOSWAP_HOST", "127.0.0.1"),
            port=integer(environment, "NANOSWAP_PORT", 8000, 1, 65535),
            models=ModelSettings.from_environment(environment),
            safety=safety,
            provenance=ProvenanceSettings.from_environment(environment, safety.region),
            public=PublicSettings.from_environment(environment),
            image_slots=image_slots,
            image_replicas=image_replicas,
            image_rules=scaling_rules(environment, Kind.IMAGE, image_replicas, image_slots),
            gateway_replicas=integer(environment, "NANOSWAP_GATEWAY_REPLICAS", 1, 1, 64),
            image_gpus=number(environment, "NANOSWAP_IMAGE_GPUS", 0.0, 0.0, 8.0),
            video_replicas=video_replicas,
            # Not by the turns that it holds: those beyond its jobs wait there.
            video_rules=scaling_rules(environment, Kind.VIDEO, video_replicas, video_jobs),
            video_slots=video_slots,
            video_jobs=video_jobs,
            video_gpus=number(environment, "NANOSWAP_VIDEO_GPUS", 0.0, 0.0, 8.0),
            replicas_per_node=integer(environment, "NANOSWAP_REPLICAS_PER_NODE", 0, 0, 64) or None,
            video_preset=one_of(environment, "NANOSWAP_VIDEO_PRESET", "veryfast", PRESETS),
            gpu_lock=environment.get("NANOSWAP_GPU_LOCK") or None,
            max_image_bytes=integer(environment, "NANOSWAP_MAX_IMAGE_BYTES", 30 * 2**20, 2**10, 90 * 2**20),
            max_image_pixels=integer(environment, "NANOSWAP_MAX_IMAGE_PIXELS", 40_000_000, 4096, 178_000_000),
            max_image_side=integer(environment, "NANOSWAP_MAX_IMAGE_SIDE", 12_000, 64, 30_000),
            max_video_bytes=integer(environment, "NANOSWAP_MAX_VIDEO_BYTES", 90 * 2**20, 2**10, 2**31),
            max_video_pixels=integer(environment, "NANOSWAP_MAX_VIDEO_PIXELS", 1920 * 1088, 4096, 8192 * 4352),
            max_video_seconds=number(environment, "NANOSWAP_MAX_VIDEO_SECONDS", 60.0, 1.0, 7200.0),
            max_video_frames=integer(environment, "NANOSWAP_MAX_VIDEO_FRAMES", 3600, 1, 1_000_000),
            max_video_fps=number(environment, "NANOSWAP_MAX_VIDEO_FPS", 120.0, 1.0, 480.0),
            upload_video_seconds=number(environment, "NANOSWAP_UPLOAD_VIDEO_SECONDS", 120.0, 1.0, 3600.0),
            deliver_seconds=number(environment, "NANOSWAP_DELIVER_SECONDS", 900.0, 10.0, 14400.0),
            metrics_token=_token(environment, "NANOSWAP_METRICS_TOKEN"),
            log_turns=environment.get("NANOSWAP_LOG_TURNS", "0") == "1",
            trusted_proxies=integer(environment, "NANOSWAP_TRUSTED_PROXIES", 0, 0, 8),
            rate_address=integer(environment, "NANOSWAP_RATE_ADDRESS", 1200, 0, 60_000),
            rate_account=integer(environment, "NANOSWAP_RATE_ACCOUNT", 300, 0, 60_000),
            rate_tickets=integer(environment, "NANOSWAP_RATE_TICKETS", 30, 0, 60_000),
            rate_faces=integer(environment, "NANOSWAP_RATE_FACES", 30, 0, 60_000),
            swap_seconds=number(environment, "NANOSWAP_SWAP_SECONDS", 120.0, 1.0, 3600.0),
            swap_video_seconds=number(environment, "NANOSWAP_SWAP_VIDEO_SECONDS", 900.0, 10.0, 14400.0),
            upload_seconds=number(environment, "NANOSWAP_UPLOAD_SECONDS", 30.0, 1.0, 300.0),
        )


def _token(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name)
    if value and (len(value) < 32 or not value.isascii() or not value.isprintable() or " " in value):
        raise SettingsError(f"{name} must have at least 32 printable ASCII characters and no space")
    return value or None


def new_secret() -> str:
    """A secret for one local run: accounts and tickets made with it end with the run."""
    return secrets.token_hex(32)
