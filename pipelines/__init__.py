"""The room that swaps pixels. It tells nobody: what its libraries decide when they load is decided here before them."""

import os

os.environ |= {
    # From 1.29 on ONNX Runtime sends names and hashes of graphs and times of their runs to its makers, and keeps them,
    # with an identifier of the machine, in a database in the home folder (its docs/Privacy.md).
    "ORT_DISABLE_TELEMETRY": "1",
    # Weights come from files that were checked. No library of Hugging Face is to look for others, or to tell of these.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
