// Package clock is the one place below cmd that asks what time it is, so that everything else can be told.
package clock

import "time"

// Clock tells the current time.
type Clock func() time.Time

// System is the machine's clock, in UTC.
func System() time.Time { return time.Now().UTC() }

// Fixed always tells t.
func Fixed(t time.Time) Clock { return func() time.Time { return t } }
