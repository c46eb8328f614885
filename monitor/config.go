package monitor

import (
	"errors"
	"fmt"
	"time"
)

// Config is how the stage works, whatever the project.
type Config struct {
	FalseAlarms float64 // probability that any column of an innocent window passes its threshold
	Floor       float64 // PSI below which no difference counts
	NullFloor   float64 // rise of a null rate below which none counts
	LossFloor   float64 // loss of AUC below which none counts
	Leave       float64 // share of its threshold under which a confirmed signal counts as calm
	MinValues   int     // values a column needs in a window, and labels that performance needs

	LatenessShare float64       // of the window's length that event time goes on after its end before it is judged
	IdleAfter     time.Duration // a partition without new records for so long is not waited for
	CommitEvery   time.Duration // between two commits of how far is done
	Backoff       time.Duration // after a session that failed
	SessionFor    time.Duration // a leader that Kafka has not heard of for so long is replaced

	Poll       int // records taken at a time
	MaxRows    int // rows of a window that are counted; further ones are not judged
	MaxWindows int // windows of a model that are open or wait for labels; the oldest gives way
	MaxPending int // predictions of a model that wait for a label; further ones are judged without
	MaxEarly   int // labels of a model that are kept for predictions still to come; the oldest gives way
	MaxTail    int // records of the drift and retrain topics, per partition, that a new leader reads
}

// Default is a configuration for one machine.
func Default() Config {
	p := DefaultPolicy()
	return Config{
		FalseAlarms: p.FalseAlarms, Floor: p.Floor, NullFloor: p.NullFloor, LossFloor: p.PerformanceFloor, Leave: p.Leave, MinValues: int(p.MinValues),
		LatenessShare: 0.125, IdleAfter: 2 * time.Second, CommitEvery: time.Second, Backoff: 500 * time.Millisecond, SessionFor: 20 * time.Second,
		Poll: 5_000, MaxRows: 2_000_000, MaxWindows: 64, MaxPending: 2_000_000, MaxEarly: 500_000, MaxTail: 5_000,
	}
}

// Validate tells every fault at once.
func (c Config) Validate() error {
	var faults []error
	within := func(name string, v, low, high float64) {
		if !(v > low && v <= high) {
			faults = append(faults, fmt.Errorf("monitor %s is %v, it must be above %v and at most %v", name, v, low, high))
		}
	}
	within("FalseAlarms", c.FalseAlarms, 0, 0.5)
	within("Floor", c.Floor, 0, 10)
	within("NullFloor", c.NullFloor, 0, 1)
	within("LossFloor", c.LossFloor, 0, 0.5)
	within("Leave", c.Leave, 0, 1)
	within("LatenessShare", c.LatenessShare, 0, 10)
	const most = 1 << 40
	within("IdleAfter", float64(c.IdleAfter), 0, most)
	within("CommitEvery", float64(c.CommitEvery), 0, most)
	within("Backoff", float64(c.Backoff), 0, most)
	within("SessionFor", float64(c.SessionFor), 0, most)
	for name, v := range map[string]int{
		"MinValues": c.MinValues, "Poll": c.Poll, "MaxRows": c.MaxRows, "MaxWindows": c.MaxWindows, "MaxPending": c.MaxPending,
		"MaxEarly": c.MaxEarly, "MaxTail": c.MaxTail,
	} {
		within(name, float64(v), 0, most)
	}
	return errors.Join(faults...)
}
