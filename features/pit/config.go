package pit

import (
	"errors"
	"fmt"
	"runtime"
)

// Config is the limits of a join.
type Config struct {
	SliceRows     int    // rows that are filled at once
	SliceEvents   int    // events that are folded in at once
	MaxRowBytes   int64  // times and entities of rows held in memory; further ones lie in sorted runs on disk
	MaxStateBytes int64  // states of entities held in memory, as an estimate; further ones are encoded to disk
	TempDir       string // for what does not fit; empty is the system's
	Workers       int    // goroutines that fold and read
}

// Default suits a machine with a gigabyte to spare.
func Default() Config {
	return Config{SliceRows: 1 << 14, SliceEvents: 1 << 15, MaxRowBytes: 256 << 20, MaxStateBytes: 512 << 20, Workers: runtime.GOMAXPROCS(0)}
}

// Validate tells every fault at once.
func (c Config) Validate() error {
	var faults []error
	positive := func(name string, value int64) {
		if value <= 0 {
			faults = append(faults, fmt.Errorf("%s is %d, it must be above 0", name, value))
		}
	}
	positive("SliceRows", int64(c.SliceRows))
	positive("SliceEvents", int64(c.SliceEvents))
	positive("MaxRowBytes", c.MaxRowBytes)
	positive("MaxStateBytes", c.MaxStateBytes)
	positive("Workers", int64(c.Workers))
	return errors.Join(faults...)
}
