"""What the routes of one API process share, built once by its lifespan."""

from collections.abc import Mapping
from dataclasses import dataclass

from sse_starlette.sse import AppStatus
from starlette.requests import HTTPConnection

from api.access import Access
from api.attendance import Attendance
from api.hub import Ear, Hub
from api.known_keys import KnownKeys
from api.offers import offered
from api.operations import Operations
from api.streams import Streams
from shared.backlog import Backlog
from shared.courier import Courier
from shared.exposition import Exposition
from shared.hour import Hour, Tally
from shared.jobs import Jobs
from shared.keyring import Keyring
from shared.keys import Keys
from shared.ledger import Ledger
from shared.metrics import ApiMetrics
from shared.overview import Overview
from shared.plane import HOME, Place, Plane
from shared.presence import Presence
from shared.prices import Prices
from shared.redis import Multiplexer, Scripts, connect
from shared.redis_clock import RedisClock
from shared.settings import ProviderConfig, Settings
from shared.streams import OpenStreams
from shared.subscriber import Subscriber


@dataclass(frozen=True, slots=True)
class State:
    settings: Settings
    redis: Multiplexer
    """With the subscriber's, one of the two connections of an API process to each server, whatever its readers."""
    scripts: Scripts
    jobs: Jobs
    plane: Plane
    courier: Courier
    ledger: Ledger
    hub: Hub
    streams: Streams
    known_keys: KnownKeys
    access: Access
    prices: Prices
    operations: Operations
    providers: Mapping[str, ProviderConfig]
    offers: list[str]
    """Models to choose from, `provider/model`."""
    metrics: ApiMetrics
    backlog: Backlog
    exposition: Exposition
    tally: Tally

    @classmethod
    def build(cls, settings: Settings, prices: Prices, metrics: ApiMetrics) -> "State":
        keys = Keys(settings.key_prefix)
        redis = connect(settings.redis_url)
        home = Place(HOME, redis, keys)
        scripts, plane = home.scripts, Plane(settings, home, connect)
        jobs, courier = Jobs(redis, scripts, keys), Courier(plane)
        attendance, streams = Attendance(Presence(scripts, keys)), Streams(OpenStreams(scripts, keys))
        subscriber = Subscriber(settings.redis_url)
        ears = [Ear(home, subscriber, RedisClock(redis))]
        for name, url in settings.stream_urls.items():
            place = plane.at(name)
            ears.append(Ear(place, Subscriber(url), RedisClock(place.redis)))
        hub = Hub(ears, courier, attendance, streams, settings.heartbeat_s, exiting, metrics)
        known_keys = KnownKeys(settings.api_keys, Keyring(redis, scripts, keys), subscriber, hub)
        ledger, access = Ledger(redis, keys), Access(settings, jobs, known_keys)
        providers = settings.providers()
        shared = (settings, redis, scripts, jobs, plane, courier, ledger, hub, streams, known_keys, access, prices)
        backlog, hour = Backlog(scripts, keys), Hour(redis, scripts, keys)
        operations = Operations(Overview(scripts, keys, backlog), courier, hour)
        telemetry = (metrics, backlog, Exposition(metrics.registry), Tally(hour, metrics.registry))
        return cls(*shared, operations, providers, offered(providers, prices), *telemetry)


def exiting() -> bool:
    """Say whether the server has been told to exit: uvicorn tells no stream of it, sse-starlette notices."""
    return AppStatus.should_exit


def state(connection: HTTPConnection) -> State:
    """Return the state of the process that serves this request."""
    built: State = connection.app.state.rejoin
    return built
