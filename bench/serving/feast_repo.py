"""Makes a Feast repository with the benchmark's thirty features, three views of ten, and writes them to Redis.

    feast_repo.py FOLDER REDIS ENTITIES
"""

import pathlib
import random
import sys
from datetime import datetime, timedelta, timezone

import pandas
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64
from feast.value_type import ValueType

folder, redis, count = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
folder.mkdir()
(folder / "feature_store.yaml").write_text(f"""
project: serving_bench
provider: local
registry: registry.db
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
""")

now, chance, views, entities, frames = datetime.now(timezone.utc), random.Random(1), [], [], {}
for key in ("customer", "card", "merchant"):
    names = [f"{a}_{w}" for w in ("1h", "24h") for a in ("payments", "amount_sum", "amount_mean", "amount_std", "amount_max")]
    frame = pandas.DataFrame({key: [f"e{i:04d}" for i in range(count)], "at": now})
    for name in names:
        frame[name] = [chance.expovariate(1 / 30) for _ in range(count)]
    file = folder / f"{key}.parquet"
    frame.to_parquet(file)
    entity = Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
    source = FileSource(name=f"{key}_file", path=str(file), timestamp_field="at")
    view = FeatureView(name=f"{key}s", entities=[entity], ttl=timedelta(days=2), schema=[Field(name=n, dtype=Float64) for n in names], source=source)
    entities.append(entity)
    views.append(view)
    frames[view.name] = frame

store = FeatureStore(repo_path=str(folder))
store.apply(entities + views + [FeatureService(name="thirty", features=views)])
for name, frame in frames.items():
    store.write_to_online_store(name, frame)
