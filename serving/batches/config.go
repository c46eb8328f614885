package batches

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
)

// Config is how the stage works, whatever the project.
type Config struct {
	Every    time.Duration // between two looks at the schedules
	Backoff  time.Duration // before the second attempt at a run that failed; twice as long before each further one
	Attempts int           // at a run that fails for want of disk or the like, before it is refused
	Code     string        // version of the program, kept in manifests
	Join     pit.Config    // limits of the point-in-time join
}

// Default is the configuration that suits one machine.
func Default() Config {
	return Config{Every: time.Second, Backoff: 10 * time.Second, Attempts: 5, Code: "devel", Join: pit.Default()}
}

// Validate tells every fault at once.
func (c Config) Validate() error {
	var faults []error
	for _, limit := range []struct {
		name string
		ok   bool
		is   any
	}{{"Every", c.Every > 0, c.Every}, {"Backoff", c.Backoff > 0, c.Backoff}, {"Attempts", c.Attempts > 0, c.Attempts}} {
		if !limit.ok {
			faults = append(faults, fmt.Errorf("%s is %v, it must be above 0", limit.name, limit.is))
		}
	}
	if err := c.Join.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("settings of Join: %w", err))
	}
	if len(faults) == 0 {
		return nil
	}
	return failure.Wrap(failure.BadProject, "batches", "checking configuration", errors.Join(faults...))
}
