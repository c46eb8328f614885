package project

import (
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is times of the wall clock.
type Schedule struct {
	Text string // as the project has it
	cron cron.Schedule
}

// ParseSchedule reads the five fields of cron (minute, hour, day of the month, month, day of the week) or a word like @daily, in UTC
// unless it begins with CRON_TZ=<zone>.
func ParseSchedule(text string) (*Schedule, error) {
	times, err := cron.ParseStandard(text)
	if err != nil {
		return nil, err
	}
	return &Schedule{text, times}, nil
}

// Next is the first of the times after t; the zero time when there is none within five years.
func (s *Schedule) Next(t time.Time) time.Time { return s.cron.Next(t.UTC()) }

// Due lists the times after one moment and up to another, of more than most of them the last ones, in their order; passed is how many came
// before these.
func (s *Schedule) Due(after, until time.Time, most int) (times []time.Time, passed int) {
	for at := s.Next(after); !at.IsZero() && !at.After(until); at = s.Next(at) {
		if times = append(times, at); len(times) > most {
			times, passed = times[1:], passed+1
		}
	}
	return times, passed
}

// schedule is nil when absent.
func (o object) schedule(key string) *Schedule {
	source := o.textOr(key, "")
	if source == "" {
		return nil
	}
	const hint = `write the five fields of cron, in UTC, like "0 3 * * *" for each night at three`
	if strings.Contains(source, "@every") { // it counts from when it is looked at, which differs between replicas
		o.l.faultAt(o.get(key), hint, "%s: %s: %q names no times", o.what, key, source)
		return nil
	}
	s, err := ParseSchedule(source)
	if err != nil {
		o.l.faultAt(o.get(key), hint, "%s: %s: %v", o.what, key, err)
		return nil
	}
	if s.Next(time.Unix(0, 0)).IsZero() {
		o.l.faultAt(o.get(key), hint, "%s: %s: the time %q never comes", o.what, key, source)
		return nil
	}
	return s
}
