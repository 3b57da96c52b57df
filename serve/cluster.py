"""The applications by name, for a Ray cluster of several machines (``serveConfigV2`` of `deploy/k8s`).

There KubeRay starts Ray, and Serve imports what it deploys: ``nanoswap.serve.cluster:gateway``. Each function takes
Serve's arguments, of which there are none, and reads the settings from the environment of the pod it runs in, as all
processes of the service do. A line that is closed has no application, and deploying it is an error of the manifest.
"""

import os

from ray import serve

from nanoswap.serve.app import applications
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.settings import Settings


def gateway(arguments: dict[str, str]) -> serve.Application:
    """Page, tickets, events. Raises SettingsError."""
    return _named("gateway", arguments)


def image(arguments: dict[str, str]) -> serve.Application:
    """Pictures. Raises SettingsError."""
    return _named("image", arguments)


def video(arguments: dict[str, str]) -> serve.Application:
    """Clips. Raises SettingsError, also where ``NANOSWAP_VIDEO_REPLICAS`` is 0: leave it out of the manifest then."""
    return _named("video", arguments)


def _named(name: str, arguments: dict[str, str]) -> serve.Application:
    if arguments:
        # They would lie in Ray's control store in clear.
        raise SettingsError("the applications take no arguments: settings are environment variables")
    settings = Settings.from_environment(os.environ)
    chosen = applications(settings)
    if name not in chosen:
        raise SettingsError(f"NANOSWAP_VIDEO_REPLICAS is 0, so there is no application {name!r}")
    return chosen[name][1]
