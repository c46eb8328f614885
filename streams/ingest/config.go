package ingest

import (
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// Config is the limits of the stage. How often a group is flushed is the project's to say (project.Group.Flush).
type Config struct {
	Flush           time.Duration // between an event and its state in Redis, for groups that do not say
	FlushEvents     int           // events applied since the last flush after which the next one does not wait for its time
	BehindRecords   int           // records not yet applied above which a partition is behind: it is flushed every
	FlushBehind     time.Duration // instead
	MaxUnflushed    int           // events applied and not yet in Redis after which a partition waits for Redis
	CacheBytes      int64         // of entities kept decoded, in all the process's partitions together
	RebuildEntities int           // entities of one write while a partition is filled from its history
	VersionsEvery   time.Duration // between two looks at what other versions of a group there are
	Grace           time.Duration // for which a version is kept after readers were moved to another
	VerifyEvery     time.Duration // between two looks at whether Redis still has the position, when nothing is written
	QueueRecords    int           // records fetched and not yet processed, of all partitions, after which nothing is fetched
	PollRecords     int           // records of one poll
	OfflineEvery    time.Duration // between two commits of a partition's offline rows
	OfflineRows     int           // rows after which they are committed before their time
	OfflineBytes    int           // the same, by the memory they take
	OfflineWaiting  int           // rows that wait for a disk that does not take them, after which a partition waits with them
	CommitEvery     time.Duration // between two commits of offsets to Kafka
	HandedOnEvery   time.Duration // the same under clock: event, where who scores a topic waits for what they say was handed on
	SessionTimeout  time.Duration // after which Kafka takes a worker that does not answer for dead
	StopTimeout     time.Duration // to write what is pending when a partition is given up
	BackoffMin      time.Duration // before a failed write is tried again, doubling up to
	BackoffMax      time.Duration
	FetchMaxWait    time.Duration // a fetch waits so long for FetchMinBytes: the price of idle polling against latency
	ProducerLinger  time.Duration // a keyed record waits so long for others of its batch
	MaxUnacked      int           // re-keyed records on their way to Kafka, per partition
	FetchPartBytes  int32         // bytes of one partition in one fetch
}

// Default is a configuration for a server of a few cores.
func Default() Config {
	return Config{
		Flush:           50 * time.Millisecond,
		FlushEvents:     100_000,
		BehindRecords:   50_000,
		FlushBehind:     time.Second,
		MaxUnflushed:    200_000,
		CacheBytes:      64 << 20,
		QueueRecords:    8192,
		PollRecords:     2048,
		OfflineEvery:    5 * time.Second,
		OfflineRows:     65_536,
		OfflineBytes:    2 << 20,
		OfflineWaiting:  131_072,
		RebuildEntities: 5000,
		VersionsEvery:   time.Second,
		Grace:           10 * time.Minute,
		VerifyEvery:     time.Second,
		CommitEvery:     500 * time.Millisecond,
		HandedOnEvery:   50 * time.Millisecond,
		SessionTimeout:  10 * time.Second,
		StopTimeout:     10 * time.Second,
		BackoffMin:      50 * time.Millisecond,
		BackoffMax:      5 * time.Second,
		FetchMaxWait:    500 * time.Millisecond,
		ProducerLinger:  2 * time.Millisecond,
		MaxUnacked:      20_000,
		FetchPartBytes:  128 << 10,
	}
}

// Validate gives every field that has no sense, all at once.
func (c Config) Validate() error {
	var faults []error
	positive := func(name string, v int64) {
		if v <= 0 {
			faults = append(faults, failure.New(failure.BadProject, "ingest."+name, "is %d, must be more than 0", v))
		}
	}
	positive("Flush", int64(c.Flush))
	positive("FlushEvents", int64(c.FlushEvents))
	positive("BehindRecords", int64(c.BehindRecords))
	positive("FlushBehind", int64(c.FlushBehind))
	positive("MaxUnflushed", int64(c.MaxUnflushed))
	positive("CacheBytes", c.CacheBytes)
	positive("RebuildEntities", int64(c.RebuildEntities))
	positive("VersionsEvery", int64(c.VersionsEvery))
	positive("Grace", int64(c.Grace))
	positive("VerifyEvery", int64(c.VerifyEvery))
	positive("QueueRecords", int64(c.QueueRecords))
	positive("PollRecords", int64(c.PollRecords))
	positive("OfflineEvery", int64(c.OfflineEvery))
	positive("OfflineRows", int64(c.OfflineRows))
	positive("OfflineBytes", int64(c.OfflineBytes))
	positive("OfflineWaiting", int64(c.OfflineWaiting))
	positive("CommitEvery", int64(c.CommitEvery))
	positive("HandedOnEvery", int64(c.HandedOnEvery))
	positive("SessionTimeout", int64(c.SessionTimeout))
	positive("StopTimeout", int64(c.StopTimeout))
	positive("BackoffMin", int64(c.BackoffMin))
	positive("FetchMaxWait", int64(c.FetchMaxWait))
	positive("MaxUnacked", int64(c.MaxUnacked))
	positive("FetchPartBytes", int64(c.FetchPartBytes))
	if c.MaxUnflushed < c.FlushEvents {
		faults = append(faults, failure.New(failure.BadProject, "ingest.MaxUnflushed", "is %d, less than FlushEvents (%d)", c.MaxUnflushed, c.FlushEvents))
	}
	if c.BackoffMax < c.BackoffMin {
		faults = append(faults, failure.New(failure.BadProject, "ingest.BackoffMax", "is %s, less than BackoffMin (%s)", c.BackoffMax, c.BackoffMin))
	}
	return errors.Join(faults...)
}

// Deps is what the stage works with. None may be nil except where it says so.
type Deps struct {
	Project    *project.Project
	Kafka      streams.Config
	Redis      redis.UniversalClient // nil: no group is computed, events are only checked, kept and re-keyed
	OfflineDir string                // empty: nothing is kept offline
	Tables     project.Tables        // what events are looked up in, loaded; nil in a project without tables
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
}
