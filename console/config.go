package console

import (
	"errors"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// Config is the console's limits.
type Config struct {
	Verdicts    int           // drift events kept for each model
	Events      int           // model and retrain events kept
	DeadLetters int           // dead letters kept
	Refresh     time.Duration // a state older than this is assembled anew when asked for
	Timeout     time.Duration // for Kafka to tell the lags
}

// Default is right for a project of some dozens of topics.
func Default() Config {
	return Config{Verdicts: 60, Events: 100, DeadLetters: 50, Refresh: time.Second, Timeout: 5 * time.Second}
}

// Validate gives every field that has no sense, all at once.
func (c Config) Validate() error {
	var faults []error
	for name, v := range map[string]int64{
		"Verdicts": int64(c.Verdicts), "Events": int64(c.Events), "DeadLetters": int64(c.DeadLetters),
		"Refresh": int64(c.Refresh), "Timeout": int64(c.Timeout),
	} {
		if v <= 0 {
			faults = append(faults, failure.New(failure.BadRequest, "console."+name, "is %d, must be more than 0", v))
		}
	}
	return errors.Join(faults...)
}
