package monitor

// signal is the recent history of one statistic: whether it was over its threshold, and whether it was well under it.
type signal struct {
	over, calm       []bool // the last Policy.Of windows, oldest first
	confirmed        bool
	value, threshold float64 // of the last window
}

// push moves the signal on by one window. It confirms when After of the last Of windows were over, and resolves when all the last
// Of were calm: between Leave and 1 of the threshold nothing changes, so that a statistic at its threshold does not flicker.
func (s *signal) push(value, threshold float64, p Policy) {
	s.value, s.threshold = value, threshold
	s.over = recent(s.over, value > threshold, p.Of)
	s.calm = recent(s.calm, value <= p.Leave*threshold, p.Of)
	switch {
	case count(s.over) >= p.After:
		s.confirmed = true
	case count(s.calm) >= p.Of:
		s.confirmed = false
	}
}

func (s *signal) state() string {
	switch {
	case s.confirmed:
		return StateConfirmed
	case count(s.over) > 0:
		return StateSuspected
	}
	return StateOK
}

func recent(history []bool, now bool, limit int) []bool {
	history = append(history, now)
	if len(history) > limit {
		history = append(history[:0], history[len(history)-limit:]...)
	}
	return history
}

func count(history []bool) (n int) {
	for _, b := range history {
		if b {
			n++
		}
	}
	return n
}
