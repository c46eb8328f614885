"""Reads features with Feast's RemoteOnlineStore from a Millrace server, and pushes with the requests of its push API.

usage: feast_remote.py URL FOLDER, after three arrivals were pushed (e2e/feast_test.go).
"""

import sys
from datetime import timedelta

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64, Int64
from feast.value_type import ValueType

url, folder = sys.argv[1:]
store = FeatureStore(
    config=RepoConfig(
        project="flights",
        provider="local",
        registry=f"{folder}/registry.db",
        online_store={"type": "remote", "path": url},
        entity_key_serialization_version=3,
    )
)
view = FeatureView(
    name="origin_delays",
    entities=[Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)],
    ttl=timedelta(0),
    schema=[Field(name="flights_24h", dtype=Int64), Field(name="delay_mean_24h", dtype=Float64)],
    source=FileSource(path=f"{folder}/none.parquet", timestamp_field="arrived"),
)
store.registry.apply_entity(Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING), "flights")
store.registry.apply_feature_view(view, "flights")
got = store.get_online_features(
    features=["origin_delays:flights_24h", "origin_delays:delay_mean_24h"],
    entity_rows=[{"origin": "ATL"}, {"origin": "ORD"}, {"origin": "nowhere"}],
).to_dict()
want = {"origin": ["ATL", "ORD", "nowhere"], "flights_24h": [2, 1, None], "delay_mean_24h": [20.0, -5.0, None]}
assert got == want, got
print("feast: every check passed")
