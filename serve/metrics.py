"""The numbers that operators watch: every name, every label and every value that a label can have.

**No content.** A label's values are listed here and nowhere else, so no path, account, address, file name or number of
somebody's picture can become one; ``meter.py`` turns what is not listed into ``other``, and ``exposition.py`` writes
what is listed and nothing else, whatever a store holds.

**How they leave.** Gateways and replicas are processes of their own, started and ended as the day goes, and all the
replicas of one application stand behind one address. So a ``/metrics`` of each application would answer for one of them
at random. Ray's metrics agent would know them all (it runs without the dashboard, and listens on loopback when the node
does); but it listens on every interface when the node's address isn't loopback, and asks nobody for a token; its series
carry the ids of workers and nodes and end with them; there is one agent per node, at a port that is random unless set;
and what the line knows isn't any process's own. So each process adds what it has counted to sums in the store that all
of them share already (``queue/sums.py``), the room counts what happens in it in the very steps that do it
(``queue/tally.py``), and any gateway can answer for the whole service: one address, the same on one machine and in a
cluster. A count is at most ``meter.PUBLISH_SECONDS`` late, what a process has counted since is lost when it is killed,
and nothing is known while the store is away, which is an alarm of its own.

``/metrics`` is an address of the gateway's and so can be reached through the edge. It is nobody's but the
operator's: without ``NANOSWAP_METRICS_TOKEN`` it does not exist, and without that token in a request it answers as an
address that does not exist.

The names follow https://prometheus.io/docs/practices/naming/ (base units, ``_total`` for what only grows).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from nanoswap.pipelines.errors import REASONS
from nanoswap.queue.tally import WAIT_BOUNDS
from nanoswap.queue.ticket import Kind, State
from nanoswap.serve.problems import CODES

#: What a label says of a value that isn't listed.
OTHER: Final = "other"
#: A request that was refused before it was known what it asks for, and one whose sender left before its answer.
UNROUTED: Final = "unrouted"
UNANSWERED: Final = "unanswered"
#: Any of the files of the page.
PAGE: Final = "page"

KINDS: Final = tuple(kind.value for kind in Kind)
#: Of a turn, in order: the upload, waiting for a free place at the GPU, four of work, and the result on its way out. A
#: clip is encoded and taken while it is swapped.
STAGES: Final = ("upload", "ready", "decode", "detect", "swap", "encode", "deliver")
#: Templates of addresses, behind the prefix of their application.
ROUTES: Final = (
    "/v1/config",
    "/v1/queue",
    "/v1/models",
    "/v1/verify",
    "/v1/quota",
    "/v1/account",
    "/v1/hooks/account-deleted",
    "/v1/tickets",
    "/v1/tickets/{ticket_id}",
    "/v1/tickets/{ticket_id}/events",
    "/image/v1/faces",
    "/image/v1/tickets/{ticket_id}/swap",
    "/video/v1/tickets/{ticket_id}/swap",
    "/.well-known/security.txt",
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    PAGE,
    UNROUTED,
    OTHER,
)
STATUSES: Final = (
    *(str(status) for status in sorted({200, 201, 204, 304, 307} | {status for status, _ in CODES.values()})),
    UNANSWERED,
    OTHER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric. ``labels``: name -> every value. ``bounds``: of a histogram, upper ends of its buckets. ``scale``:
    whole numbers are summed up, so many to one of the unit. ``sparse``: what is 0 is left out."""

    name: str
    help: str
    type: Literal["gauge", "counter", "histogram"]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()
    scale: int = 1
    sparse: bool = False


_KIND: Final = {"kind": KINDS}

WAITING: Final = Family(name="nanoswap_waiting", help="People in line.", type="gauge", labels=_KIND)
WORK: Final = Family(
    name="nanoswap_work_seconds",
    help="Estimated GPU seconds of those in line, scaled by how long turns took lately.",
    type="gauge",
    labels=_KIND,
)
SLOTS: Final = Family(name="nanoswap_slots", help="Turns that live workers take at once.", type="gauge", labels=_KIND)
RUNNING: Final = Family(name="nanoswap_running", help="Turns that are running.", type="gauge", labels=_KIND)
WORKERS: Final = Family(name="nanoswap_workers", help="Workers that are alive.", type="gauge", labels=_KIND)
WAIT: Final = Family(
    name="nanoswap_wait_seconds",
    help="From the place in line to the first grant, of people who were there all the time.",
    type="histogram",
    labels=_KIND,
    bounds=WAIT_BOUNDS,
)
ETA_QUOTED: Final = Family(
    name="nanoswap_eta_quoted",
    help="Waits that were quoted at the join and are known to have held or not.",
    type="counter",
    labels=_KIND,
)
ETA_COVERED: Final = Family(
    name="nanoswap_eta_covered", help="Those that were at most the quoted p90.", type="counter", labels=_KIND
)
GRANTS: Final = Family(name="nanoswap_grants", help="Turns granted.", type="counter", labels=_KIND)
NO_SHOWS: Final = Family(name="nanoswap_no_shows", help="Grants that nobody came for.", type="counter", labels=_KIND)
TICKETS: Final = Family(
    name="nanoswap_tickets",
    help="Tickets that came to a state; waiting: places taken.",
    type="counter",
    labels={"kind": KINDS, "state": tuple(state.value for state in State)},
)
PROVE_TIME: Final = Family(
    name="nanoswap_prove_timestamp_seconds", help="When the last search for remnants ended.", type="gauge"
)
PROVE_PASSED: Final = Family(name="nanoswap_prove_passed", help="Whether it found nothing: 1 or 0.", type="gauge")
KEYS_OVERDUE: Final = Family(
    name="nanoswap_jwks_overdue_seconds",
    help="For how long a process could not renew the sign-in service's keys.",
    type="gauge",
)

STAGE: Final = Family(
    name="nanoswap_stage_seconds",
    help="Of a turn, by what was done.",
    type="histogram",
    labels={"kind": KINDS, "stage": (*STAGES, OTHER)},
    bounds=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)
BUSY: Final = Family(
    name="nanoswap_busy_seconds", help="Seconds of work of all turns.", type="counter", labels=_KIND, scale=1000
)
BATCH: Final = Family(
    name="nanoswap_batch_size",
    help="Rows of one forward of a network, pictures of one step of diffusion.",
    type="histogram",
    labels={"kind": KINDS, "of": ("forward", "step", OTHER)},
    bounds=(1, 2, 4, 8, 16, 32, 64),
)
REFUSALS: Final = Family(
    name="nanoswap_gate_refusals",
    help="Swaps that the safety gate refused.",
    type="counter",
    labels={"reason": (*REASONS, OTHER)},
)
REQUESTS: Final = Family(
    name="nanoswap_http_requests",
    help="Requests by address template and answer.",
    type="counter",
    labels={"route": ROUTES, "status": STATUSES},
    sparse=True,
)

#: What processes count, and what the line, the last report and the sessions say when asked.
COUNTED: Final = (STAGE, BUSY, BATCH, REFUSALS, REQUESTS)
ASKED: Final = (
    WAITING, WORK, SLOTS, RUNNING, WORKERS, WAIT, ETA_QUOTED, ETA_COVERED, GRANTS, NO_SHOWS, TICKETS, PROVE_TIME,
    PROVE_PASSED, KEYS_OVERDUE,
)  # fmt: skip
