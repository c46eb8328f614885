package training

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/training/gbdt"
	"github.com/millrace/millrace/training/logistic"
)

// Config is how the stage works, whatever the project.
type Config struct {
	Every       time.Duration // between two looks whether a first model can be trained
	Patience    time.Duration // a log that has not grown for so long has all there is
	Idle        time.Duration // event time after which a silent partition is not waited for
	Backoff     time.Duration // before another attempt at a run that failed
	Attempts    int           // at a run that fails for want of Kafka, disk or the like, before it is refused
	FirstSteps  int           // a first model that is refused is tried again every 1/FirstSteps of FirstAfter (event time)
	MinRows     int           // fewest training rows and fewest held-out rows
	LeakAUC     float64       // an input that ranks the label so well by itself is taken for the label
	LeakRows    int           // rows looked at for that
	ValidShare  float64       // of the training rows, the last ones: those that trainers stop early by
	KeepLog     int           // bytes kept of what a program prints that trains, the last ones
	GoldenRows  int           // rows kept with their scores in the model
	MaxInputs   int           // most inputs of a model
	MaxSpine    int           // most rows of a dataset where the project sets no limit
	MaxLabels   int           // most labels held in memory
	MaxRequest  int           // bytes of a retrain request
	IgnoreFirst bool          // do not train first models by itself: requests only
	Code        string        // version of the program, kept in manifests
	Forest      gbdt.Params   // of the candidate gbdt; its Seed is the project's
	Logistic    logistic.Params
	Join        pit.Config // limits of the point-in-time join
}

// Default is the configuration that suits one machine.
func Default() Config {
	return Config{
		Every: time.Second, Patience: 10 * time.Second, Idle: time.Hour, Backoff: time.Second, Attempts: 5, FirstSteps: 4,
		MinRows: 200, LeakAUC: 0.995, LeakRows: 20_000, ValidShare: 0.2, KeepLog: 4 << 10, GoldenRows: 32, MaxInputs: 2_000,
		MaxSpine: 2_000_000, MaxLabels: 20_000_000, MaxRequest: 1 << 20, Code: "devel",
		Forest: gbdt.Default(), Logistic: logistic.Default(), Join: pit.Default(),
	}
}

// Validate tells every fault at once.
func (c Config) Validate() error {
	var faults []error
	positive := func(name string, ok bool, value any) {
		if !ok {
			faults = append(faults, fmt.Errorf("%s is %v, it must be above 0", name, value))
		}
	}
	positive("Every", c.Every > 0, c.Every)
	positive("Patience", c.Patience > 0, c.Patience)
	positive("Idle", c.Idle > 0, c.Idle)
	positive("Backoff", c.Backoff > 0, c.Backoff)
	positive("Attempts", c.Attempts > 0, c.Attempts)
	positive("FirstSteps", c.FirstSteps > 0, c.FirstSteps)
	positive("MinRows", c.MinRows > 0, c.MinRows)
	positive("LeakRows", c.LeakRows > 0, c.LeakRows)
	positive("KeepLog", c.KeepLog > 0, c.KeepLog)
	positive("GoldenRows", c.GoldenRows > 0, c.GoldenRows)
	positive("MaxInputs", c.MaxInputs > 0, c.MaxInputs)
	positive("MaxSpine", c.MaxSpine > 0, c.MaxSpine)
	positive("MaxLabels", c.MaxLabels > 0, c.MaxLabels)
	positive("MaxRequest", c.MaxRequest > 0, c.MaxRequest)
	if !(c.ValidShare > 0 && c.ValidShare < 1) {
		faults = append(faults, fmt.Errorf("ValidShare is %v, it must be above 0 and below 1", c.ValidShare))
	}
	if !(c.LeakAUC > 0.5 && c.LeakAUC <= 1) {
		faults = append(faults, fmt.Errorf("LeakAUC is %v, it must be above 0.5 and at most 1", c.LeakAUC))
	}
	if err := c.Forest.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("settings of Forest: %w", err))
	}
	if err := c.Logistic.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("settings of Logistic: %w", err))
	}
	if err := c.Join.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("settings of Join: %w", err))
	}
	if len(faults) == 0 {
		return nil
	}
	return failure.Wrap(failure.BadProject, "training", "checking configuration", errors.Join(faults...))
}

// Progress is told how far a run has come: done of total, in whatever the stage of the run counts. Calls do not overlap.
type Progress func(stage string, done, total int64)
