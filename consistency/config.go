package consistency

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/internal/failure"
)

// Sample is one of how many entities are checked: 1 is all of them. Which ones is a function of their keys, so that every check of one
// sample looks at the same.
type Sample uint64

// ParseSample reads "1/100", or "1" for all entities.
func ParseSample(text string) (Sample, error) {
	of := strings.TrimPrefix(text, "1/")
	n, err := strconv.ParseUint(of, 10, 32)
	if err != nil || n == 0 || of == text && n != 1 {
		return 0, failure.New(failure.BadRequest, "sample", "%q is no sample", text).WithHint("write one like 1/100, or 1 for all entities")
	}
	return Sample(n), nil
}

// UnmarshalText is ParseSample, for flags.
func (s *Sample) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSample(string(text))
	return err
}

func (s Sample) String() string {
	if s == 1 {
		return "1"
	}
	return "1/" + strconv.FormatUint(uint64(s), 10)
}

// has reports whether an entity is of the sample.
func (s Sample) has(key string) bool { return s == 1 || xxhash.Sum64String(key)%uint64(s) == 0 }

// Config is the limits of a check.
type Config struct {
	Sample        Sample
	RelativeError float64 // between values whose events' order is not known
	MaxReads      int     // reads held in memory
	MaxEvents     int     // events of sampled entities of one group held in memory
	Examples      int     // differences of one feature that a report shows
	Every         time.Duration
	OfflineDelay  time.Duration // how long the offline files may be behind what is served; Stage waits so long
}

// Default checks one entity in a hundred, every hour when it is repeated.
func Default() Config {
	return Config{
		Sample: 100, RelativeError: 1e-9, MaxReads: 2_000_000, MaxEvents: 2_000_000, Examples: 3,
		Every: time.Hour, OfflineDelay: 30 * time.Second,
	}
}

// Validate gives every field that has no sense, all at once.
func (c Config) Validate() error {
	var faults []error
	check := func(name string, ok bool) {
		if !ok {
			faults = append(faults, failure.New(failure.BadRequest, "consistency."+name, "must be more than 0"))
		}
	}
	check("Sample", c.Sample > 0)
	check("RelativeError", c.RelativeError > 0)
	check("MaxReads", c.MaxReads > 0)
	check("MaxEvents", c.MaxEvents > 0)
	check("Every", c.Every > 0)
	check("OfflineDelay", c.OfflineDelay > 0)
	return errors.Join(faults...)
}
