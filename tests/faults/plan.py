"""What a run is like, drawn from its seed: the same seed gives the same plan."""

from dataclasses import dataclass
from random import Random

from tests.faults.catalogue import FAULTS, Setting

#: Seconds that the work of a run would take without faults.
SHORTEST, LONGEST = 3.0, 5.0
MOST_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Event:
    """One fault at its time.

    Attributes:
        fault: its name in the catalogue.
        at: seconds after the first job was begun.
        lasts: seconds until it is healed.
        seed: of what the fault itself draws.
    """

    fault: str
    at: float
    lasts: float
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        seed: that it was drawn from.
        setting: the servers and workers.
        images: of the run, broken ones included.
        broken: how many of them are no images, cut off, or empty.
        poison: how many of them kill the process that decodes them.
        job_size: images in a job.
        seconds: that the work would take without faults.
        events: the faults, in the order of their times.
    """

    seed: int
    setting: Setting
    images: int
    broken: int
    poison: int
    job_size: int
    seconds: float
    events: tuple[Event, ...]

    @property
    def rate(self) -> float:
        """Images/s of each worker process."""
        return self.images / self.seconds / (self.setting.nodes * self.setting.slots)


def draw(seed: int, means: frozenset[str], *, only: str | None = None) -> Plan:
    """Draw a run.

    Args:
        seed: decides everything, on machines with the same means.
        means: what can be done here: see ``Fault.needs``.
        only: name of a fault; the run then has no other one.
    """
    chance = Random(seed)
    setting = Setting(
        broker=chance.choice(["redis", "redis", "embedded"]),
        database=chance.choice(["sqlite", "postgresql"]) if "postgresql" in means else "sqlite",
        nodes=chance.choice([1, 1, 2]),
        slots=chance.choice([1, 2]),
        engine="tiny" if chance.random() < 0.1 and "tiny" in means else "simulated",
    )
    if only is not None:
        setting = FAULTS[only].fit(setting)
    suitable = [only] if only else [name for name, fault in FAULTS.items() if fault.suits(setting, means)]
    seconds = chance.uniform(SHORTEST, LONGEST)
    events = [_draw_event(chance, chance.choice(suitable), seconds) for _ in range(chance.randint(1, MOST_FAULTS))]
    return Plan(
        seed=seed,
        setting=setting,
        images=chance.randint(100, 500),
        broken=chance.randint(0, 20),
        poison=int(chance.random() < 0.15),
        job_size=chance.randint(5, 30),
        seconds=seconds,
        events=tuple(sorted(events, key=lambda event: event.at)),
    )


def _draw_event(chance: Random, name: str, seconds: float) -> Event:
    shortest, longest = FAULTS[name].lasts
    return Event(name, chance.uniform(0, 0.8 * seconds), chance.uniform(shortest, longest), chance.getrandbits(32))
