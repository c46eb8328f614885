package serving

import (
	"errors"
	"runtime"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// Config is the limits and waits of the stage.
type Config struct {
	// Instance tells replicas apart in transactional ids and in the ids of HTTP answers. A replica that keeps its name over
	// a restart at once ends the transaction its predecessor left open. Two replicas must not share one. Random when empty.
	Instance string

	MaxBody        int64         // bytes of a request body
	MaxRows        int           // rows of a request
	MaxInFlight    int           // requests for scores and features that are worked on at a time
	MaxQueue       int           // of them that wait for their turn; more are refused with 429
	QueueFor       time.Duration // longest that one waits
	MaxReads       int           // feature reads on their way to Redis at a time, over all requests
	MaxTimeout     time.Duration // deadline of a request for features, and of a model that declares none
	LogQueue       int           // HTTP answers waiting to be written to the predictions topic; more are dropped, counted
	LogTimeout     time.Duration // given to the queue to drain when the stage ends
	ShadowQueue    int           // rows waiting for a shadow; more are dropped, counted
	Recent         int           // predictions kept to be asked for by join key
	Lease          time.Duration // for which a version of a feature group is held that was read
	FollowEvery    time.Duration // between two looks at the registry's alias, whether or not the models topic spoke
	WarmUp         int           // times the golden rows are scored before a model becomes live
	Poll           int           // records of one transaction of the stream scorer
	TransactionFor time.Duration // after which Kafka aborts the transaction of a scorer that is gone
	SessionTimeout time.Duration // after which Kafka gives the partitions of a scorer that is gone to others
	ReadTimeout    time.Duration // of the stream scorer's feature reads
	FeatureWait    time.Duration // longest wait for the feature groups to reach a batch's event time, under clock: event
	Backoff        time.Duration // after a failed batch or session of the stream scorer
}

// Default is a configuration for a server of a few cores.
func Default() Config {
	return Config{
		MaxBody:        1 << 20,
		MaxRows:        512,
		MaxInFlight:    64 * runtime.GOMAXPROCS(0), // at 100 µs of a core each, and 5 ms of waiting for Redis, a core is busy with 50
		MaxQueue:       64 * runtime.GOMAXPROCS(0),
		QueueFor:       20 * time.Millisecond,
		MaxReads:       256,
		MaxTimeout:     time.Second,
		LogQueue:       4096,
		LogTimeout:     5 * time.Second,
		ShadowQueue:    4096,
		Recent:         4096,
		Lease:          time.Minute,
		FollowEvery:    time.Second,
		WarmUp:         20,
		Poll:           1000,
		TransactionFor: 15 * time.Second,
		SessionTimeout: 15 * time.Second,
		ReadTimeout:    2 * time.Second,
		FeatureWait:    5 * time.Second,
		Backoff:        250 * time.Millisecond,
	}
}

// Validate gives every field that has no sense, all at once.
func (c Config) Validate() error {
	var faults []error
	positive := func(name string, v int64) {
		if v <= 0 {
			faults = append(faults, failure.New(failure.BadRequest, "serving."+name, "is %d, must be more than 0", v))
		}
	}
	positive("MaxBody", c.MaxBody)
	positive("MaxRows", int64(c.MaxRows))
	positive("MaxInFlight", int64(c.MaxInFlight))
	positive("MaxQueue", int64(c.MaxQueue))
	positive("QueueFor", int64(c.QueueFor))
	positive("MaxReads", int64(c.MaxReads))
	positive("MaxTimeout", int64(c.MaxTimeout))
	positive("LogQueue", int64(c.LogQueue))
	positive("LogTimeout", int64(c.LogTimeout))
	positive("ShadowQueue", int64(c.ShadowQueue))
	positive("Recent", int64(c.Recent))
	positive("Lease", int64(c.Lease))
	positive("FollowEvery", int64(c.FollowEvery))
	positive("WarmUp", int64(c.WarmUp))
	positive("Poll", int64(c.Poll))
	positive("TransactionFor", int64(c.TransactionFor))
	positive("SessionTimeout", int64(c.SessionTimeout))
	positive("ReadTimeout", int64(c.ReadTimeout))
	positive("FeatureWait", int64(c.FeatureWait))
	positive("Backoff", int64(c.Backoff))
	return errors.Join(faults...)
}
