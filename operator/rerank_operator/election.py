"""One of several operators at a time: who holds the Lease, and so may write.

Two clocks never have to agree. The holder counts from the moment before it asked to renew, the
others from the moment they saw a renewal, each by its own monotonic clock; the times written in
the Lease are for people. So the holder always stops before another can begin.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from rerank_operator.api import Manifest
from rerank_operator.cluster import Fence
from rerank_operator.errors import LeaseLost, OperatorError, Unavailable
from rerank_operator.names import LEASES

log = logging.getLogger(__name__)

# Those of other Kubernetes controllers.
LEASE_SECONDS = 15.0
RENEW_DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 2.0
# A write that hangs ends this long before another operator may begin: clocks drift, and the API
# server counts its limit from when the request arrived.
MARGIN_SECONDS = 1.0
# Others look more often than the holder renews: how late they see the last renewal of one that
# was killed is added to the Lease's duration.
LOOK_SECONDS = 0.5
# A call that hangs must leave time for another one within the deadline.
CALL_SECONDS = 3.0


class Leases(Protocol):
    """What an election asks of the API server. Each call raises one of `errors`."""

    async def read_lease(self, namespace: str, name: str, seconds: float) -> Manifest | None: ...

    async def write_lease(self, lease: Manifest, seconds: float) -> Manifest: ...


class _Seen(NamedTuple):
    """A Lease as others write it; `version` changes with every renewal."""

    version: str
    holder: str
    seconds: float


class Election:
    """Takes a Lease, renews it, and moves the fence with each renewal."""

    def __init__(
        self,
        leases: Leases,
        namespace: str,
        name: str,
        identity: str,
        fence: Fence,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._leases = leases
        self._namespace = namespace
        self._name = name
        self._fence = fence
        self._clock = clock
        self._own: Manifest | None = None
        self._seen: _Seen | None = None
        self._seen_at = self._read_at = clock()
        # Nobody is silent who was not asked.
        self._agreed_at = math.inf

    async def acquire(self) -> None:
        """Return once the Lease is ours."""
        self._agreed_at = self._clock()
        while True:
            try:
                if await self._try_to_take():
                    log.info("leading", extra={"lease": self._title, "identity": self._identity})
                    return
            except Unavailable as error:
                log.debug("cannot take the lease", extra={"error": str(error)})
            except OperatorError as error:
                log.warning("cannot take the lease", extra={"error": str(error)})
            await asyncio.sleep(self._pause_seconds())

    async def hold(self) -> None:
        """Renew for ever.

        Without an answer the fence shuts by itself, and opens again with the next renewal: that
        the API server is away ends nothing.

        Raises:
            LeaseLost: another operator has it.
        """
        pause = RETRY_SECONDS
        was_open = True
        while True:
            await asyncio.sleep(pause)
            try:
                await self._renew()
                pause = RETRY_SECONDS
            except LeaseLost:
                self._fence.shut()
                raise
            except OperatorError as error:
                # Whether the write took effect is not known: read before the next one.
                self._own = None
                pause = LOOK_SECONDS
                log.debug("cannot renew the lease", extra={"error": str(error)})
            if self._fence.is_open() != was_open:
                was_open = not was_open
                message = "lease renewed, writing again" if was_open else "lease not renewed"
                log.log(
                    logging.INFO if was_open else logging.WARNING,
                    message,
                    extra={"lease": self._title},
                )

    async def release(self) -> None:
        """Let another operator begin at once. Only for one that holds, and writes no more."""
        self._fence.shut()
        try:
            lease = await self._read()
            if lease is None or _holder(lease) != self._identity:
                return
            spec = lease["spec"] | {"leaseDurationSeconds": 1, "renewTime": _now()}
            del spec["holderIdentity"]
            await self._leases.write_lease(lease | {"spec": spec}, CALL_SECONDS)
            log.info("lease released", extra={"lease": self._title})
        except OperatorError as error:
            log.warning("lease not released", extra={"lease": self._title, "error": str(error)})

    def silent_seconds(self) -> float:
        """Return how long ago the API server last told who holds the Lease; less than 0 until it is
        asked.
        """
        return self._clock() - self._agreed_at

    async def _try_to_take(self) -> bool:
        lease = await self._read()
        self._agreed_at = self._clock()
        if not self._is_free(lease):
            return False
        await self._write(lease)
        return True

    async def _renew(self) -> None:
        lease = self._own or await self._read()
        if lease is not None and _holder(lease) != self._identity:
            raise LeaseLost(f"the lease {self._title} is held by {_holder(lease) or 'nobody'}")
        await self._write(lease)

    def _is_free(self, lease: Manifest | None) -> bool:
        """Note what is seen, and tell whether it is ours to take."""
        now = self._clock()
        # While nothing could be read, the holder could not renew either: it gets a full term.
        blind = now - self._read_at > RENEW_DEADLINE_SECONDS
        self._read_at = now
        if lease is None:
            # Deleted under its holder, which may not know yet.
            return self._seen is None or self._has_run_out(now)
        spec = lease.get("spec", {})
        seen = _Seen(
            lease["metadata"]["resourceVersion"],
            _holder(lease),
            float(spec.get("leaseDurationSeconds", LEASE_SECONDS)),
        )
        if blind or self._seen is None or seen.version != self._seen.version:
            self._seen, self._seen_at = seen, now
        return seen.holder in ("", self._identity) or self._has_run_out(now)

    def _has_run_out(self, now: float) -> bool:
        return self._seen is not None and now >= self._seen_at + self._seen.seconds

    def _pause_seconds(self) -> float:
        """Return how long to wait before looking again: no longer than until it runs out."""
        if self._seen is None:
            return LOOK_SECONDS
        left = self._seen_at + self._seen.seconds - self._clock()
        return min(LOOK_SECONDS, left) if left > 0 else LOOK_SECONDS

    async def _read(self) -> Manifest | None:
        return await self._leases.read_lease(self._namespace, self._name, CALL_SECONDS)

    async def _write(self, lease: Manifest | None) -> None:
        """Claim the Lease as it was read, for a term that begins now."""
        asked = self._clock()
        self._own = await self._leases.write_lease(self._claim(lease), CALL_SECONDS)
        self._agreed_at = self._clock()
        self._fence.move(
            begin_before=asked + RENEW_DEADLINE_SECONDS,
            end_before=asked + LEASE_SECONDS - MARGIN_SECONDS,
        )

    def _claim(self, lease: Manifest | None) -> Manifest:
        now = _now()
        if lease is None:
            lease = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.name,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": {"leaseTransitions": -1},
            }
        spec = lease.get("spec", {})
        if _holder(lease) != self._identity:
            transitions = spec.get("leaseTransitions", 0) + 1
            spec = spec | {"acquireTime": now, "leaseTransitions": transitions}
        spec = spec | {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(LEASE_SECONDS),
            "renewTime": now,
        }
        return lease | {"spec": spec}

    @property
    def _title(self) -> str:
        return f"{self._namespace}/{self._name}"


def _holder(lease: Manifest) -> str:
    holder: str = lease.get("spec", {}).get("holderIdentity") or ""
    return holder


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
