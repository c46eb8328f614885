// Package feast is the feature server of Feast on the serving stage: POST /get-online-features and POST /push, for the clients that speak
// it (feast's RemoteOnlineStore, and programs that call its HTTP API).
//
// A feature view is a feature group, a feature one of its outputs ("origin_delays:delay_mean_1h"), an entity's join keys its entity columns,
// a feature service the features that a model of that name is made of, and a push source a source.
//
// Features are read in one round trip, as of now. Their statuses are PRESENT, NULL_VALUE, NOT_FOUND (an entity never seen) and
// OUTSIDE_MAX_AGE (one beyond its group's time to live); a window with more events than are kept is NULL_VALUE, too.
//
// A push is a produce: its rows go to the source's topic, encoded by its schema and partitioned as the source declares, and are
// acknowledged by Kafka before the answer. The stream role then computes features from them like from any other event, so that "online",
// "offline" and "online_and_offline" are the same here, and a feature has changed a moment after the answer rather than before it. Who is
// told that a push failed cannot know what of it was written: pushing again counts what was written twice, unless the group looks for it.
//
// It refuses what it does not know by name: feature views, features, join keys, sources, columns.
//
// Source: https://github.com/feast-dev/feast, sdk/python/feast/feature_server.py (0.67). Only cmd imports it.
package feast
